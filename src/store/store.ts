/**
 * The store port: what fnway must not forget. Each method is one atomic transaction and is given its ids
 * and times. Bytes named `sealed` are encrypted by the caller; the store never looks inside.
 * Implementations: sqlite/, memory.ts (the executable specification). Suite: contract.ts.
 */
import type { FunctionSettings, VersionState } from '../domain/function.ts';
import type { ResourceKind } from '../domain/resource.ts';
import type { Traffic } from '../domain/traffic.ts';
import type { JobStore } from './jobs.ts';
import type { MessageStore } from './messages.ts';
import type { ObjectStore } from './objects.ts';
import type { ScheduleStore } from './schedules.ts';

export interface FunctionRow {
  /** `fn_…`; never reused, also when a function of the same name is made anew. */
  id: string;
  namespace: string;
  name: string;
  settings: FunctionSettings;
  /** The sealed token of the endpoint. */
  sealedToken: Uint8Array;
  /** Index into the configured uid range; unique among living functions. */
  identity: number;
  /** The version that answers calls; absent until the first is ready. */
  activeVersion?: number;
  /** Calls that pin no version are split; absent where the active version answers all of them. */
  traffic?: Traffic;
  /** Builds of versions up to this number do not take over: somebody has chosen since. 0 when absent. */
  activateAbove?: number;
  createdMs: number;
  updatedMs: number;
  /** Set by the store: grows with every change of any definition. */
  revision: number;
}

export interface VersionRow {
  functionId: string;
  /** 1, 2, … within the function. */
  number: number;
  state: VersionState;
  /** Sealed canonical JSON of its VersionSpec. */
  sealedSpec: Uint8Array;
  /** Digest of the spec, for telling identical content. */
  contentDigest: string;
  /** `sha256:…` of the source tree where there is one, so that unused blobs can be found. */
  sourceDigest?: string;
  /** Sealed JSON of the VersionFailure: its message is text of the user's program. Absent unless it failed. */
  sealedFailure?: Uint8Array;
  /** Sealed text of the build log; empty while building. */
  sealedBuildLog: Uint8Array;
  createdMs: number;
  /** When it became ready or failed. */
  settledMs?: number;
}

export interface FunctionStore {
  /** Adds a function with its first version. `exists`: the name is taken in the namespace. */
  create(row: NewRow, version: VersionRow): Promise<FunctionRow | 'exists'>;
  /**
   * Changes settings, token or the active version, and adds a version where given, if the function is still at
   * `revision`. `conflict`: it is not. `missing`: there is no such function. `version.number` must be the next.
   */
  update(
    row: NewRow,
    options: { revision: number; version?: VersionRow },
  ): Promise<FunctionRow | 'conflict' | 'missing'>;
  /**
   * Ends a build: the version becomes ready or failed, and the function's active version when `activate`, which
   * never moves it back to a lower number, nor to one up to `activateAbove`, nor while calls are split. `missing`: function or version are gone, or the version is settled already.
   */
  settle(settlement: VersionSettlement): Promise<FunctionRow | 'missing'>;
  /** Functions of all namespaces in order of id, each with its active version if any. */
  list(page: {
    after?: string;
    limit: number;
  }): Promise<Array<{ row: FunctionRow; active?: VersionRow }>>;
  /** A function's versions, newest first, at most `limit` of them. Empty for an unknown function. */
  versions(functionId: string, options?: { limit?: number }): Promise<VersionRow[]>;
  /** Removes the function and its versions. False: there was none. */
  remove(functionId: string): Promise<boolean>;
  /**
   * Removes versions; never the active one, nor the newest, so that a number is never used twice (both are
   * kept silently). Leaves the revision alone. Returns how many went.
   */
  removeVersions(functionId: string, numbers: number[]): Promise<number>;
  /** Every source digest that a living version names. */
  sourceDigests(): Promise<Set<string>>;
}

/** The message of the DATA_DIRECTORY_UNUSABLE with which a write is refused for want of room ends so. */
export const diskFull = 'the disk is full';

export type NewRow = Omit<FunctionRow, 'revision'>;

export interface VersionSettlement {
  functionId: string;
  number: number;
  state: 'ready' | 'failed';
  sealedFailure?: Uint8Array;
  sealedBuildLog: Uint8Array;
  settledMs: number;
  activate: boolean;
}

export interface SecretRow {
  namespace: string;
  name: string;
  sealedValue: Uint8Array;
  updatedMs: number;
}

export interface SecretStore {
  /** Adds a secret, or gives it another value. */
  put(row: SecretRow): Promise<'created' | 'updated'>;
  /** False: there was none. */
  remove(namespace: string, name: string): Promise<boolean>;
  /** Of all namespaces, in order of namespace and name. */
  list(): Promise<SecretRow[]>;
}

/** What a manifest declares beside functions. */
export interface ResourceRow {
  /** `sch_…` and the like; never reused, also when one of the same name is made anew. */
  id: string;
  kind: ResourceKind;
  namespace: string;
  name: string;
  /** Sealed canonical JSON of what was asked for. */
  sealedSpec: Uint8Array;
  /** Brings nothing until somebody resumes it. */
  isPaused: boolean;
  /** What happened before is none of its business. */
  sinceMs: number;
  createdMs: number;
  updatedMs: number;
  /** Set by the store: grows with every change. */
  revision: number;
}

export interface ResourceStore {
  /** Adds one (no revision), or changes it if it is still at `revision`. `conflict`: it is not, or the name is taken. */
  put(
    row: Omit<ResourceRow, 'revision'>,
    expected: { revision?: number },
  ): Promise<ResourceRow | 'conflict'>;
  /** False: there was none. */
  remove(id: string): Promise<boolean>;
  /** Of all kinds and namespaces, in order of id. */
  list(): Promise<ResourceRow[]>;
}

export interface Store {
  readonly functions: FunctionStore;
  readonly secrets: SecretStore;
  readonly resources: ResourceStore;
  readonly jobs: JobStore;
  readonly schedules: ScheduleStore;
  readonly messages: MessageStore;
  readonly objects: ObjectStore;
  close(): Promise<void>;
}
