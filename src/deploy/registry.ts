/**
 * Every function and its living versions in memory, true to the store: the data path looks a function up here
 * and nowhere else. Sealed bytes are opened when first needed, so that ten thousand functions start quickly.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Sealer } from '../auth/seal.ts';
import type { FunctionSettings, VersionFailure, VersionSpec } from '../domain/function.ts';
import type { Runtime } from '../domain/runtime.ts';
import type { Traffic } from '../domain/traffic.ts';
import type { Identity, Version, VersionFiles } from '../invoke/invoke.ts';
import type { FunctionRow, Store, VersionRow } from '../store/store.ts';
import { Split } from './split.ts';

export interface RegistryOptions {
  store: Store;
  sealer: Sealer;
  runtimes: Map<string, Runtime>;
  /** Where the files of versions are. */
  codeDirectory: string;
  /** The first uid of the range when the gateway is root. */
  uidFirst: number | undefined;
}

/** Functions read from the store at a time. */
const pageSize = 1000;

export class FunctionEntry {
  row: FunctionRow;
  /** Answers calls that pin no version. */
  active: LivingVersion | undefined;
  readonly versions = new Map<number, LivingVersion>();
  /** The versions that calls which pin none are split among; undefined where the active one answers them all. */
  split: Split | undefined;
  readonly #options: RegistryOptions;
  #token: string | undefined;

  constructor(row: FunctionRow, options: RegistryOptions) {
    this.row = row;
    this.#options = options;
  }

  get token(): string {
    this.#token ??= this.#options.sealer.openText(this.row.sealedToken);
    return this.#token;
  }

  /** Of all versions' files. */
  get directory(): string {
    return join(this.#options.codeDirectory, this.row.id);
  }

  get home(): string {
    return join(this.directory, 'home');
  }

  /** The user that all its versions run as; undefined when the gateway is not root. */
  get identity(): Identity | undefined {
    if (this.#options.uidFirst === undefined) return undefined;
    const uid = this.#options.uidFirst + this.row.identity;
    return { uid, gid: uid };
  }

  /** Every version that answers calls that pin none. */
  get serving(): LivingVersion[] {
    const active = this.active === undefined ? [] : [this.active];
    return this.split === undefined ? active : [...this.split.versions];
  }

  /** The store's row; an older one, that came late, is none. */
  replaceRow(row: FunctionRow): void {
    if (row.revision < this.row.revision) return;
    this.row = row;
    this.#token = undefined;
  }
}

/** A version as long as somebody may call it: the one object that pool and middleware know it by. */
export class LivingVersion implements Version {
  readonly entry: FunctionEntry;
  readonly row: VersionRow;
  readonly #options: RegistryOptions;
  #spec: VersionSpec | undefined;
  #files: VersionFiles | undefined;

  constructor(entry: FunctionEntry, row: VersionRow, options: RegistryOptions) {
    this.entry = entry;
    this.row = row;
    this.#options = options;
  }

  get functionId(): string {
    return this.entry.row.id;
  }
  get namespace(): string {
    return this.entry.row.namespace;
  }
  get name(): string {
    return this.entry.row.name;
  }
  get number(): number {
    return this.row.number;
  }
  get settings(): FunctionSettings {
    return this.entry.row.settings;
  }

  get spec(): VersionSpec {
    this.#spec ??= JSON.parse(this.#options.sealer.openText(this.row.sealedSpec)) as VersionSpec;
    return this.#spec;
  }

  /** Why it is no version that can answer; undefined unless it failed. */
  get failure(): VersionFailure | undefined {
    const { sealedFailure } = this.row;
    if (sealedFailure === undefined) return undefined;
    return JSON.parse(this.#options.sealer.openText(sealedFailure)) as VersionFailure;
  }

  get runtime(): Runtime | undefined {
    const { kind, runtime } = this.spec;
    return this.#options.runtimes.get(kind === 'script' ? 'shell' : (runtime ?? ''));
  }

  get concurrency(): number {
    return this.settings.concurrency ?? this.runtime?.concurrency ?? defaultConcurrency;
  }

  get directory(): string {
    return join(this.entry.directory, String(this.number));
  }

  /**
   * What a build leaves: that it is complete, and what to load. Beside the version's directory, never in it: that
   * belongs to the function's user, who could put anything in its place.
   */
  get markerFile(): string {
    return `${this.directory}.json`;
  }

  get identity(): Identity | undefined {
    return this.entry.identity;
  }

  /** Absent for kinds without files, and until the build is complete. */
  get files(): VersionFiles | undefined {
    this.#files ??= this.#readFiles();
    return this.#files;
  }

  get isBuilt(): boolean {
    const { kind } = this.spec;
    return (kind !== 'source' && kind !== 'script') || this.files !== undefined;
  }

  /** They were removed: whether they are there is asked anew. */
  forgetFiles(): void {
    this.#files = undefined;
  }

  #readFiles(): VersionFiles | undefined {
    let left: Pick<VersionFiles, 'entry' | 'framework'>;
    try {
      left = JSON.parse(readFileSync(this.markerFile, 'utf8'));
    } catch {
      return undefined;
    }
    return {
      directory: this.directory,
      ...left,
      home: this.entry.home,
      ...(this.identity !== undefined && { identity: this.identity }),
    };
  }
}

/** Of `http` functions: their server has its own limits. */
const defaultConcurrency = 1000;

export class Registry {
  readonly #options: RegistryOptions;
  readonly #namespaces = new Map<string, Map<string, FunctionEntry>>();
  readonly #identities = new Set<number>();
  readonly #ids = new Map<string, FunctionEntry>();
  #nextIdentity = 0;

  constructor(options: RegistryOptions) {
    this.#options = options;
  }

  async load(): Promise<void> {
    let after: string | undefined;
    while (true) {
      const page = await this.#options.store.functions.list({
        limit: pageSize,
        ...(after !== undefined && { after }),
      });
      for (const { row, active } of page) {
        const entry = this.add(row);
        if (active !== undefined) entry.active = this.revive(entry, active);
        if (row.traffic !== undefined) await this.#loadSplit(entry, row.traffic);
      }
      if (page.length < pageSize) return;
      after = page.at(-1)!.row.id;
    }
  }

  async #loadSplit(entry: FunctionEntry, traffic: Traffic): Promise<void> {
    const rows = await this.#options.store.functions.versions(entry.row.id);
    const versions = traffic.shares.map(({ version }) =>
      rows.find(({ number }) => number === version),
    );
    // They are kept as long as they have a share; without one of them the active version answers.
    if (!versions.every(row => row !== undefined)) return;
    const living = versions.map(row => this.revive(entry, row));
    entry.split = new Split(traffic, living);
  }

  get(namespace: string, name: string): FunctionEntry | undefined {
    return this.#namespaces.get(namespace)?.get(name);
  }

  /** The function of this id, whatever its name. */
  byId(id: string): FunctionEntry | undefined {
    return this.#ids.get(id);
  }

  /** Whether a function of this id lives, whatever its name. */
  has(id: string): boolean {
    return this.#ids.has(id);
  }

  *all(): Iterable<FunctionEntry> {
    for (const names of this.#namespaces.values()) yield* names.values();
  }

  get size(): number {
    let size = 0;
    for (const names of this.#namespaces.values()) size += names.size;
    return size;
  }

  /** Functions of one namespace in order of name. */
  list(namespace: string): FunctionEntry[] {
    const entries = [...(this.#namespaces.get(namespace)?.values() ?? [])];
    return entries.sort((a, b) => (a.row.name < b.row.name ? -1 : 1));
  }

  add(row: FunctionRow): FunctionEntry {
    const entry = new FunctionEntry(row, this.#options);
    let names = this.#namespaces.get(row.namespace);
    if (names === undefined) {
      names = new Map();
      this.#namespaces.set(row.namespace, names);
    }
    names.set(row.name, entry);
    this.#identities.add(row.identity);
    this.#ids.set(row.id, entry);
    this.#nextIdentity = Math.max(this.#nextIdentity, row.identity + 1);
    return entry;
  }

  remove(entry: FunctionEntry): void {
    const { namespace, name, identity } = entry.row;
    this.#namespaces.get(namespace)?.delete(name);
    this.#identities.delete(identity);
    this.#ids.delete(entry.row.id);
  }

  /** The object of a version row: always the same one while the function lives. */
  revive(entry: FunctionEntry, row: VersionRow): LivingVersion {
    const known = entry.versions.get(row.number);
    if (known !== undefined) return known;
    const version = new LivingVersion(entry, row, this.#options);
    entry.versions.set(row.number, version);
    return version;
  }

  /** One that no living function has, and as late as possible one that a removed function had. */
  freeIdentity(count: number): number | undefined {
    for (let tries = 0; tries < count; tries++) {
      const identity = this.#nextIdentity % count;
      this.#nextIdentity = identity + 1;
      if (!this.#identities.has(identity)) return identity;
    }
    return undefined;
  }
}
