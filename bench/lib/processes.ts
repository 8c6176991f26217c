/**
 * The processes of the benchmarks: starts them, ends them and nothing else, and reads what they use
 * from /proc. Each is the leader of a group of its own, so that a signal reaches its helpers too.
 * Whatever is still running when the program ends, for whatever reason but SIGKILL, is ended with
 * it.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

export interface StartOptions {
  /** For messages. */
  name: string;
  cwd?: string;
  env?: Record<string, string>;
}

export interface Started {
  readonly pid: number;
  /** The first line of its standard output; rejects when it ends before, or after `startMsMax`. */
  readonly firstLine: Promise<string>;
  /** The end of what it wrote to standard error. */
  readonly errors: () => string;
  /** Asks it to end, insists after `stopMsMax`. Idempotent. */
  stop(): Promise<void>;
}

const startMsMax = 20_000;
const stopMsMax = 15_000;
const errorCharsMax = 2000;

/** All that processes of the benchmarks inherit: the same for every peer. */
export const plainEnv: Record<string, string> = {
  PATH: process.env.PATH ?? '/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  HOME: process.env.HOME ?? '/',
  NODE_ENV: 'production',
};

const living = new Set<ChildProcess>();

/** Once, by the main program. */
export function endWithUs(): void {
  process.once('exit', () => {
    for (const child of living) signalGroup(child, 'SIGKILL');
  });
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => {
      // A gateway that is asked ends its functions; one that is killed has a keeper for that.
      for (const child of living) signalGroup(child, 'SIGTERM');
      setTimeout(() => process.exit(1), 1000);
    });
}

export function start(command: readonly string[], options: StartOptions): Started {
  const [program, ...args] = command;
  const child = spawn(program!, args, {
    detached: true,
    cwd: options.cwd,
    env: { ...plainEnv, ...options.env },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  living.add(child);
  child.stdin.on('error', () => {});
  let errors = '';
  child.stderr.on('data', chunk => {
    errors = (errors + chunk).slice(-errorCharsMax);
  });
  const ended = new Promise<string>(resolve => {
    child.once('error', error => resolve(error.message));
    child.once('close', (code, signal) => resolve(`it ended with ${signal ?? `status ${code}`}`));
  }).finally(() => living.delete(child));
  const firstLine = readFirstLine(child, async () => {
    throw new Error(`${options.name} did not start: ${await ended}\n${errors}`);
  });
  // Not everyone waits for it.
  firstLine.catch(() => {});
  return {
    pid: child.pid ?? 0,
    firstLine,
    errors: () => errors,
    async stop() {
      signalGroup(child, 'SIGTERM');
      const insist = setTimeout(() => signalGroup(child, 'SIGKILL'), stopMsMax);
      await ended;
      clearTimeout(insist);
    },
  };
}

function readFirstLine(child: ChildProcess, onEnd: () => Promise<never>): Promise<string> {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error('it took too long to start')), startMsMax);
    let text = '';
    child.stdout!.on('data', chunk => {
      if (text.includes('\n')) return;
      text += chunk;
      if (text.includes('\n')) resolve(text.slice(0, text.indexOf('\n')));
    });
    child.once('close', () => onEnd().catch(reject));
    child.once('error', reject);
    child.once('close', () => clearTimeout(late));
    child.stdout!.once('data', () => clearTimeout(late));
  });
}

function signalGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  try {
    process.kill(-child.pid, signal);
  } catch {
    // Gone already.
  }
}

/** A process and all its descendants. */
export function treeOf(root: number): number[] {
  const children = new Map<number, number[]>();
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    const parent = Number(statOf(Number(entry))?.[1] ?? -1);
    children.set(parent, [...(children.get(parent) ?? []), Number(entry)]);
  }
  const tree = [root];
  for (const pid of tree) tree.push(...(children.get(pid) ?? []));
  return tree;
}

/** Clock ticks of /proc are hundredths of a second on every Linux of today. */
const tickUs = 10_000;

/**
 * Time on a processor, in user space and in the kernel, of a process and its living descendants.
 */
export function cpuUsOf(root: number): number {
  let ticks = 0;
  for (const pid of treeOf(root)) {
    const stat = statOf(pid);
    if (stat !== undefined) ticks += Number(stat[11]) + Number(stat[12]);
  }
  return ticks * tickUs;
}

/** Fields of /proc/PID/stat from the state on; undefined for a process that is gone. */
function statOf(pid: number): string[] | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return text.slice(text.lastIndexOf(')') + 2).split(' ');
  } catch {
    return undefined;
  }
}

/** Memory with shared pages divided among those that share them. Undefined: the process is gone. */
export function pssKibOf(pid: number): number | undefined {
  try {
    const found = /^Pss:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'latin1'));
    return found === null ? undefined : Number(found[1]);
  } catch {
    return undefined;
  }
}

export interface ProcessFacts {
  pid: number;
  program: string;
  directory: string;
  commandLine: string;
}

export function factsOf(pid: number): ProcessFacts | undefined {
  try {
    return {
      pid,
      program: readlinkSync(`/proc/${pid}/exe`),
      directory: readlinkSync(`/proc/${pid}/cwd`),
      commandLine: readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim(),
    };
  } catch {
    return undefined;
  }
}

/** Looks until `look` finds something; rejects after `msMax`. */
export async function until<T>(
  look: () => T | undefined | Promise<T | undefined>,
  options: { what: string; msMax: number; everyMs: number },
): Promise<T> {
  const endMs = performance.now() + options.msMax;
  while (performance.now() < endMs) {
    const found = await look();
    if (found !== undefined) return found;
    await sleep(options.everyMs);
  }
  throw new Error(`${options.what}: not after ${options.msMax} ms`);
}
