/**
 * Control groups, where this machine lets the gateway write them: a ceiling on the memory of an instance's whole tree
 * that the kernel itself keeps, and a list of every process in it, also of those that left their process group and
 * wiped their environment. Version 2 (unified) and version 1 (memory controller); undefined where neither is writable.
 */
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  writeFileSync,
} from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { type Clock, sleep } from '../../clock.ts';
import type { Log } from '../../log.ts';
import { pageBytes, readProcesses, treeOf } from './memory.ts';

export interface Cgroups {
  /** Directory of all this gateway's groups: the keeper ends what is in them. */
  readonly path: string;
  /**
   * Puts a process into a group of its own, without a ceiling. Done when a process is made, not when it is needed:
   * moving one makes the kernel wait for all processors, 20 ms. Undefined when the kernel refuses.
   */
  enclose(pid: number): Promise<Cgroup | undefined>;
  /** Removes what is left of the groups; their processes have ended. */
  close(): Promise<void>;
}

export interface Cgroup {
  /**
   * Bounds the memory of the group from now on. The bound that it has already costs nothing. False when the kernel
   * refuses.
   */
  limit(memoryBytes: number): boolean;
  /**
   * Takes in what the process started before it came: such a process is in no list of the group, and what it starts
   * neither. A look at every process of the machine, so only where there may be one.
   */
  adopt(): Promise<void>;
  /** The kernel has ended a process of the group for want of memory. Known also after the release. */
  outOfMemory(): boolean;
  /** Of all its processes together, what they had before they came included; 0 when it is gone. */
  residentBytes(): number;
  /** Ends what is left in the group and removes it. */
  release(): void;
}

interface Layout {
  path: string;
  /** Version 2: the group that the path is made in, whose controllers must be handed down. */
  base?: string;
  limitFile: string;
  eventsFile: string;
  /** Version 2: the kernel ends the whole group, not its largest process. */
  oomGroup: boolean;
}

/** What the kernel charges beside resident memory: page tables, stacks, sockets. */
const overheadBytes = 4 * 1024 ** 2;
const subtreeFile = 'cgroup.subtree_control';
/** Where the gateway itself goes when its group hands controllers down. */
const leafName = 'fnway-gateway';
const unifiedRoot = '/sys/fs/cgroup';
/** A process that forks all the while is not followed for ever; what it started last is found by the keeper. */
const adoptTriesMax = 8;
const removeTriesMax = 20;
const removeRetryMs = 50;

export function openCgroups(options: {
  mark: string;
  clock: Clock;
  log: Log;
}): Cgroups | undefined {
  const { log, clock } = options;
  const layout = findLayout(options.mark, log);
  if (layout === undefined) return undefined;
  log.debug('memory is bounded by control groups', { path: layout.path });
  return {
    path: layout.path,
    enclose: pid => enclose(layout, pid, clock),
    async close() {
      // The kernel keeps a group until the last of its processes is reaped.
      for (let tries = 0; tries < removeTriesMax; tries++) {
        for (const name of listGroups(layout.path)) remove(join(layout.path, name));
        if (remove(layout.path)) return;
        await sleep(clock, removeRetryMs);
      }
    },
  };
}

/** Where a predecessor of this mark would have had its groups. */
export function cgroupPaths(mark: string): string[] {
  return candidates(mark).map(layout => layout.path);
}

function findLayout(mark: string, log: Log): Layout | undefined {
  for (const layout of candidates(mark)) {
    try {
      mkdirSync(layout.path, { recursive: true });
      if (layout.base !== undefined) handDownMemory(layout.base, layout.path);
      // A predecessor's, emptied by now.
      for (const name of listGroups(layout.path)) remove(join(layout.path, name));
      // The controller is there and a limit can be written: tried, because nothing else tells.
      const probe = join(layout.path, 'probe');
      mkdirSync(probe);
      try {
        writeFileSync(join(probe, layout.limitFile), String(1024 ** 3));
        readFileSync(join(probe, layout.eventsFile));
        return layout;
      } finally {
        rmdirSync(probe);
      }
    } catch (error) {
      remove(layout.path);
      log.debug('control groups cannot be used here', { path: layout.path, error });
    }
  }
  log.debug('memory is bounded by looking every 100 ms: no control group is writable');
  return undefined;
}

/**
 * Version 2: a group has a `memory.max` only when its parent hands the controller down, and so must ours to the groups
 * of instances. Throws where that is not ours to do.
 */
function handDownMemory(base: string, path: string): void {
  if (!controllersOf(path).includes('memory')) {
    try {
      writeFileSync(join(base, subtreeFile), '+memory');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EBUSY') throw error;
      leave(base);
      writeFileSync(join(base, subtreeFile), '+memory');
    }
  }
  writeFileSync(join(path, subtreeFile), '+memory');
}

function handsDownMemory(group: string): boolean {
  try {
    return readFileSync(join(group, subtreeFile), 'utf8').trim().split(' ').includes('memory');
  } catch {
    return false;
  }
}

function controllersOf(path: string): string[] {
  return readFileSync(join(path, 'cgroup.controllers'), 'utf8').trim().split(' ');
}

/**
 * A group below the top cannot both hold processes and hand controllers down: the gateway and its children go into a
 * leaf of it. Only when nobody else is in it.
 */
function leave(base: string): void {
  const own = new Set(treeOf(process.pid, readProcesses()));
  const pids = readFileSync(join(base, 'cgroup.procs'), 'utf8').trim().split('\n').map(Number);
  if (!pids.every(pid => own.has(pid))) throw new Error('other processes are in the group');
  const leaf = join(base, leafName);
  mkdirSync(leaf, { recursive: true });
  for (const pid of pids) writeFileSync(join(leaf, 'cgroup.procs'), String(pid));
}

function candidates(mark: string): Layout[] {
  let own: string;
  try {
    own = readFileSync('/proc/self/cgroup', 'utf8');
  } catch {
    return [];
  }
  const unified = /^0::(.*)$/m.exec(own)?.[1];
  const memory = /^\d+:(?:[^:]*,)?memory(?:,[^:]*)?:(.*)$/m.exec(own)?.[1];
  const name = `fnway-${mark}`;
  const found: Layout[] = [];
  if (unified !== undefined) {
    const v2 = { limitFile: 'memory.max', eventsFile: 'memory.events', oomGroup: true };
    // A gateway of this process may have moved it into a leaf already.
    const group = unified.endsWith(`/${leafName}`) ? dirname(unified) : unified;
    // The one above where that is writable and hands memory down: a slice, or a unit with DelegateSubgroup=. Only then
    // our own, where a death for want of memory counts as the unit's: systemd stops one that is not delegated.
    const [above, own, top] = [dirname(group), group, '/'].map(path =>
      join(unifiedRoot, path).replace(/\/$/, ''),
    ) as [string, string, string];
    const bases = handsDownMemory(above) ? [above, own, top] : [own, top];
    for (const base of new Set(bases)) {
      if (existsSync(join(base, 'cgroup.controllers')))
        found.push({ ...v2, base, path: join(base, name) });
    }
  }
  if (memory !== undefined) {
    const path = join('/sys/fs/cgroup/memory', memory, name);
    found.push({
      path,
      limitFile: 'memory.limit_in_bytes',
      eventsFile: 'memory.oom_control',
      oomGroup: false,
    });
  }
  return found;
}

async function enclose(layout: Layout, pid: number, clock: Clock): Promise<Cgroup | undefined> {
  const path = join(layout.path, String(pid));
  try {
    mkdirSync(path);
    if (layout.oomGroup) writeFileSync(join(path, 'memory.oom.group'), '1');
    await writeFile(join(path, 'cgroup.procs'), String(pid));
  } catch {
    remove(path);
    return undefined;
  }
  let limited: number | undefined;
  let isOut = false;
  function outOfMemory(): boolean {
    try {
      const events = readFileSync(join(path, layout.eventsFile), 'utf8');
      isOut ||= Number(/^oom_kill (\d+)$/m.exec(events)?.[1] ?? 0) > 0;
    } catch {
      // Removed: what was known stays known.
    }
    return isOut;
  }
  return {
    limit(memoryBytes) {
      if (memoryBytes === limited) return true;
      limited = memoryBytes;
      // What the process had touched before it came stays charged elsewhere: the ceiling is for what it adds.
      const room = Math.max(memoryBytes - residentBytes(pid), overheadBytes) + overheadBytes;
      try {
        writeFileSync(join(path, layout.limitFile), String(room));
        // Version 2, where the machine swaps: the ceiling is on memory alone, the rest would be swapped.
        if (layout.oomGroup && existsSync(join(path, 'memory.swap.max')))
          writeFileSync(join(path, 'memory.swap.max'), '0');
        return true;
      } catch {
        // The group is gone with its process, or the kernel refuses.
        limited = undefined;
        return false;
      }
    },
    async adopt() {
      for (let tries = 0; tries < adoptTriesMax; tries++) {
        const inside = new Set(pidsIn(path));
        if (!inside.has(pid)) return;
        const strays = treeOf(pid, readProcesses()).filter(one => !inside.has(one));
        if (strays.length === 0) return;
        const procs = join(path, 'cgroup.procs');
        await Promise.allSettled(strays.map(one => writeFile(procs, String(one))));
      }
    },
    outOfMemory,
    residentBytes: () => pidsIn(path).reduce((sum, one) => sum + residentBytes(one), 0),
    release() {
      outOfMemory();
      endAll(path);
      removeLater(path, clock, removeTriesMax);
    },
  };
}

function pidsIn(path: string): number[] {
  try {
    // An empty line is no process: 0 would be our own group.
    const lines = readFileSync(join(path, 'cgroup.procs'), 'utf8').split('\n');
    return lines.map(Number).filter(pid => pid > 0);
  } catch {
    return [];
  }
}

function residentBytes(pid: number): number {
  try {
    return Number(readFileSync(`/proc/${pid}/statm`, 'utf8').split(' ')[1]) * pageBytes;
  } catch {
    return 0;
  }
}

function endAll(path: string): void {
  try {
    // Version 2 since Linux 5.14: all at once, also what is being forked and what is in groups below.
    if (existsSync(join(path, 'cgroup.kill'))) return writeFileSync(join(path, 'cgroup.kill'), '1');
  } catch {
    // Not ours to write, or gone.
  }
  for (const pid of pidsIn(path)) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // Gone already.
    }
  }
}

/** A group can be removed once its last process has been reaped. */
function removeLater(path: string, clock: Clock, tries: number): void {
  if (remove(path) || tries === 0) return;
  clock.after(
    removeRetryMs,
    () => {
      endAll(path);
      removeLater(path, clock, tries - 1);
    },
    { unref: true },
  );
}

function remove(path: string): boolean {
  try {
    rmdirSync(path);
    return true;
  } catch {
    return !existsSync(path);
  }
}

function listGroups(path: string): string[] {
  try {
    return readdirSync(path, { withFileTypes: true })
      .filter(entry => entry.isDirectory())
      .map(entry => entry.name);
  } catch {
    return [];
  }
}
