/**
 * The process driver: versions of source and script run as processes of this machine. Composes the warm pools, the
 * links, the keeper and the memory watch; decides which process becomes which instance.
 */

import { chmodSync, lstatSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Masks } from '../../auth/masks.ts';
import type { Clock } from '../../clock.ts';
import type { VersionFailure } from '../../domain/function.ts';
import { type Runtime, startsEntry } from '../../domain/runtime.ts';
import { formatDuration } from '../../domain/units.ts';
import { GatewayError } from '../../errors.ts';
import { newId } from '../../ids.ts';
import type { Version } from '../../invoke/invoke.ts';
import type { LinkProblem } from '../../link/payloads.ts';
import { type LinkServer, listenForLinks } from '../../link/server.ts';
import type { Log } from '../../log.ts';
import type { OutputLog } from '../../telemetry/output.ts';
import type { Driver, Instance, Started } from '../driver.ts';
import { type Cgroups, cgroupPaths, openCgroups } from './cgroup.ts';
import { startChild } from './child.ts';
import { type Express, frameworkEnvironment } from './framework.ts';
import { endPredecessor, type Keeper, markVariable, startKeeper, type UidRange } from './keeper.ts';
import {
  captureOutput,
  crashLinesMax,
  LinkInstance,
  type OnlyCall,
  overLimit,
} from './link-instance.ts';
import { limitMemory, type MemoryLimits } from './memory.ts';
import { commandOf, type Interpreters, nodeRuntime, scriptRuntime } from './runtimes.ts';
import { type GivenSecrets, InstanceSecrets } from './secrets.ts';
import { StdioInstance } from './stdio-instance.ts';
import type { Users } from './users.ts';
import { type Linked, listenForOutput, type OutputServer, WarmPool } from './warm.ts';

export interface ProcessDriverOptions {
  runtimes: Map<string, Runtime>;
  interpreters: Interpreters;
  /** Marks this data directory's processes, so that a successor can end them. */
  mark: string;
  /** The users of functions, when the gateway is root: all theirs ends with it. */
  uidRange?: UidRange;
  users: Users;
  /** What every function's environment starts from: PATH, LANG. Never the gateway's own. */
  baseEnv: Record<string, string>;
  bufferedBodyBytesMax: number;
  /** For functions that are written for a functions framework. */
  express: Express;
  /** From LOAD to LOADED. */
  loadMsMax: number;
  /** Overrides `warm` of every runtime. */
  warm?: number;
  clock: Clock;
  log: Log;
  output: OutputLog;
  /** The value of a secret; undefined when there is none. */
  secretOf(namespace: string, name: string): string | undefined;
  masks: Masks;
}

/** Variables that act when an interpreter or the loader starts: a process from the warm pool is too late for them. */
const startVariables = /^(?:NODE_|LD_|PYTHON|UV_|MALLOC_|GLIBC_TUNABLES$|OPENSSL_CONF$)/;

export interface ProcessDriver extends Driver {
  /** Ends the process groups it is told of when the gateway dies. */
  readonly keeper: Keeper;
  /** Fills the warm pools. */
  warmUp(): Promise<void>;
  /** A secret has another value, or none any more: files that have it get the new one at once, or go. */
  rotate(namespace: string, name: string): void;
  /** The function was removed. */
  forget(functionId: string): void;
  /** Ready processes of each runtime, for metrics. */
  warmSizes(): Array<{ runtime: string; size: number }>;
}

export async function openProcessDriver(options: ProcessDriverOptions): Promise<ProcessDriver> {
  const { mark, uidRange } = options;
  await endPredecessor({ mark, uidRange, cgroups: cgroupPaths(mark) });
  const prefix = `fnway-${options.mark}-`;
  for (const name of readdirSync(tmpdir())) {
    // Functions can write there too, and know the mark: a tree of theirs could change while it is walked.
    const left = join(tmpdir(), name);
    if (
      name.startsWith(prefix) &&
      lstatSync(left, { throwIfNoEntry: false })?.uid === process.getuid?.()
    )
      rmSync(left, { recursive: true, force: true });
  }
  const directory = mkdtempSync(join(tmpdir(), prefix));
  // Functions' users must reach the sockets in it; they are of no use without a secret.
  chmodSync(directory, 0o711);
  const linkPath = join(directory, 'link.sock');
  const cgroups = openCgroups({ mark, clock: options.clock, log: options.log });
  const { clock, log } = options;
  const keeper = startKeeper({ mark, uidRange, cgroups: cgroups?.path, clock, log });
  const links = await listenForLinks({ path: linkPath, clock: options.clock });
  const outputs = await listenForOutput(join(directory, 'output.sock'), options.clock);
  chmodSync(linkPath, 0o777);
  chmodSync(outputs.path, 0o777);
  return new Processes(options, { directory, linkPath, keeper, links, outputs, cgroups });
}

interface Parts {
  directory: string;
  linkPath: string;
  keeper: Keeper;
  links: LinkServer;
  outputs: OutputServer;
  cgroups: Cgroups | undefined;
}

class Processes implements ProcessDriver {
  readonly #options: ProcessDriverOptions;
  readonly #parts: Parts;
  readonly #memory: MemoryLimits;
  readonly #secrets: InstanceSecrets;
  readonly #pools = new Map<string, WarmPool>();
  readonly #instances = new Set<Instance>();
  #closed = false;

  constructor(options: ProcessDriverOptions, parts: Parts) {
    this.#options = options;
    this.#parts = parts;
    this.#memory = limitMemory(options.clock);
    this.#secrets = new InstanceSecrets(options);
    for (const runtime of options.runtimes.values()) {
      if (runtime.protocol !== 'link') continue;
      this.#pools.set(
        runtime.name,
        new WarmPool({
          ...options,
          ...parts,
          runtime: { ...runtime, warm: startsEntry(runtime) ? 0 : (options.warm ?? runtime.warm) },
        }),
      );
    }
  }

  get keeper(): Keeper {
    return this.#parts.keeper;
  }

  runs(version: Version): boolean {
    return version.spec.kind === 'source' || version.spec.kind === 'script';
  }

  async warmUp(): Promise<void> {
    await Promise.all([...this.#pools.values()].map(pool => pool.fill()));
  }

  warmSizes(): Array<{ runtime: string; size: number }> {
    return [...this.#pools].map(([runtime, pool]) => ({ runtime, size: pool.size }));
  }

  rotate(namespace: string, name: string): void {
    this.#secrets.rotate(namespace, name);
  }

  forget(functionId: string): void {
    this.#secrets.forget(functionId);
  }

  async start(version: Version): Promise<Started> {
    if (this.#closed) throw new GatewayError('GATEWAY_STOPPING', 'the gateway is stopping');
    const runtime = this.#runtimeOf(version);
    const starting =
      runtime.protocol === 'link'
        ? this.#startLinked(version, runtime)
        : this.#startStdio(version, runtime);
    const started = await starting.catch(error => {
      // It may tell what a process wrote before it ended.
      error.message = this.#options.masks.hide(version.functionId, error.message);
      throw error;
    });
    if (started.ok) {
      const { instance } = started;
      this.#instances.add(instance);
      void instance.exited.then(() => this.#instances.delete(instance));
      if (this.#closed) void instance.stop(0);
      return started;
    }
    const failure = this.#options.masks.hideIn(version.functionId, started.failure);
    return { ok: false, failure };
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await Promise.all([...this.#instances].map(instance => instance.stop(0)));
    await Promise.all([...this.#pools.values()].map(pool => pool.close()));
    await this.#parts.links.close();
    this.#parts.outputs.close();
    await this.#parts.cgroups?.close();
    this.#parts.keeper.close();
    this.#secrets.close();
    rmSync(this.#parts.directory, { recursive: true, force: true });
  }

  #runtimeOf(version: Version): Runtime {
    const name = version.spec.kind === 'script' ? scriptRuntime : version.spec.runtime!;
    const runtime = this.#options.runtimes.get(name);
    if (runtime !== undefined) return runtime;
    throw new GatewayError(
      'INSTANCE_NOT_STARTED',
      `the runtime ${name} is gone from this gateway; start it with --runtimes DIR`,
    );
  }

  async #startLinked(version: Version, runtime: Runtime): Promise<Started> {
    const files = version.files;
    if (files === undefined) throw notBuilt(version);
    const pool = this.#pools.get(runtime.name)!;
    const given = this.#secrets.give(version);
    const env = { ...this.#environment(version), ...given.env };
    const names = [...Object.keys(version.spec.env), ...Object.keys(given.env)];
    const special = startsEntry(runtime) || names.some(key => startVariables.test(key));
    const { identity } = files;
    const release = identity === undefined ? () => {} : this.#options.users.hold(identity.uid);
    const how = { env, special, given };
    try {
      const started = await this.#startLinkedAs(version, pool, how).catch(error => {
        if (!startsEntry(runtime) || error.code !== 'INSTANCE_NOT_STARTED') throw error;
        return { ok: false as const, failure: failureOfProgram(error.message, files.directory) };
      });
      if (started.ok) void started.instance.exited.then(release);
      else release();
      return started;
    } catch (error) {
      release();
      throw error;
    }
  }

  async #startLinkedAs(
    version: Version,
    pool: WarmPool,
    how: { env: Record<string, string>; special: boolean; given: GivenSecrets },
  ): Promise<Started> {
    const { env, special } = how;
    const { directory, entry, identity } = version.files!;
    const linked = special
      ? await pool.startWith({ env, identity, entry: join(directory, entry) })
      : await pool.take();
    try {
      return await this.#load(version, linked, how);
    } catch (error) {
      linked.kill();
      throw error;
    }
  }

  async #load(
    version: Version,
    linked: Linked,
    how: { env: Record<string, string>; special: boolean; given: GivenSecrets },
  ): Promise<Started> {
    const { clock, output, loadMsMax } = this.#options;
    const files = version.files!;
    const settings = await this.#settingsOf(version, linked, how);
    let isLate = false;
    const late = clock.after(loadMsMax, () => {
      isLate = true;
      linked.kill();
    });
    const loading = linked.link.load(settings);
    // All else after LOAD is sent, so that the process works meanwhile.
    const id = newId('ins', clock.now());
    const only: OnlyCall = { id: undefined };
    captureOutput(linked, { id, version, output, clock, only });
    const bound = this.#memory.bound({
      pid: linked.pid,
      enclosed: linked.enclosed,
      memoryBytes: version.spec.memoryBytes,
      onOverLimit: () => linked.kill(),
    });
    void linked.link.closed.then(() => bound.release());
    let loaded: Awaited<typeof loading>;
    try {
      loaded = await loading;
    } catch {
      linked.kill();
      if (this.#closed) throw new GatewayError('GATEWAY_STOPPING', 'the gateway is stopping');
      const status = await linked.exited;
      const what = bound.exceeded()
        ? `${overLimit(version)} while it loaded ${files.entry}`
        : isLate
          ? `loading ${files.entry} took longer than ${formatDuration(loadMsMax)} (FNWAY_LOAD_MS_MAX)`
          : `the process ended${status === undefined ? '' : ` (${status})`} while it loaded ${files.entry}`;
      const lines = output
        .tail(version.functionId, { linesMax: crashLinesMax, instance: id })
        .map(line => line.text);
      return { ok: false, failure: { code: 'LOAD_FAILED', message: [what, ...lines].join('\n') } };
    } finally {
      late.cancel();
    }
    if (!loaded.ok) {
      linked.kill();
      return { ok: false, failure: failureOf(loaded.problem) };
    }
    const wholeBodies = loaded.body === 'whole';
    const instance = new LinkInstance({
      ...{ id, version, linked, wholeBodies, clock, bound, output, only },
    });
    return { ok: true, instance };
  }

  /** What LOAD says: docs/reference/link.md. */
  async #settingsOf(
    version: Version,
    linked: Linked,
    how: { env: Record<string, string>; special: boolean; given: GivenSecrets },
  ): Promise<Record<string, unknown>> {
    const { spec, name, namespace, number, concurrency } = version;
    const files = version.files!;
    const needsExpress = files.framework !== undefined && spec.runtime === nodeRuntime;
    return {
      ...{ function: name, namespace, version: number },
      ...{ directory: files.directory, entry: files.entry, handler: spec.handler },
      signature: spec.signature,
      framework: files.framework === 'used' || undefined,
      express: needsExpress ? await this.#options.express.file() : undefined,
      env: how.env,
      ...how.given.load,
      // A process that was started as the function's user has its identity already.
      ...(how.special ? {} : files.identity),
      ...linked.loadExtras,
      concurrency,
      memoryBytes: spec.memoryBytes,
      bufferedBodyBytesMax: this.#options.bufferedBodyBytesMax,
    };
  }

  async #startStdio(version: Version, runtime: Runtime): Promise<Started> {
    const files = version.files;
    if (files === undefined) throw notBuilt(version);
    const { interpreters, clock, output, bufferedBodyBytesMax } = this.#options;
    const entry = join(files.directory, files.entry);
    const given = this.#secrets.give(version);
    const env = {
      ...this.#environment(version),
      ...given.env,
      [markVariable]: this.#options.mark,
    };
    if (runtime.check !== undefined) {
      const command = commandOf(runtime, runtime.check, { interpreters, entry });
      const failure = await this.#options.users.during(files.identity, () =>
        this.#check(command, env, version),
      );
      if (failure !== undefined) return { ok: false, failure };
    }
    const instance = new StdioInstance({
      id: newId('ins', clock.now()),
      version,
      command: commandOf(runtime, runtime.command, { interpreters, entry }),
      env,
      cwd: files.directory,
      clock,
      keeper: this.#parts.keeper,
      memory: this.#memory,
      users: this.#options.users,
      output,
      hide: text => this.#options.masks.hide(version.functionId, text),
      bufferedBodyBytesMax,
    });
    return { ok: true, instance };
  }

  async #check(
    command: string[],
    env: Record<string, string>,
    version: Version,
  ): Promise<VersionFailure | undefined> {
    const { directory, entry, identity } = version.files!;
    const child = await startChild({
      command,
      env,
      cwd: directory,
      keeper: this.#parts.keeper,
      clock: this.#options.clock,
      stdin: 'ignore',
      ...(identity !== undefined && { identity }),
    });
    let text = '';
    const gather = (chunk: Buffer) => {
      const hidden = this.#options.masks.hide(version.functionId, text + chunk.toString('utf8'));
      text = hidden.slice(-4000);
    };
    child.stdout.on('data', gather);
    child.stderr.on('data', gather);
    const late = this.#options.clock.after(this.#options.loadMsMax, () => child.kill());
    const status = await child.exited;
    late.cancel();
    if (status === 'status 0') return undefined;
    const message = text.trim().replaceAll(`${directory}/`, '');
    const line = /(?:: line |: )(\d+):/.exec(message)?.[1];
    return {
      code: 'LOAD_FAILED',
      message: message === '' ? `the check of ${entry} ended with ${status}` : message,
      file: entry,
      ...(line !== undefined && { line: Number(line) }),
    };
  }

  #environment(version: Version): Record<string, string> {
    return {
      ...this.#options.baseEnv,
      HOME: version.files!.home,
      ...frameworkEnvironment(version, this.#options.runtimes.get(version.spec.runtime ?? '')),
      ...version.spec.env,
      FNWAY_FUNCTION: version.name,
      FNWAY_NAMESPACE: version.namespace,
      FNWAY_VERSION: String(version.number),
    };
  }
}

/** Its files were lost with their directory, and are being made again or could not be. */
function notBuilt({ name, number }: Version): GatewayError {
  return new GatewayError(
    'VERSION_NOT_READY',
    `the files of version ${number} of ${name} are gone`,
    {
      retryAfterMs: 1000,
      remedy: 'The gateway makes them again when it starts. Deploy the function again to try now.',
    },
  );
}

/** A function that is a program of its own runs code of its user's before it says HELLO. */
function failureOfProgram(message: string, directory: string): VersionFailure {
  const told = message.replaceAll(`${directory}/`, '');
  const [, file, line] = /^\t([^/\s:][^\s:]*):(\d+)/m.exec(told) ?? [];
  return {
    code: 'LOAD_FAILED',
    message: told.replace(/\n+goroutine \d+ [\s\S]*$/, ''),
    ...(file !== undefined && { file, line: Number(line) }),
  };
}

function failureOf(problem: LinkProblem): VersionFailure {
  const { message, file, line, column, type, reason } = problem;
  return {
    code: 'LOAD_FAILED',
    message: reason === 'threw' && type !== undefined ? `${type}: ${message}` : message,
    ...(file !== undefined && { file }),
    ...(line !== undefined && { line }),
    ...(column !== undefined && { column }),
  };
}
