/**
 * Makes, changes and removes functions, and takes each new version from its definition to where it answers calls:
 * stored → source written → built → loaded once in an instance → active. A version that fails on the way never
 * replaces one that works. Keeps registry, store and pool in step.
 */

import { createHash } from 'node:crypto';
import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Sealer } from '../auth/seal.ts';
import type { BlobStore } from '../blob/blob.ts';
import { packTree, unpackTree } from '../build/archive.ts';
import type { Builder } from '../build/build.ts';
import { type Tree, treeDigest, treeFromFiles, writeTree } from '../build/source.ts';
import type { Clock } from '../clock.ts';
import {
  canonicalJson,
  type Definition,
  splitDefinition,
  type VersionFailure,
  type VersionSpec,
} from '../domain/function.ts';
import type { Runtime } from '../domain/runtime.ts';
import { suggest } from '../domain/suggest.ts';
import { GatewayError, isGatewayError } from '../errors.ts';
import { newId, newSecret } from '../ids.ts';
import type { Identity } from '../invoke/invoke.ts';
import type { Pool } from '../invoke/pool.ts';
import type { Log } from '../log.ts';
import type { NewRow, Store, VersionRow } from '../store/store.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { OutputLog } from '../telemetry/output.ts';
import { removeFunction, removeVersion } from './files.ts';
import type { FunctionEntry, LivingVersion, Registry } from './registry.ts';

export interface FunctionsOptions {
  store: Store;
  blobs: BlobStore;
  sealer: Sealer;
  registry: Registry;
  pool: Pool;
  builder: Builder;
  runtimes: Map<string, Runtime>;
  output: OutputLog;
  metrics: Metrics;
  clock: Clock;
  log: Log;
  codeDirectory: string;
  /** How many functions there may be at once: the length of the uid range when the gateway is root. */
  identityCount: number;
  /** Ends every process of a function's user. */
  endUser(identity: Identity): void;
}

export interface PutOutcome {
  entry: FunctionEntry;
  outcome: 'created' | 'updated' | 'unchanged';
  version?: LivingVersion;
}

const superseded: VersionFailure = {
  code: 'BUILD_FAILED',
  message: 'the gateway ended while it was built, and a newer version was deployed',
};

export const scriptEntry = 'script.sh';

export class Functions {
  readonly #options: FunctionsOptions;
  /** Builds under way by version, so that callers can wait for them. */
  readonly #builds = new Map<LivingVersion, Promise<void>>();
  readonly #closing = new AbortController();
  /** One change of a function at a time; the next waits for it. */
  readonly #turns = new Map<string, Promise<unknown>>();

  constructor(options: FunctionsOptions) {
    this.#options = options;
  }

  /** Goes on where a stopped gateway left: versions that were being built, files that are gone, kept instances. */
  async resume(): Promise<void> {
    const { registry, pool, log } = this.#options;
    for (const entry of registry.all()) {
      if (entry.active !== undefined) {
        if (entry.row.settings.instances.min > 0) pool.activate(entry.active);
        if (!entry.active.isBuilt) {
          log.warn('the files of a version are gone; it is built again', {
            function: entry.row.name,
          });
          this.#startBuild(entry, entry.active);
        }
      }
      // Of several that were interrupted, the newest is what was wanted last.
      const interrupted = await this.#interrupted(entry);
      for (const [i, version] of interrupted.entries()) {
        if (i === 0) this.#startBuild(entry, version);
        else await this.#settle(entry, version, { failure: superseded, log: '' });
      }
    }
  }

  /** Versions that a gateway was building when it ended, newest first. */
  async #interrupted(entry: FunctionEntry): Promise<LivingVersion[]> {
    const { store, registry } = this.#options;
    const rows = await store.functions.versions(entry.row.id);
    return rows.filter(row => row.state === 'building').map(row => registry.revive(entry, row));
  }

  async close(): Promise<void> {
    this.#closing.abort(new GatewayError('GATEWAY_STOPPING', 'the gateway is stopping'));
    await Promise.allSettled(this.#builds.values());
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
      const digest = await this.#sourceOf(definition);
      const { spec, settings } = splitDefinition(definition, digest);
      this.#refuseUnrunnable(spec);
      if (entry === undefined) return this.#create(where, spec, settings);
      return this.#change(entry, spec, settings);
    });
  }

  remove(entry: FunctionEntry): Promise<void> {
    return this.#inTurn(`${entry.row.namespace}/${entry.row.name}`, async () => {
      const { store, registry, pool, output, metrics, codeDirectory } = this.#options;
      if (registry.get(entry.row.namespace, entry.row.name) !== entry) return;
      await store.functions.remove(entry.row.id);
      registry.remove(entry);
      for (const version of entry.versions.values()) pool.retire(version);
      const { identity } = [...entry.versions.values()][0] ?? {};
      // Its number is given to another function one day: nothing of this one may live on under it.
      if (identity !== undefined) this.#options.endUser(identity);
      output.remove(entry.row.id);
      metrics.remove(entry.row.namespace, entry.row.name);
      await removeFunction(join(codeDirectory, entry.row.id), identity);
      await this.#sweepSources(entry);
    });
  }

  rotateToken(entry: FunctionEntry): Promise<string> {
    return this.#inTurn(`${entry.row.namespace}/${entry.row.name}`, async () => {
      const token = newSecret('fnt_');
      await this.#update(entry, { ...entry.row, sealedToken: this.#options.sealer.seal(token) });
      return token;
    });
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

  /** Resolves when the build of a version is settled, or after `waitMs`. */
  async settled(version: LivingVersion, waitMs: number): Promise<void> {
    const build = this.#builds.get(version);
    if (build === undefined || waitMs <= 0) return;
    await new Promise<void>(resolve => {
      const timer = this.#options.clock.after(waitMs, resolve);
      void build.finally(() => {
        timer.cancel();
        resolve();
      });
    });
  }

  buildLogOf(version: LivingVersion): string {
    const { sealedBuildLog } = version.row;
    return sealedBuildLog.length === 0 ? '' : this.#options.sealer.openText(sealedBuildLog);
  }

  /** Stores an uploaded archive. Everything about it is checked before anything is kept. */
  async putSource(archive: Uint8Array): Promise<string> {
    return this.#storeTree(await unpackTree(archive));
  }

  hasSource(digest: string): Promise<boolean> {
    return this.#options.blobs.has(digest);
  }

  async #sourceOf(definition: Definition): Promise<string | undefined> {
    const { source } = definition;
    if (source === undefined) return undefined;
    if ('files' in source) return this.#storeTree(treeFromFiles(source.files));
    if (await this.#options.blobs.has(source.digest)) return source.digest;
    throw new GatewayError('SOURCE_NOT_FOUND', `no source ${source.digest} has been uploaded`);
  }

  async #storeTree(tree: Tree): Promise<string> {
    const { blobs } = this.#options;
    const digest = treeDigest(tree);
    if (!(await blobs.has(digest))) await blobs.put(digest, await packTree(tree));
    return digest;
  }

  #refuseUnrunnable(spec: VersionSpec): void {
    const { runtimes } = this.#options;
    if (spec.kind === 'image') {
      throw new GatewayError(
        'DRIVER_NOT_CONFIGURED',
        'this gateway has no container driver, so it cannot run images',
      );
    }
    if (spec.kind !== 'source' || runtimes.has(spec.runtime!)) return;
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
    this.#startBuild(entry, version);
    return { entry, outcome: 'created', version };
  }

  async #change(
    entry: FunctionEntry,
    spec: VersionSpec,
    settings: NewRow['settings'],
  ): Promise<PutOutcome> {
    const { store, registry, pool } = this.#options;
    const [latest] = await store.functions.versions(entry.row.id);
    const contentDigest = digestOf(spec);
    const sameContent =
      latest !== undefined && latest.state !== 'failed' && latest.contentDigest === contentDigest;
    const sameSettings = canonicalJson(settings) === canonicalJson(entry.row.settings);
    if (sameContent && sameSettings)
      return { entry, outcome: 'unchanged', version: this.#current(entry, latest) };
    const row = { ...entry.row, settings };
    if (sameContent) {
      await this.#update(entry, row);
      if (entry.active !== undefined) pool.activate(entry.active);
      return { entry, outcome: 'updated' };
    }
    const versionRow = this.#versionRow(entry.row.id, (latest?.number ?? 0) + 1, spec);
    await this.#update(entry, row, versionRow);
    const version = registry.revive(entry, versionRow);
    this.#startBuild(entry, version);
    return { entry, outcome: 'updated', version };
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

  #startBuild(entry: FunctionEntry, version: LivingVersion): void {
    const build = this.#build(entry, version)
      .catch(error => {
        if (!this.#closing.signal.aborted)
          this.#options.log.error('a build broke', { function: entry.row.name, error });
      })
      .finally(() => this.#builds.delete(version));
    this.#builds.set(version, build);
  }

  async #build(entry: FunctionEntry, version: LivingVersion): Promise<void> {
    const { pool } = this.#options;
    let log = '';
    let failure: VersionFailure | undefined;
    try {
      const built = await this.#makeFiles(version);
      log = built.log;
      failure = built.failure;
      if (failure === undefined) failure = await pool.prepare(version);
    } catch (error) {
      if (this.#closing.signal.aborted) return;
      this.#options.log.warn('a version could not be built', {
        function: entry.row.name,
        version: version.number,
        error,
      });
      failure = {
        code: 'BUILD_FAILED',
        message: isGatewayError(error)
          ? error.message
          : `the gateway could not build it: ${(error as Error).message}`,
      };
    }
    await this.#settle(entry, version, { failure, log });
  }

  async #settle(
    entry: FunctionEntry,
    version: LivingVersion,
    result: { failure: VersionFailure | undefined; log: string },
  ): Promise<void> {
    const { store, sealer, clock, pool, registry } = this.#options;
    const { failure, log } = result;
    const settlement = {
      functionId: entry.row.id,
      number: version.number,
      state: failure === undefined ? ('ready' as const) : ('failed' as const),
      ...(failure !== undefined && { failure }),
      sealedBuildLog: log === '' ? new Uint8Array(0) : sealer.seal(log),
      settledMs: clock.now(),
    };
    const wasReady = version.row.state === 'ready';
    const row = wasReady
      ? entry.row
      : await store.functions.settle({ ...settlement, activate: failure === undefined });
    if (row === 'missing' || registry.get(entry.row.namespace, entry.row.name) !== entry) {
      // Removed while it was built: what the build has written meanwhile goes too.
      pool.retire(version);
      return removeFunction(dirname(version.directory), version.identity);
    }
    Object.assign(version.row, settlement);
    if (wasReady) return;
    entry.replaceRow(row);
    if (failure !== undefined) {
      pool.retire(version);
      return removeVersion(version.directory, version.identity);
    }
    // A newer one was ready first.
    if (row.activeVersion !== version.number) return pool.retire(version);
    const previous = entry.active;
    entry.active = version;
    pool.activate(version);
    if (previous !== undefined && previous !== version) pool.retire(previous);
  }

  async #makeFiles(version: LivingVersion): Promise<{ log: string; failure?: VersionFailure }> {
    const { spec, directory, identity } = version;
    if (spec.kind !== 'source' && spec.kind !== 'script') return { log: '' };
    const tree = await this.#treeOf(spec);
    if (tree === undefined) {
      return {
        log: '',
        failure: {
          code: 'SOURCE_NOT_FOUND',
          message: `the source ${spec.source} is gone from the blob store; deploy again`,
        },
      };
    }
    await rm(version.markerFile, { force: true });
    await removeVersion(directory, identity);
    await mkdir(dirname(directory), { recursive: true, mode: 0o711 });
    await writeTree(tree, directory, identity === undefined ? {} : { owner: identity });
    const built =
      spec.kind === 'script'
        ? { ok: true as const, entry: scriptEntry, log: '' }
        : await this.#runBuild(version);
    if (!built.ok) return { log: built.log, failure: built.failure };
    const making = `${version.markerFile}.tmp`;
    await writeFile(making, JSON.stringify({ entry: built.entry }), { mode: 0o600 });
    await rename(making, version.markerFile);
    return { log: built.log };
  }

  async #treeOf(spec: VersionSpec): Promise<Tree | undefined> {
    if (spec.kind === 'script')
      return new Map([[scriptEntry, { mode: 0o755 as const, bytes: Buffer.from(spec.script!) }]]);
    const archive = await this.#options.blobs.get(spec.source!);
    return archive === undefined ? undefined : unpackTree(archive);
  }

  #runBuild(version: LivingVersion) {
    const { spec, runtime, directory, identity } = version;
    if (runtime === undefined)
      throw new GatewayError('RUNTIME_NOT_FOUND', `this gateway has no runtime ${spec.runtime}`);
    return this.#options.builder.build(
      {
        directory,
        installer: runtime.installer,
        dependenciesFile: runtime.dependencies,
        entry: spec.entry,
        entries: runtime.entries,
        buildEnv: spec.buildEnv,
        allowScripts: spec.allowScripts,
        compile: runtime.compile,
        ...(identity !== undefined && { identity }),
      },
      this.#closing.signal,
    );
  }

  /** The living object of a row, brought up to what the store says. */
  #current(entry: FunctionEntry, row: VersionRow): LivingVersion {
    const version = this.#options.registry.revive(entry, row);
    if (!this.#builds.has(version)) Object.assign(version.row, row);
    return version;
  }

  /** Removes the sources that only this function used. */
  async #sweepSources(entry: FunctionEntry): Promise<void> {
    const { store, blobs } = this.#options;
    const used = await store.functions.sourceDigests();
    for (const version of entry.versions.values()) {
      const digest = version.row.sourceDigest;
      if (digest !== undefined && !used.has(digest)) await blobs.remove(digest);
    }
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

function digestOf(spec: VersionSpec): string {
  return createHash('sha256').update(canonicalJson(spec)).digest('hex');
}
