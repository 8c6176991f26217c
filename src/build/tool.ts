/**
 * Runs one build tool as a child: no shell, as the function's user, in a process group of its own
 * that is ended whole. Knows nothing of npm, pip or esbuild; those read its outcome.
 * Invariant: when `run` settles, no process of the tool's group is left.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { chown, mkdtemp, rm, rmdir } from 'node:fs/promises';
import path from 'node:path';
import type { Clock } from '../clock.ts';
import { BuildLog } from './build-log.ts';

export interface Identity {
  uid: number;
  gid: number;
}

export interface ToolRunnerOptions {
  /** Working directory of every tool. */
  directory: string;
  env: Readonly<Record<string, string>>;
  /** Absent: tools run as the gateway's own user. */
  identity: Identity | undefined;
  signal: AbortSignal;
  log: BuildLog;
  clock: Clock;
  /** Where a home directory for the tools is made when one asks for it. */
  tempDirectory: string;
  processes?: { add(processGroup: number): void; remove(processGroup: number): void };
}

export interface RunPlace {
  /** A home directory that is removed after the build. */
  home?: boolean;
  asGateway?: { directory: string; env: Readonly<Record<string, string>> } | undefined;
}

export type ToolOutcome =
  | { kind: 'exited'; status: number | null; signal: string | null; output: string }
  /** The file is missing or this user may not run it. */
  | { kind: 'not-started'; errno: string };

/** What is read for errors; the log keeps more. */
const outputBytesMax = 131_072;
/** How long output is awaited that a process outside the group still holds open. */
const drainMs = 500;

export class ToolRunner {
  readonly #options: ToolRunnerOptions;
  #home: string | undefined;

  constructor(options: ToolRunnerOptions) {
    this.#options = options;
  }

  get directory(): string {
    return this.#options.directory;
  }

  /** Aborted when the build is over for whatever reason but its own. */
  get signal(): AbortSignal {
    return this.#options.signal;
  }

  /**
   * Rejects with the signal's reason when it is aborted. `asGateway`: runs as the gateway's own user, for what touches nothing
   * of the function's; therefore in another place and with an environment in which nothing is of the function's either.
   */
  async run(
    command: string,
    args: string[],
    { home = false, asGateway }: RunPlace = {},
  ): Promise<ToolOutcome> {
    const { env, log } = this.#options;
    const place = home ? await this.#openHome() : undefined;
    // What we put in front of all code is of no interest to whoever reads how theirs was built.
    const told = args.filter(arg => !arg.startsWith('--banner'));
    log.append(`$ ${[path.basename(command), ...told].join(' ')}\n`);
    return this.#spawn(
      command,
      args,
      asGateway?.env ?? { ...env, ...(place !== undefined && { HOME: place, TMPDIR: place }) },
      { asGateway },
    );
  }

  /** Removes what the runner made for itself. Idempotent. */
  async close(): Promise<void> {
    const home = this.#home;
    if (home === undefined) return;
    this.#home = undefined;
    if (this.#options.identity === undefined) {
      await rm(home, { recursive: true, force: true });
      return;
    }
    // Its owner empties it: root walking a tree that another user may still change could be led out
    // of it.
    const never = new AbortController().signal;
    await this.#spawn('/bin/rm', ['-rf', '--', home], {}, { signal: never });
    await rmdir(home).catch(() => {});
  }

  async #openHome(): Promise<string> {
    if (this.#home !== undefined) return this.#home;
    const { identity, tempDirectory } = this.#options;
    this.#home = await mkdtemp(path.join(tempDirectory, 'fnway-build-'));
    if (identity !== undefined) await chown(this.#home, identity.uid, identity.gid);
    return this.#home;
  }

  #spawn(
    command: string,
    args: string[],
    env: Readonly<Record<string, string>>,
    how: { signal?: AbortSignal; asGateway?: RunPlace['asGateway'] },
  ): Promise<ToolOutcome> {
    const { log, clock, processes } = this.#options;
    const { signal = this.#options.signal } = how;
    const directory = how.asGateway?.directory ?? this.#options.directory;
    const identity = how.asGateway === undefined ? this.#options.identity : undefined;
    signal.throwIfAborted();
    const output = new BuildLog(outputBytesMax);
    return new Promise((resolve, reject) => {
      let child: ChildProcess;
      try {
        child = spawn(command, args, {
          cwd: directory,
          env,
          ...identity,
          detached: true,
          stdio: ['ignore', 'pipe', 'pipe'],
        });
      } catch (error) {
        resolve({ kind: 'not-started', errno: errnoOf(error) });
        return;
      }
      for (const stream of [child.stdout, child.stderr]) {
        stream?.on('data', (chunk: Buffer) => {
          log.append(chunk);
          output.append(chunk);
        });
      }
      const { pid } = child;
      if (pid !== undefined) processes?.add(pid);
      const abort = () => endGroup(child);
      signal.addEventListener('abort', abort, { once: true });
      child.once('error', error => {
        signal.removeEventListener('abort', abort);
        resolve({ kind: 'not-started', errno: errnoOf(error) });
      });
      child.once('exit', () => {
        endGroup(child);
        if (pid !== undefined) processes?.remove(pid);
        const giveUp = () => {
          child.stdout?.destroy();
          child.stderr?.destroy();
        };
        // Where it was the gateway that was busy, what has arrived is read first.
        const timer = clock.after(drainMs, () => setImmediate(giveUp));
        child.once('close', () => timer.cancel());
      });
      child.once('close', (status, killedBy) => {
        signal.removeEventListener('abort', abort);
        if (child.pid === undefined) return;
        if (signal.aborted) reject(signal.reason);
        else resolve({ kind: 'exited', status, signal: killedBy, output: output.text() });
      });
    });
  }
}

/** SIGKILL: a build has nothing to save, and an install script could ignore anything else. */
function endGroup(child: ChildProcess): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch {
    // The group is already empty.
  }
}

function errnoOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : String(error);
}
