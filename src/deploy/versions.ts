/**
 * The way of a version from its row to where it answers calls: source written → built → loaded once in an instance →
 * active. A version that fails on the way never replaces one that works. Keeps registry, store and pool in step; what
 * a function is and when it gets a version is decided in functions.ts.
 */
import { chown, mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Sealer } from '../auth/seal.ts';
import type { Builder } from '../build/build.ts';
import { type FrameworkFacts, frameworkFacts } from '../build/framework.ts';
import { type Tree, writeTree } from '../build/source.ts';
import type { Clock } from '../clock.ts';
import type { VersionFailure, VersionSpec } from '../domain/function.ts';
import { GatewayError, isGatewayError } from '../errors.ts';
import type { Identity } from '../invoke/invoke.ts';
import type { Pool } from '../invoke/pool.ts';
import type { Log } from '../log.ts';
import type { FunctionRow, Store, VersionSettlement } from '../store/store.ts';
import { removeFunction, removeLost, removeVersion, stagingOf } from './files.ts';
import type { FunctionEntry, LivingVersion, Registry } from './registry.ts';
import type { Sources } from './sources.ts';
import type { Split } from './split.ts';
import { Turn } from './turn.ts';

export interface VersionsOptions {
  store: Store;
  sources: Sources;
  sealer: Sealer;
  registry: Registry;
  pool: Pool;
  builder: Builder;
  clock: Clock;
  log: Log;
  /** Where the files of versions are. */
  codeDirectory: string;
  /** The functions' users: held while something runs as one. */
  users: { during(identity: Identity | undefined, work: () => Promise<void>): Promise<void> };
}

const superseded: VersionFailure = {
  code: 'BUILD_FAILED',
  message: 'the gateway ended while it was built, and a newer version was deployed',
};

/** Between two tries to store what became of a build. */
const settleRetryMsMax = 15_000;

const scriptEntry = 'script.sh';

export class Versions {
  readonly #options: VersionsOptions;
  /** Builds under way, so that callers can wait for them. */
  readonly #builds = new Map<LivingVersion, Promise<void>>();
  readonly #closing = new AbortController();
  /** Who is told how each build has ended. */
  onSettled: (version: LivingVersion, failure: VersionFailure | undefined) => void = () => {};
  /** One source at a time is in memory. */
  readonly #writing = new Turn();

  constructor(options: VersionsOptions) {
    this.#options = options;
  }

  /** Goes on where a stopped gateway left: versions that were being built, files that are gone, kept instances. */
  async resume(): Promise<void> {
    const { registry, pool, log, codeDirectory } = this.#options;
    await removeLost(codeDirectory, id => registry.has(id)).catch(error =>
      log.warn('files of functions that are gone cannot be removed', { error }),
    );
    for (const entry of registry.all()) {
      for (const version of entry.serving) {
        if (entry.row.settings.instances.min > 0) pool.activate(version);
        if (!version.isBuilt) {
          log.warn('the files of a version are gone; it is built again', {
            function: entry.row.name,
          });
          this.start(entry, version);
        }
      }
      // Of several that were interrupted, the newest is what was wanted last.
      const interrupted = await this.#interrupted(entry);
      for (const [i, version] of interrupted.entries()) {
        if (i === 0) this.start(entry, version);
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

  /** Ends the builds; their versions are built by the next gateway. */
  async close(): Promise<void> {
    this.#closing.abort(stopping());
    await Promise.allSettled(this.#builds.values());
  }

  isBuilding(version: LivingVersion): boolean {
    return this.#builds.has(version);
  }

  /** Resolves when the build of a version is over; false when it was cut off by the end of this gateway. */
  async ended(version: LivingVersion): Promise<boolean> {
    await this.#builds.get(version);
    return !this.#closing.signal.aborted;
  }

  /** Builds a version and lets it answer calls. What comes of it is in its row. */
  start(entry: FunctionEntry, version: LivingVersion): void {
    if (this.#builds.has(version)) return;
    const { users } = this.#options;
    const build = users
      .during(version.identity, () => this.#build(entry, version))
      .catch(error => {
        if (!this.#closing.signal.aborted)
          this.#options.log.error('a build broke', { function: entry.row.name, error });
      })
      .finally(() => this.#builds.delete(version));
    this.#builds.set(version, build);
  }

  /**
   * Resolves when the build of a version is settled, or after `waitMs`. Throws GATEWAY_STOPPING when it will not be
   * settled by this gateway.
   */
  async settled(version: LivingVersion, waitMs: number): Promise<void> {
    const { signal } = this.#closing;
    const build = this.#builds.get(version);
    if (build !== undefined && waitMs > 0 && !signal.aborted) {
      await this.#pause(waitMs, build);
    }
    if (signal.aborted && version.row.state === 'building') throw stopping();
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
      failure = this.#problemOf(entry, version, error);
    }
    // Whatever a stopping gateway cut off says nothing about the version.
    if (failure !== undefined && this.#closing.signal.aborted) return;
    await this.#settle(entry, version, { failure, log });
  }

  /** What the gateway could not do, as the version's failure. */
  #problemOf(entry: FunctionEntry, version: LivingVersion, error: unknown): VersionFailure {
    // Removed meanwhile: its files went away under the build.
    if (this.#isLiving(entry) && !this.#closing.signal.aborted) {
      this.#options.log.warn('a version could not be built', {
        function: entry.row.name,
        version: version.number,
        error,
      });
    }
    const message = isGatewayError(error)
      ? error.message
      : `the gateway could not build it: ${(error as Error).message}`;
    return { code: 'BUILD_FAILED', message };
  }

  #isLiving(entry: FunctionEntry): boolean {
    return this.#options.registry.get(entry.row.namespace, entry.row.name) === entry;
  }

  async #settle(
    entry: FunctionEntry,
    version: LivingVersion,
    result: { failure: VersionFailure | undefined; log: string },
  ): Promise<void> {
    const { sealer, clock, pool } = this.#options;
    const { failure, log } = result;
    const settlement = {
      functionId: entry.row.id,
      number: version.number,
      state: failure === undefined ? ('ready' as const) : ('failed' as const),
      ...(failure !== undefined && { sealedFailure: sealer.seal(JSON.stringify(failure)) }),
      sealedBuildLog: log === '' ? new Uint8Array(0) : sealer.seal(log),
      settledMs: clock.now(),
    };
    const wasReady = version.row.state === 'ready';
    const row = wasReady
      ? entry.row
      : await this.#written({
          ...settlement,
          activate: failure === undefined,
        });
    if (row === 'missing' || !this.#isLiving(entry)) {
      // Removed while it was built: what the build has written meanwhile goes too.
      pool.retire(version);
      return removeFunction(dirname(version.directory), version.identity);
    }
    if (wasReady) return this.#builtAgain(entry, version, failure);
    Object.assign(version.row, settlement);
    entry.replaceRow(row);
    this.onSettled(version, failure);
    if (failure !== undefined) {
      pool.retire(version);
      return removeVersion(version.directory, version.identity);
    }
    // A newer one was ready first, or somebody has chosen which version answers.
    if (row.activeVersion !== version.number) {
      if (!entry.serving.includes(version)) pool.retire(version);
      return;
    }
    this.activate(entry, version);
  }

  /** `version` answers the calls that pin none from here on, as the store says already. */
  activate(entry: FunctionEntry, version: LivingVersion): void {
    this.#serve(entry, () => {
      entry.active = version;
      entry.split = undefined;
    });
  }

  /** Calls are split from here on; undefined: the active version answers them all again. */
  split(entry: FunctionEntry, split: Split | undefined): void {
    this.#serve(entry, () => {
      entry.split = split;
    });
  }

  #serve(entry: FunctionEntry, change: () => void): void {
    const { pool } = this.#options;
    const before = entry.serving;
    change();
    const now = entry.serving;
    for (const version of now) pool.activate(version);
    for (const version of before) if (!now.includes(version)) pool.retire(version);
  }

  /**
   * Tries until the store takes it: a version that stayed `building` without a build would never answer, and a disk
   * that is full or a database that is locked is so for a while only. Gives up when the gateway stops.
   */
  async #written(settlement: VersionSettlement): Promise<FunctionRow | 'missing'> {
    const { store, log } = this.#options;
    for (let tries = 0; ; tries++) {
      try {
        return await store.functions.settle(settlement);
      } catch (error) {
        // A broken invariant of ours does not mend itself.
        if (!isGatewayError(error) || this.#closing.signal.aborted) throw error;
        const delayMs = Math.min(settleRetryMsMax, 500 * 2 ** tries);
        log.error('the end of a build could not be stored; it is tried again', { delayMs, error });
        await this.#pause(delayMs);
      }
    }
  }

  /** Ends early with `work`, and when the gateway stops. */
  #pause(delayMs: number, work?: Promise<void>): Promise<void> {
    const { signal } = this.#closing;
    return new Promise(resolve => {
      const done = () => {
        timer.cancel();
        signal.removeEventListener('abort', done);
        resolve();
      };
      const timer = this.#options.clock.after(delayMs, done);
      signal.addEventListener('abort', done);
      void work?.finally(done);
    });
  }

  /** A version stays ready whatever comes of building it again: the next deploy of the same content tries once more. */
  #builtAgain(
    entry: FunctionEntry,
    version: LivingVersion,
    failure: VersionFailure | undefined,
  ): void {
    const place = { function: entry.row.name, version: version.number };
    const { log } = this.#options;
    if (failure === undefined) log.info('a version was built again', place);
    else
      log.error('a version could not be built again; deploy it to try once more', {
        ...place,
        ...failure,
      });
  }

  async #makeFiles(version: LivingVersion): Promise<{ log: string; failure?: VersionFailure }> {
    const { spec } = version;
    if (spec.kind !== 'source' && spec.kind !== 'script') return { log: '' };
    const written = await this.#writing.take(() => this.#writeSource(version));
    if (written === undefined) {
      return {
        log: '',
        failure: {
          code: 'SOURCE_NOT_FOUND',
          message: `the source ${spec.source} is gone from the blob store; deploy again`,
        },
      };
    }
    const built =
      spec.kind === 'script'
        ? { ok: true as const, entry: scriptEntry, framework: false, log: '' }
        : await this.#runBuild(version, written.framework);
    if (!built.ok) return { log: built.log, failure: built.failure };
    const making = `${version.markerFile}.tmp`;
    // What Python's code says of it is read when its packages are chosen.
    const isPython = version.runtime?.installer === 'pip';
    const found = isPython ? undefined : written.framework?.use;
    const left = { entry: built.entry, framework: built.framework ? 'used' : found };
    await writeFile(making, JSON.stringify(left), { mode: 0o600 });
    await rename(making, version.markerFile);
    return { log: built.log };
  }

  /**
   * Whole or not at all: half of a tree, left by a gateway that was killed, would be root's among its user's. Undefined
   * when there is no such source.
   */
  async #writeSource(version: LivingVersion): Promise<WrittenSource | undefined> {
    const { spec, directory, identity, entry, runtime } = version;
    this.#closing.signal.throwIfAborted();
    const tree = await this.#treeOf(spec);
    if (tree === undefined) return undefined;
    await rm(version.markerFile, { force: true });
    await removeVersion(directory, identity);
    const staging = stagingOf(directory);
    await rm(staging, { recursive: true, force: true });
    await mkdir(dirname(directory), { recursive: true, mode: 0o711 });
    await mkdir(staging, { mode: 0o700 });
    await makeHome(entry.home, identity);
    const written = join(staging, 'tree');
    await writeTree(tree, written, identity === undefined ? {} : { owner: identity });
    await rename(written, directory);
    await rm(staging, { recursive: true, force: true });
    return { framework: runtime && frameworkFacts(tree, spec, runtime) };
  }

  async #treeOf(spec: VersionSpec): Promise<Tree | undefined> {
    if (spec.kind === 'source') return this.#options.sources.get(spec.source!);
    return new Map([[scriptEntry, { mode: 0o755 as const, bytes: Buffer.from(spec.script!) }]]);
  }

  #runBuild(version: LivingVersion, framework: FrameworkFacts | undefined) {
    const { spec, runtime, directory, identity } = version;
    if (runtime === undefined)
      throw new GatewayError('RUNTIME_NOT_FOUND', `this gateway has no runtime ${spec.runtime}`);
    return this.#options.builder.build(
      {
        directory,
        installer: runtime.installer,
        dependenciesFile: runtime.dependencies,
        entry: spec.entry,
        entries: framework?.entries ?? runtime.entries,
        buildEnv: spec.buildEnv,
        allowScripts: spec.allowScripts,
        compile: runtime.compile,
        runtimeDirectory: runtime.directory,
        ...(spec.handler !== undefined && { handler: spec.handler }),
        ...(runtime.installer === 'pip' && { framework: spec }),
        needsPython: runtime.command.includes('{python}'),
        ...(identity !== undefined && { identity }),
      },
      this.#closing.signal,
    );
  }
}

/** What is known of a source when it lies on the disk: the tree itself is forgotten by then. */
interface WrittenSource {
  framework: FrameworkFacts | undefined;
}

/** For its user alone: a shared one would let a function leave settings for the programs that another one runs. */
async function makeHome(home: string, identity: Identity | undefined): Promise<void> {
  await mkdir(home, { recursive: true, mode: 0o700 });
  if (identity !== undefined) await chown(home, identity.uid, identity.gid);
}

function stopping(): GatewayError {
  return new GatewayError('GATEWAY_STOPPING', 'the gateway is stopping; the next start builds it');
}
