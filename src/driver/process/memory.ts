/**
 * Memory limits of instances. The kernel keeps them where control groups can be written; everywhere, the resident
 * memory of each instance's process tree is looked at every 100 ms, in one pass over /proc for all of them, which
 * also catches what a control group does not count. Shared pages count in every process that maps them.
 */
import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readdirSync, readSync } from 'node:fs';
import type { Clock, Timer } from '../../clock.ts';
import type { Cgroup } from './cgroup.ts';

/** How often every tree is measured. */
export const memoryCheckMs = 100;

/** What /proc counts memory in. Kernels for ARM and POWER may have larger ones. */
export const pageBytes =
  process.arch === 'x64'
    ? 4096
    : Number(execFileSync('getconf', ['PAGESIZE'], { encoding: 'utf8' }));
const buffer = Buffer.alloc(1024);

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
  cgroup: Cgroup | undefined;
  exceeded: boolean;
}

export function limitMemory(clock: Clock): MemoryLimits {
  const entries = new Set<Entry>();
  let timer: Timer | undefined;

  function look(): void {
    timer = undefined;
    let processes: Map<number, ProcessSample>;
    try {
      processes = readProcesses();
    } catch {
      // Out of descriptors: the next look finds some.
      return schedule();
    }
    for (const entry of entries) {
      if (entry.exceeded || !isOver(entry, processes)) continue;
      entry.exceeded = true;
      entry.watched.onOverLimit();
    }
    schedule();
  }

  function schedule(): void {
    if (timer === undefined && entries.size > 0) {
      timer = clock.after(memoryCheckMs, look, { unref: true });
    }
  }

  return {
    bound(watched) {
      const entry: Entry = { watched, cgroup: undefined, exceeded: false };
      void watched.enclosed?.then(cgroup => {
        entry.cgroup = cgroup;
        cgroup?.limit(watched.memoryBytes);
      });
      entries.add(entry);
      schedule();
      return {
        exceeded: () => entry.exceeded || (entry.cgroup?.outOfMemory() ?? false),
        release() {
          entries.delete(entry);
        },
      };
    },
  };
}

/** Over by our own sum, or the kernel has ended one of its processes already. */
function isOver(entry: Entry, processes: Map<number, ProcessSample>): boolean {
  if (entry.cgroup?.outOfMemory()) return true;
  let resident = 0;
  for (const pid of treeOf(entry.watched.pid, processes)) {
    resident += processes.get(pid)?.residentBytes ?? 0;
  }
  return resident > entry.watched.memoryBytes;
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
