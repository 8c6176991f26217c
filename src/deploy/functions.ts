/**
 * Makes, changes and removes functions. Decides when a definition is a new version; the way of that to where it answers
 * calls is in versions.ts. One change of a function at a time.
 */

import { createHash } from 'node:crypto';
import type { Issue } from '../../client/errors.ts';
import type { Sealer } from '../auth/seal.ts';
import type { Clock } from '../clock.ts';
import {
  canonicalJson,
  type Definition,
  type FunctionSettings,
  scriptKeys,
  splitDefinition,
  type VersionSpec,
} from '../domain/function.ts';
import { findRuntime, type Runtime } from '../domain/runtime.ts';
import { setSecretRemedy } from '../domain/secret.ts';
import { suggest } from '../domain/suggest.ts';
import { type Traffic, trafficProblem } from '../domain/traffic.ts';
import { GatewayError, isGatewayError } from '../errors.ts';
import { newId, newSecret } from '../ids.ts';
import type { Identity } from '../invoke/invoke.ts';
import { compileSchema } from '../invoke/json-schema.ts';
import type { Pool } from '../invoke/pool.ts';
import type { Log } from '../log.ts';
import { diskFull, type NewRow, type Store, type VersionRow } from '../store/store.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { OutputLog } from '../telemetry/output.ts';
import { removeFunction, removeOthers } from './files.ts';
import type { FunctionEntry, LivingVersion, Registry } from './registry.ts';
import type { Sources } from './sources.ts';
import { Split } from './split.ts';
import type { Versions } from './versions.ts';

export interface FunctionsOptions {
  store: Store;
  sources: Sources;
  versions: Versions;
  sealer: Sealer;
  registry: Registry;
  pool: Pool;
  runtimes: Map<string, Runtime>;
  output: OutputLog;
  metrics: Metrics;
  clock: Clock;
  log: Log;
  secrets: {
    has(namespace: string, name: string): boolean;
    /** The function was removed, and with it all that it was given. */
    forget(functionId: string): void;
  };
  /** Ready versions that are kept, the newest, and as many failed ones; the active one always is. */
  versionsKeptMax: number;
  /** How many functions there may be at once: the length of the uid range when the gateway is root. */
  identityCount: number;
  /** The functions' users: ended with their function. */
  users: {
    during(identity: Identity | undefined, work: () => Promise<void>): Promise<void>;
    end(uid: number): void;
  };
}

export interface PutOutcome {
  entry: FunctionEntry;
  outcome: 'created' | 'updated' | 'unchanged';
  version?: LivingVersion;
}

export class Functions {
  readonly #options: FunctionsOptions;
  /** One change of a function at a time; the next waits for it. */
  readonly #turns = new Map<string, Promise<unknown>>();

  constructor(options: FunctionsOptions) {
    this.#options = options;
  }

  /** Creates or changes a function. `mustCreate`: FUNCTION_EXISTS when there is one of this name. */
  put(
    where: { namespace: string; name: string },
    definition: Definition,
    options: { mustCreate?: boolean } = {},
  ): Promise<PutOutcome> {
    return this.#inTurn(`${where.namespace}/${where.name}`, async () => {
      const entry = this.#options.registry.get(where.namespace, where.name);
      if (entry !== undefined && options.mustCreate) {
        throw new GatewayError(
          'FUNCTION_EXISTS',
          `there is a function ${where.name} in the namespace ${where.namespace}`,
        );
      }
      refuseTakeover(where.name, entry?.row.settings.project, definition.project);
      return this.#options.sources.take(definition, async digest => {
        const { spec: wanted, settings } = splitDefinition(definition, digest);
        await refuseSchemas(wanted);
        const spec = this.#runnable(wanted);
        this.#refuseWithoutSecrets(where.namespace, spec);
        const appliedDigest = definition.applied
          ? appliedDigestOf(spec, settings)
          : entry?.row.settings.appliedDigest;
        const marked = { ...settings, ...(appliedDigest !== undefined && { appliedDigest }) };
        if (entry === undefined) return this.#create(where, spec, marked);
        return this.#change(entry, spec, marked);
      });
    });
  }

  remove(entry: FunctionEntry): Promise<void> {
    return this.#inTurn(`${entry.row.namespace}/${entry.row.name}`, async () => {
      const { store, registry, pool, output, metrics, users, sources } = this.#options;
      if (registry.get(entry.row.namespace, entry.row.name) !== entry) return;
      const rows = await store.functions.versions(entry.row.id);
      await store.functions.remove(entry.row.id).catch(async error => {
        if (!isGatewayError(error) || !error.message.includes(diskFull)) throw error;
        // Its own files may be what fills it.
        await users.during(entry.identity, () => removeFunction(entry.directory, entry.identity));
        await store.functions.remove(entry.row.id).catch(again => {
          // It stays after all: what was removed is made again.
          for (const version of entry.versions.values()) version.forgetFiles();
          if (entry.active !== undefined) this.#options.versions.start(entry, entry.active);
          throw again;
        });
      });
      registry.remove(entry);
      for (const version of entry.versions.values()) pool.retire(version);
      const { identity, directory } = entry;
      output.remove(entry.row.id);
      this.#options.secrets.forget(entry.row.id);
      metrics.remove(entry.row.namespace, entry.row.name);
      await users.during(identity, async () => {
        // Its number is given to another function one day: nothing of this one may live on under it.
        if (identity !== undefined) users.end(identity.uid);
        await removeFunction(directory, identity);
      });
      const digests = rows.flatMap(row => row.sourceDigest ?? []);
      await sources.sweep(digests, () => store.functions.sourceDigests());
    });
  }

  rotateToken(entry: FunctionEntry): Promise<string> {
    return this.#inTurn(`${entry.row.namespace}/${entry.row.name}`, async () => {
      const token = newSecret('fnt_');
      await this.#update(entry, { ...entry.row, sealedToken: this.#options.sealer.seal(token) });
      return token;
    });
  }

  /**
   * Lets a ready version answer the calls that pin none: an earlier one again, or a later one. It has to load first, or
   * nothing changes. A version that is deployed afterwards takes over as always.
   */
  promote(entry: FunctionEntry, number: number): Promise<void> {
    return this.#inTurn(`${entry.row.namespace}/${entry.row.name}`, async () => {
      const { row } = entry;
      if (this.#options.registry.get(row.namespace, row.name) !== entry)
        throw new GatewayError('FUNCTION_NOT_FOUND', `${row.name} was removed meanwhile`);
      const version = await this.pinned(entry, number);
      const [latest] = await this.#options.store.functions.versions(row.id, { limit: 1 });
      await this.#load(entry, [version]);
      await this.#update(entry, {
        ...entry.row,
        activeVersion: number,
        traffic: undefined,
        // Of what was deployed before this choice, nothing overrules it.
        activateAbove: latest!.number,
      });
      this.#options.versions.activate(entry, version);
    });
  }

  /**
   * Splits the calls that pin no version among ready versions, each of which has to load first, or nothing changes; undefined
   * lets the active version answer them all again. While calls are split, what is deployed takes no part until it is given one.
   */
  split(entry: FunctionEntry, traffic: Traffic | undefined): Promise<void> {
    return this.#inTurn(`${entry.row.namespace}/${entry.row.name}`, async () => {
      const { row } = entry;
      if (this.#options.registry.get(row.namespace, row.name) !== entry)
        throw new GatewayError('FUNCTION_NOT_FOUND', `${row.name} was removed meanwhile`);
      const problem = traffic && trafficProblem(traffic);
      if (problem !== undefined) throw new GatewayError('TRAFFIC_INVALID', problem);
      const versions: LivingVersion[] = [];
      for (const share of traffic?.shares ?? [])
        versions.push(await this.pinned(entry, share.version));
      const active = entry.active === undefined ? [] : [entry.active];
      await this.#load(entry, traffic === undefined ? active : versions);
      // As it is now: a build may have taken over while they loaded.
      await this.#update(entry, { ...entry.row, traffic });
      this.#options.versions.split(entry, traffic && new Split(traffic, versions));
    });
  }

  /** The newest, which may be building or have failed; undefined when the function was removed. */
  async latest(entry: FunctionEntry): Promise<LivingVersion | undefined> {
    const [row] = await this.#options.store.functions.versions(entry.row.id, { limit: 1 });
    return row === undefined ? undefined : this.#current(entry, row);
  }

  /** Newest first. */
  async versions(entry: FunctionEntry): Promise<LivingVersion[]> {
    const rows = await this.#options.store.functions.versions(entry.row.id);
    return rows.map(row => this.#current(entry, row));
  }

  async version(entry: FunctionEntry, number: number): Promise<LivingVersion | undefined> {
    return (await this.versions(entry)).find(version => version.number === number);
  }

  /** A version for a call that pins it: only a ready one answers. */
  async pinned(entry: FunctionEntry, number: number): Promise<LivingVersion> {
    const known = entry.versions.get(number);
    const version = known?.row.state === 'ready' ? known : await this.version(entry, number);
    if (version === undefined)
      throw new GatewayError('VERSION_NOT_FOUND', `${entry.row.name} has no version ${number}`);
    if (version.row.state === 'ready') return version;
    throw new GatewayError(
      'VERSION_NOT_READY',
      `version ${number} of ${entry.row.name} is ${version.row.state}`,
    );
  }

  buildLogOf(version: LivingVersion): string {
    const { sealedBuildLog } = version.row;
    return sealedBuildLog.length === 0 ? '' : this.#options.sealer.openText(sealedBuildLog);
  }

  /** The spec with its runtime's own name. Throws where nothing here could run it. */
  #runnable(spec: VersionSpec): VersionSpec {
    const { runtimes } = this.#options;
    if (spec.kind === 'image') {
      throw new GatewayError(
        'DRIVER_NOT_CONFIGURED',
        'this gateway has no container driver, so it cannot run images',
      );
    }
    if (spec.kind !== 'source') return spec;
    const runtime = findRuntime(runtimes.values(), spec.runtime!);
    if (runtime !== undefined) {
      refuseScriptKeys(spec, runtime);
      refuseSignature(spec, runtime);
      return { ...spec, runtime: runtime.name };
    }
    const names = [...runtimes.keys()];
    const near = suggest(spec.runtime!, names);
    const hint = near === undefined ? `it has ${names.join(', ')}` : `did you mean ${near}?`;
    throw new GatewayError(
      'RUNTIME_NOT_FOUND',
      `this gateway has no runtime ${spec.runtime}; ${hint}`,
      {
        issues: [{ path: 'runtime', message: `no runtime ${spec.runtime}`, hint }],
      },
    );
  }

  #refuseWithoutSecrets(namespace: string, { secrets }: VersionSpec): void {
    const missing = (secrets ?? []).flatMap(({ name }, index) =>
      this.#options.secrets.has(namespace, name) ? [] : { name, path: `secrets.${index}` },
    );
    if (missing.length === 0) return;
    const names = missing.map(({ name }) => name).join(', ');
    const message = `the namespace ${namespace} has no secret of this name`;
    const issues = missing.map(({ path }) => ({ path, message }));
    const remedy = setSecretRemedy(missing[0]!.name);
    throw new GatewayError('SECRET_MISSING', `${names}: ${message}`, { issues, remedy });
  }

  async #create(
    where: { namespace: string; name: string },
    spec: VersionSpec,
    settings: NewRow['settings'],
  ): Promise<PutOutcome> {
    const { store, registry, sealer, clock, identityCount } = this.#options;
    const identity = registry.freeIdentity(identityCount);
    if (identity === undefined) {
      throw new GatewayError(
        'CONFIG_INVALID',
        `all ${identityCount} users of the uid range belong to functions; configure a longer range`,
      );
    }
    const now = clock.now();
    const row: NewRow = {
      id: newId('fn', now),
      ...where,
      settings,
      sealedToken: sealer.seal(newSecret('fnt_')),
      identity,
      createdMs: now,
      updatedMs: now,
    };
    const versionRow = this.#versionRow(row.id, 1, spec);
    const created = await store.functions.create(row, versionRow);
    if (created === 'exists')
      throw new GatewayError(
        'FUNCTION_EXISTS',
        `there is a function ${where.name} in the namespace ${where.namespace}`,
      );
    const entry = registry.add(created);
    const version = registry.revive(entry, versionRow);
    this.#options.versions.start(entry, version);
    return { entry, outcome: 'created', version };
  }

  async #change(
    entry: FunctionEntry,
    spec: VersionSpec,
    settings: NewRow['settings'],
  ): Promise<PutOutcome> {
    const { store, registry, pool, versions } = this.#options;
    const [latest] = await store.functions.versions(entry.row.id, { limit: 1 });
    const contentDigest = digestOf(spec);
    // One that failed, or that somebody has rolled back, is tried anew as the next version.
    const isCurrent =
      latest?.state === 'building' ||
      latest?.number === entry.row.activeVersion ||
      // While calls are split, the newest waits for its share.
      (latest?.state === 'ready' && entry.row.traffic !== undefined);
    const sameContent = latest !== undefined && isCurrent && latest.contentDigest === contentDigest;
    const sameSettings = canonicalJson(settings) === canonicalJson(entry.row.settings);
    if (sameContent && sameSettings) {
      const version = this.#current(entry, latest);
      // Its build was lost, as on a full disk, or its files were and could not be made again.
      if (latest.state === 'building' || !version.isBuilt) versions.start(entry, version);
      return { entry, outcome: 'unchanged', version };
    }
    const row = { ...entry.row, settings };
    if (sameContent) {
      await this.#update(entry, row);
      for (const version of entry.serving) pool.activate(version);
      return { entry, outcome: 'updated' };
    }
    const versionRow = this.#versionRow(entry.row.id, (latest?.number ?? 0) + 1, spec);
    await this.#update(entry, row, versionRow);
    const version = registry.revive(entry, versionRow);
    versions.start(entry, version);
    void this.#pruneAfter(entry, version);
    return { entry, outcome: 'updated', version };
  }

  /** Each has to load before anything changes. Those that did not answer calls before and do not come to are given up. */
  async #load(entry: FunctionEntry, wanted: readonly LivingVersion[]): Promise<void> {
    const { pool, versions } = this.#options;
    const serving = entry.serving;
    const loading = wanted.filter(version => !serving.includes(version));
    try {
      for (const version of loading) {
        const what = `version ${version.number} of ${entry.row.name}`;
        if (!version.isBuilt) {
          versions.start(entry, version);
          const detail = `the files of ${what} are gone; it is being built again`;
          throw new GatewayError('VERSION_NOT_READY', detail, { retryAfterMs: 1000 });
        }
        const failure = await pool.prepare(version);
        if (failure === undefined) continue;
        const detail = `${what} does not load any more: ${failure.message}`;
        throw new GatewayError(failure.code, detail);
      }
    } catch (error) {
      for (const version of loading) pool.retire(version);
      throw error;
    }
  }

  /** A version that is not removed now, as calls are in it or the disk is in trouble, is by a later deploy. */
  async #pruneAfter(entry: FunctionEntry, version: LivingVersion): Promise<void> {
    const key = `${entry.row.namespace}/${entry.row.name}`;
    try {
      if (await this.#options.versions.ended(version))
        await this.#inTurn(key, () => this.#prune(entry));
    } catch (error) {
      const { log } = this.#options;
      log.warn('old versions could not be removed', { function: entry.row.name, error });
    }
  }

  async #prune(entry: FunctionEntry): Promise<void> {
    const { store, registry, pool, users, sources, versions, versionsKeptMax } = this.#options;
    if (registry.get(entry.row.namespace, entry.row.name) !== entry) return;
    const rows = await store.functions.versions(entry.row.id);
    // Those that failed take no place from those that could answer again.
    const ready = rows.filter(row => row.state === 'ready');
    const failed = rows.filter(row => row.state === 'failed');
    const old = [...ready.slice(versionsKeptMax), ...failed.slice(versionsKeptMax)]
      .filter(row => row.number !== entry.row.activeVersion)
      .map(row => registry.revive(entry, row))
      .filter(version => version !== entry.active && !entry.serving.includes(version))
      .filter(version => !versions.isBuilding(version))
      .filter(version => !pool.isWanted(version));
    if (old.length === 0) return;
    const numbers = old.map(version => version.number);
    await store.functions.removeVersions(entry.row.id, numbers);
    for (const version of old) {
      entry.versions.delete(version.number);
      version.forgetFiles();
      pool.retire(version);
    }
    const kept = new Set(rows.map(row => row.number).filter(number => !numbers.includes(number)));
    await users.during(entry.identity, () => removeOthers(entry.directory, kept, entry.identity));
    const digests = old.flatMap(({ row }) => row.sourceDigest ?? []);
    await sources.sweep(digests, () => store.functions.sourceDigests());
  }

  async #update(entry: FunctionEntry, row: NewRow, version?: VersionRow): Promise<void> {
    const { store, clock } = this.#options;
    const updated = await store.functions.update(
      { ...row, updatedMs: clock.now() },
      { revision: entry.row.revision, ...(version !== undefined && { version }) },
    );
    if (updated === 'conflict')
      throw new GatewayError('REVISION_CONFLICT', `${row.name} was changed meanwhile`);
    if (updated === 'missing')
      throw new GatewayError('FUNCTION_NOT_FOUND', `${row.name} was removed meanwhile`);
    entry.replaceRow(updated);
  }

  #versionRow(functionId: string, number: number, spec: VersionSpec): VersionRow {
    return {
      functionId,
      number,
      state: 'building',
      sealedSpec: this.#options.sealer.seal(canonicalJson(spec)),
      contentDigest: digestOf(spec),
      ...(spec.source !== undefined && { sourceDigest: spec.source }),
      sealedBuildLog: new Uint8Array(0),
      createdMs: this.#options.clock.now(),
    };
  }

  /** The living object of a row, brought up to what the store says. */
  #current(entry: FunctionEntry, row: VersionRow): LivingVersion {
    const version = this.#options.registry.revive(entry, row);
    if (!this.#options.versions.isBuilding(version)) Object.assign(version.row, row);
    return version;
  }

  async #inTurn<T>(key: string, work: () => Promise<T>): Promise<T> {
    const before = this.#turns.get(key) ?? Promise.resolve();
    const turn = before.then(work, work);
    this.#turns.set(key, turn);
    try {
      return await turn;
    } finally {
      if (this.#turns.get(key) === turn) this.#turns.delete(key);
    }
  }
}

/** Throws SCHEMA_INVALID. */
async function refuseSchemas({ schema }: VersionSpec): Promise<void> {
  if (schema?.in !== undefined) await compileSchema(schema.in, 'schema.in');
  if (schema?.out !== undefined) await compileSchema(schema.out, 'schema.out');
}

/** Of all that a definition says of a function. */
export function appliedDigestOf(spec: VersionSpec, settings: FunctionSettings): string {
  const { appliedDigest: _, ...own } = settings;
  return createHash('sha256')
    .update(canonicalJson({ spec, settings: own }))
    .digest('hex');
}

function digestOf(spec: VersionSpec): string {
  return createHash('sha256').update(canonicalJson(spec)).digest('hex');
}

/** A process that answers many calls has no arguments of one. */
function refuseScriptKeys(spec: VersionSpec, runtime: Runtime): void {
  if (runtime.protocol === 'stdio') return;
  const issues = scriptKeys
    .filter(key => spec[key] !== undefined)
    .map(key => ({ path: key, message: `${key} is for scripts; ${runtime.name} runs handlers` }));
  if (issues.length === 0) return;
  const [{ path, message }] = issues as [Issue];
  throw new GatewayError('DEFINITION_INVALID', `${path}: ${message}`, { issues });
}

/** A setting that had no effect would be taken for one that has. */
function refuseSignature({ signature }: VersionSpec, runtime: Runtime): void {
  if (signature === undefined || runtime.framework !== undefined) return;
  const message = `the runtime ${runtime.name} has no functions framework`;
  throw new GatewayError('DEFINITION_INVALID', `signature: ${message}`, {
    issues: [{ path: 'signature', message }],
  });
}

/** Here too, not in a plan alone: of two projects that are applied at once, the first to come has the function. */
function refuseTakeover(
  name: string,
  owner: string | undefined,
  project: string | undefined,
): void {
  if (owner === undefined || project === undefined || owner === project) return;
  const detail = `${name} belongs to project ${owner}, and this is ${project}`;
  const remedy = 'Choose another name or namespace, or the same `project`.';
  throw new GatewayError('FUNCTION_EXISTS', detail, { remedy });
}
