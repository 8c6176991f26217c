/**
 * Linked processes that are ready to become an instance: started before they are needed, because starting an
 * interpreter costs thirty times what loading a function into one does. One pool a runtime. Generic processes run
 * nothing of a user's; whoever takes one gives it an identity first.
 */
import { createServer, type Server, type Socket } from 'node:net';
import type { Clock } from '../../clock.ts';
import { definitionDefaults } from '../../domain/function.ts';
import type { Runtime } from '../../domain/runtime.ts';
import { newSecret } from '../../ids.ts';
import type { Identity } from '../../invoke/invoke.ts';
import type { Link } from '../../link/link.ts';
import { type LinkServer, Strangers } from '../../link/server.ts';
import type { Log } from '../../log.ts';
import type { Cgroup, Cgroups } from './cgroup.ts';
import { type Child, killTree, startChild } from './child.ts';
import { type Keeper, markVariable } from './keeper.ts';
import { commandOf, type Interpreters } from './runtimes.ts';

/** From starting a process to its HELLO, and from there to its first PONG. */
const startMsMax = 10_000;

/** A process that has said HELLO and waits for LOAD. */
export interface Linked {
  readonly link: Link;
  readonly pid: number;
  /** Where its output comes from once it is an instance. */
  output(onStdout: (chunk: Buffer) => void, onStderr: (chunk: Buffer) => void): void;
  /** What LOAD must say beyond the version: where a fork server's child sends its output. */
  readonly loadExtras: { log?: string };
  /** Its control group, once it is in one; undefined where there are none. */
  readonly enclosed: Promise<Cgroup | undefined>;
  /** How it ended, where anybody can know. */
  readonly exited: Promise<string | undefined>;
  kill(): void;
}

export interface WarmPoolOptions {
  runtime: Runtime;
  interpreters: Interpreters;
  links: LinkServer;
  linkPath: string;
  /** Sockets for the output of fork servers' children. */
  outputs: OutputServer | undefined;
  keeper: Keeper;
  cgroups: Cgroups | undefined;
  mark: string;
  clock: Clock;
  baseEnv: Record<string, string>;
  log: Log;
}

export class WarmPool {
  readonly #options: WarmPoolOptions;
  readonly #ready: Linked[] = [];
  #filling = 0;
  #forkServer: Promise<Child> | undefined;
  /** Secrets of children that the fork server was asked for and that have not said HELLO. */
  readonly #forking = new Set<string>();
  #closed = false;
  /** Fewer are kept when starting fails, so that a broken interpreter does not spin. */
  #failures = 0;

  constructor(options: WarmPoolOptions) {
    this.#options = options;
  }

  /** Processes ready now. */
  get size(): number {
    return this.#ready.length;
  }

  /** Starts as many processes as the runtime wants kept; resolves when they are there or have failed. */
  async fill(): Promise<void> {
    const missing = this.#options.runtime.warm - this.#ready.length - this.#filling;
    if (this.#closed || missing <= 0 || this.#failures > 3) return;
    await Promise.all(Array.from({ length: missing }, () => this.#fillOne()));
  }

  async #fillOne(): Promise<void> {
    const { runtime, log } = this.#options;
    this.#filling++;
    try {
      const linked = await this.#start({ awaited: false });
      await this.#prepare(linked);
      this.#failures = 0;
      if (this.#closed) linked.kill();
      else this.#keep(linked);
    } catch (error) {
      this.#failures++;
      if (this.#closed) return;
      log.warn('a process for the warm pool did not start', { runtime: runtime.name, error });
    } finally {
      this.#filling--;
    }
  }

  /** All that a process can have behind it before a call waits for it. */
  async #prepare(linked: Linked): Promise<void> {
    const late = this.#options.clock.after(startMsMax, () => linked.kill());
    try {
      // Moving a process into its group takes the kernel 20 ms. The bound is the one that most functions have.
      const cgroup = await linked.enclosed;
      cgroup?.limit(definitionDefaults.memoryBytes);
      // The first frame takes a process twice as long as the next.
      await linked.link.ping();
    } finally {
      late.cancel();
    }
  }

  #keep(linked: Linked): void {
    this.#ready.push(linked);
    void linked.link.closed.then(() => {
      const at = this.#ready.indexOf(linked);
      if (at !== -1) this.#ready.splice(at, 1);
    });
  }

  /** A ready process, or a new one. The pool refills itself behind the caller's back. */
  async take(): Promise<Linked> {
    const linked = this.#ready.shift();
    // Refilled a little later: starting a process takes time from the call that is loading just now.
    this.#options.clock.after(refillDelayMs, () => void this.fill(), { unref: true });
    if (linked !== undefined) return linked;
    this.#failures = 0;
    return this.#start({ awaited: true });
  }

  /** A process of its own, outside the pool: its environment must act when it starts, or it is one function's program. */
  async startWith(how: {
    env: Record<string, string>;
    identity: Identity | undefined;
    entry: string;
  }): Promise<Linked> {
    const { runtime, interpreters } = this.#options;
    const { env, identity, entry } = how;
    const command = commandOf(runtime, runtime.command, { interpreters, entry });
    const words = runtime.fork ? [...command.filter(word => word !== '-I'), '--direct'] : command;
    return this.#startProcess(words, { ...env, ...awaitedEnv }, identity);
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const linked of this.#ready.splice(0)) linked.kill();
    const server = await this.#forkServer?.catch(() => undefined);
    server?.kill();
  }

  #start({ awaited }: { awaited: boolean }): Promise<Linked> {
    const { runtime, interpreters } = this.#options;
    if (runtime.fork) return this.#fork();
    const command = commandOf(runtime, runtime.command, { interpreters });
    return this.#startProcess(command, awaited ? awaitedEnv : {}, undefined);
  }

  async #startProcess(
    command: string[],
    env: Record<string, string>,
    identity: Identity | undefined,
  ): Promise<Linked> {
    const { links, linkPath, mark, keeper, baseEnv, log, runtime } = this.#options;
    const secret = newSecret('');
    const child = await startChild({
      command,
      env: {
        ...baseEnv,
        ...env,
        FNWAY_LINK: linkPath,
        FNWAY_LINK_SECRET: secret,
        [markVariable]: mark,
      },
      cwd: '/',
      keeper,
      clock: this.#options.clock,
      stdin: 'ignore',
      ...(identity !== undefined && { identity }),
    });
    const early = new EarlyOutput(child);
    void child.exited.then(status => {
      const said = early.text();
      links.forget(
        secret,
        `the ${runtime.name} process ended before it was ready (${status})${said === '' ? '' : `: ${said}`}`,
      );
    });
    try {
      const { link } = await links.expect(secret, startMsMax);
      return {
        link,
        pid: child.pid,
        enclosed: this.#enclose(child.pid, link),
        loadExtras: {},
        output: (onStdout, onStderr) => early.handOver(onStdout, onStderr),
        exited: child.exited,
        kill: () => child.kill(),
      };
    } catch (error) {
      log.debug('a process did not link', { error });
      child.kill();
      throw error;
    }
  }

  async #fork(): Promise<Linked> {
    const { links, keeper, outputs, clock } = this.#options;
    this.#forkServer ??= this.#startForkServer();
    let server: Child;
    try {
      server = await this.#forkServer;
    } catch (error) {
      // The next one tries again.
      this.#forkServer = undefined;
      throw error;
    }
    const secret = newSecret('');
    this.#forking.add(secret);
    let linked: Awaited<ReturnType<LinkServer['expect']>>;
    try {
      const expected = links.expect(secret, startMsMax);
      server.stdin?.write(`${secret}\n`);
      linked = await expected;
    } catch (error) {
      // One that hangs would let every start wait in vain: the next gets another.
      server.kill();
      throw error;
    } finally {
      this.#forking.delete(secret);
    }
    const { link, hello } = linked;
    const pid = hello.pid;
    keeper.add(pid);
    const exited = link.closed.then(() => {
      keeper.remove(pid);
      return undefined;
    });
    return {
      link,
      pid,
      enclosed: this.#enclose(pid, link),
      loadExtras: outputs === undefined ? {} : { log: outputs.path },
      output(onStdout, onStderr) {
        if (outputs === undefined) return;
        const forget = outputs.expect(secret, { stdout: onStdout, stderr: onStderr });
        // The last words of one that has ended may still be on their way.
        void link.closed.then(() => clock.after(secretMsMax, forget, { unref: true }));
      },
      exited,
      kill: () => killTree(pid),
    };
  }

  /** Gives a process a control group that goes when its link goes, whether it became an instance or not. */
  async #enclose(pid: number, link: Link): Promise<Cgroup | undefined> {
    const cgroup = await this.#options.cgroups?.enclose(pid);
    if (cgroup !== undefined) void link.closed.then(() => cgroup.release());
    return cgroup;
  }

  async #startForkServer(): Promise<Child> {
    const { runtime, interpreters, keeper, mark, baseEnv, linkPath, log } = this.#options;
    const server = await startChild({
      command: commandOf(runtime, runtime.command, { interpreters }),
      env: { ...baseEnv, FNWAY_LINK: linkPath, [markVariable]: mark },
      cwd: '/',
      keeper,
      clock: this.#options.clock,
      stdin: 'pipe',
    });
    server.stdout.on('data', () => {});
    server.stderr.on('data', chunk =>
      log.warn('the fork server says', { runtime: runtime.name, text: chunk.toString() }),
    );
    void server.exited.then(() => {
      this.#forkServer = undefined;
      for (const secret of this.#forking)
        this.#options.links.forget(secret, 'the fork server ended');
      if (!this.#closed)
        log.warn('the fork server ended; the next call starts another', { runtime: runtime.name });
    });
    return server;
  }
}

const refillDelayMs = 20;

/** What a process writes before it is an instance: why it did not start, or the first of its log. */
class EarlyOutput {
  readonly #child: Child;
  readonly #chunks: Array<{ stream: 'stdout' | 'stderr'; chunk: Buffer }> = [];
  readonly #gather = {
    stdout: (chunk: Buffer) => this.#keep('stdout', chunk),
    stderr: (chunk: Buffer) => this.#keep('stderr', chunk),
  };
  #bytes = 0;

  constructor(child: Child) {
    this.#child = child;
    child.stdout.on('data', this.#gather.stdout);
    child.stderr.on('data', this.#gather.stderr);
  }

  #keep(stream: 'stdout' | 'stderr', chunk: Buffer): void {
    this.#chunks.push({ stream, chunk });
    this.#bytes += chunk.length;
    while (this.#bytes > earlyBytesMax) this.#bytes -= this.#chunks.shift()!.chunk.length;
  }

  /** Its end, in which the reason most likely is. */
  text(): string {
    const all = Buffer.concat(this.#chunks.map(({ chunk }) => chunk));
    return all.toString('utf8').slice(-2000).trim();
  }

  handOver(onStdout: (chunk: Buffer) => void, onStderr: (chunk: Buffer) => void): void {
    this.#child.stdout.off('data', this.#gather.stdout).on('data', onStdout);
    this.#child.stderr.off('data', this.#gather.stderr).on('data', onStderr);
    for (const { stream, chunk } of this.#chunks.splice(0))
      (stream === 'stdout' ? onStdout : onStderr)(chunk);
  }
}

const earlyBytesMax = 65_536;

/** Tells a process that somebody waits for it: what only makes the first call faster would delay that one. */
const awaitedEnv = { FNWAY_AWAITED: 'true' };

/** Where the children of fork servers send their output: a Unix socket whose first line says whose and which. */
export interface OutputServer {
  readonly path: string;
  /** Takes what comes for `secret` until the returned function is called; what is connected by then stays. */
  expect(secret: string, on: Record<'stdout' | 'stderr', (chunk: Buffer) => void>): () => void;
  close(): void;
}

const secretLineBytesMax = 256;
const secretMsMax = 5000;

export function listenForOutput(path: string, clock: Clock): Promise<OutputServer> {
  const expected = new Map<string, (chunk: Buffer) => void>();
  const sockets = new Set<Socket>();
  const strangers = new Strangers();
  const server: Server = createServer(socket => {
    sockets.add(socket);
    strangers.add(socket);
    socket.on('error', () => socket.destroy());
    socket.once('close', () => sockets.delete(socket));
    // Whoever does not name a secret soon is nobody we wait for.
    const late = clock.after(secretMsMax, () => socket.destroy(), { unref: true });
    socket.once('close', () => late.cancel());
    let head = Buffer.alloc(0);
    socket.on('data', function first(chunk: Buffer) {
      head = Buffer.concat([head, chunk]);
      const end = head.indexOf(10);
      if (end === -1) {
        if (head.length > secretLineBytesMax) socket.destroy();
        return;
      }
      socket.off('data', first);
      late.cancel();
      const name = head.toString('latin1', 0, end);
      const deliver = expected.get(name);
      expected.delete(name);
      if (deliver === undefined) return socket.destroy();
      strangers.know(socket);
      if (head.length > end + 1) deliver(head.subarray(end + 1));
      socket.on('data', deliver);
    });
  });
  return new Promise((resolve, reject) => {
    server.on('error', reject);
    server.listen(path, () => {
      server.unref();
      resolve({
        path,
        expect(secret, { stdout, stderr }) {
          const names = [`${secret} stdout`, `${secret} stderr`] as const;
          expected.set(names[0], stdout);
          expected.set(names[1], stderr);
          return () => {
            for (const name of names) expected.delete(name);
          };
        },
        close() {
          for (const socket of sockets) socket.destroy();
          server.close();
        },
      });
    });
  });
}
