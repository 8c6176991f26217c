/**
 * Memory limits of instances. The kernel keeps those of instances in control groups; what it does not count, since they
 * had it before they came into their group, is added up now and then. The resident memory of all other process trees is
 * looked at every 100 ms, in one pass over /proc for all of them. Shared pages count in every process that maps them.
 */
import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readdirSync, readSync } from 'node:fs';
import type { Clock, Timer } from '../../clock.ts';
import type { Cgroup } from './cgroup.ts';

/** How often every tree that is in no control group is measured. */
export const memoryCheckMs = 100;
/** Groups are looked at once in so many times: their reads are not free, and the kernel does not wait for them. */
const looksPerGroupLook = 5;

/** What /proc counts memory in. Kernels for ARM and POWER may have larger ones. */
export const pageBytes = process.arch === 'x64' ? 4096 : askPageBytes();
const buffer = Buffer.alloc(1024);

/** 64 KiB where nobody says, as no page is larger: a limit that comes too early is better than none. */
function askPageBytes(): number {
  try {
    const said = Number(execFileSync('getconf', ['PAGESIZE'], { encoding: 'utf8' }));
    return said >= 4096 ? said : 65_536;
  } catch {
    return process.platform === 'linux' ? 65_536 : 4096;
  }
}

export interface Watched {
  readonly pid: number;
  readonly memoryBytes: number;
  /** The group that the process is in, or soon will be. */
  readonly enclosed?: Promise<Cgroup | undefined>;
  /** The tree is over its limit: end it. Called once. */
  onOverLimit(): void;
}

export interface MemoryLimits {
  /** Bounds a process and all its descendants from now on. */
  bound(watched: Watched): Bound;
}

export interface Bound {
  /** Whether the limit is what ended the tree; asked when it has ended. */
  exceeded(): boolean;
  /** The process has ended: it is looked at no more. */
  release(): void;
}

interface Entry {
  watched: Watched;
  /** All of its tree is in there: the kernel keeps the limit. */
  cgroup: Cgroup | undefined;
  /** Whose limit is in force, though a part of the tree may not be in there yet. */
  limited: Cgroup | undefined;
  exceeded: boolean;
}

export function limitMemory(clock: Clock): MemoryLimits {
  const entries = new Set<Entry>();
  let timer: Timer | undefined;
  let looks = 0;

  function look(): void {
    timer = undefined;
    looks++;
    try {
      lookAt(looks % looksPerGroupLook === 0);
    } catch {
      // Out of descriptors: the next look finds some.
    }
    schedule();
  }

  function lookAt(groupsToo: boolean): void {
    // Of the whole machine, however many processes it has: only where somebody needs it.
    let processes: Map<number, ProcessSample> | undefined;
    for (const entry of entries) {
      const { cgroup, watched } = entry;
      if (entry.exceeded || (cgroup !== undefined && !groupsToo)) continue;
      processes ??= cgroup === undefined ? readProcesses() : undefined;
      // Empty, though its process lives: it has been moved out, and is looked at like any other from now on.
      const resident = cgroup?.residentBytes();
      if (resident === 0) entry.cgroup = undefined;
      const isOver =
        cgroup === undefined
          ? residentOf(watched.pid, processes!) > watched.memoryBytes
          : cgroup.outOfMemory() || resident! > watched.memoryBytes;
      if (!isOver) continue;
      entry.exceeded = true;
      watched.onOverLimit();
    }
  }

  function schedule(): void {
    if (timer === undefined && entries.size > 0) {
      timer = clock.after(memoryCheckMs, look, { unref: true });
    }
  }

  return {
    bound(watched) {
      const entry: Entry = { watched, cgroup: undefined, limited: undefined, exceeded: false };
      void enterGroup(entry);
      entries.add(entry);
      schedule();
      return {
        exceeded: () => entry.exceeded || (entry.limited?.outOfMemory() ?? false),
        release() {
          entries.delete(entry);
        },
      };
    },
  };
}

/** Puts the limit into force, and leaves the looking to the kernel once the whole tree is in the group. */
async function enterGroup(entry: Entry): Promise<void> {
  const { enclosed, memoryBytes } = entry.watched;
  let runsAlready = false;
  setImmediate(() => {
    runsAlready = true;
  });
  const cgroup = await enclosed;
  if (!cgroup?.limit(memoryBytes)) return;
  entry.limited = cgroup;
  try {
    // The kernel was slow to move the process: the function runs, and may have started others.
    if (runsAlready) await cgroup.adopt();
    entry.cgroup = cgroup;
  } catch {
    // Out of descriptors: the tree is looked at as before.
  }
}

function residentOf(pid: number, processes: Map<number, ProcessSample>): number {
  let bytes = 0;
  for (const one of treeOf(pid, processes)) bytes += processes.get(one)?.residentBytes ?? 0;
  return bytes;
}

interface ProcessSample {
  residentBytes: number;
  children: number[];
}

/** Every process of the machine with its children. Synchronous: a read of /proc costs 5 µs, a trip through the
 * thread pool ten times that. */
export function readProcesses(): Map<number, ProcessSample> {
  const processes = new Map<number, ProcessSample>();
  const parents: number[] = [];
  for (const entry of readdirSync('/proc')) {
    const pid = Number(entry);
    if (!(pid > 0)) continue;
    const stat = readSmall(`/proc/${entry}/stat`);
    if (stat === undefined) continue;
    // The second field is the command in parentheses, which may hold anything: fields count from the last one.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    processes.set(pid, { residentBytes: Number(fields[21]) * pageBytes, children: [] });
    parents.push(pid, Number(fields[1]));
  }
  for (let i = 0; i < parents.length; i += 2)
    processes.get(parents[i + 1]!)?.children.push(parents[i]!);
  return processes;
}

/** A process and all its descendants. */
export function treeOf(pid: number, processes: Map<number, ProcessSample>): number[] {
  const tree = [pid];
  for (let i = 0; i < tree.length; i++) tree.push(...(processes.get(tree[i]!)?.children ?? []));
  return tree;
}

function readSmall(path: string): string | undefined {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch {
    return undefined;
  }
  try {
    return buffer.toString('latin1', 0, readSync(fd, buffer, 0, buffer.length, 0));
  } catch {
    return undefined;
  } finally {
    closeSync(fd);
  }
}
