/**
 * Memory limits where no cgroup can be written: looks at the resident memory of each instance's process tree, at
 * least every 100 ms, and reports the trees that are over their limit. One pass over /proc serves all of them.
 * Shared pages count in every process that maps them, so a tree's sum is an upper bound.
 */
import { closeSync, openSync, readdirSync, readSync } from 'node:fs';
import type { Clock, Timer } from '../../clock.ts';

/** How often every tree is measured. */
export const memoryCheckMs = 100;

const pageBytes = 4096;
const buffer = Buffer.alloc(1024);

export interface Watched {
  readonly pid: number;
  readonly memoryBytes: number;
  onOverLimit(residentBytes: number): void;
}

export interface MemoryWatch {
  add(watched: Watched): void;
  remove(watched: Watched): void;
}

export function watchMemory(clock: Clock): MemoryWatch {
  const all = new Set<Watched>();
  let timer: Timer | undefined;

  function look(): void {
    timer = undefined;
    const processes = readProcesses();
    for (const watched of [...all]) {
      let resident = 0;
      for (const pid of treeOf(watched.pid, processes))
        resident += processes.get(pid)?.residentBytes ?? 0;
      if (resident <= watched.memoryBytes) continue;
      all.delete(watched);
      watched.onOverLimit(resident);
    }
    schedule();
  }

  function schedule(): void {
    if (timer === undefined && all.size > 0)
      timer = clock.after(memoryCheckMs, look, { unref: true });
  }

  return {
    add(watched) {
      all.add(watched);
      schedule();
    },
    remove(watched) {
      all.delete(watched);
    },
  };
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
