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
import { join } from 'node:path';
import type { Clock } from '../../clock.ts';

export interface Cgroups {
  /** Directory of all this gateway's groups: the keeper ends what is in them. */
  readonly path: string;
  /**
   * Puts a process into a group of its own, without a ceiling yet. Done when a process is made, not when it is needed:
   * moving one makes the kernel wait for all processors, 20 ms. Undefined when the kernel refuses.
   */
  enclose(pid: number): Promise<Cgroup | undefined>;
  close(): void;
}

export interface Cgroup {
  /** Bounds the memory of the group from now on. */
  limit(memoryBytes: number): void;
  /** The kernel has ended a process of the group for want of memory. Known also after the release. */
  outOfMemory(): boolean;
  /** Ends what is left in the group and removes it. */
  release(): void;
}

interface Layout {
  path: string;
  limitFile: string;
  eventsFile: string;
  /** Version 2: the kernel ends the whole group, not its largest process. */
  oomGroup: boolean;
}

/** What the kernel charges beside resident memory: page tables, stacks, sockets. */
const overheadBytes = 4 * 1024 ** 2;
const removeTriesMax = 20;
const removeRetryMs = 50;

export function openCgroups(options: { mark: string; clock: Clock }): Cgroups | undefined {
  const layout = findLayout(options.mark);
  if (layout === undefined) return undefined;
  return {
    path: layout.path,
    enclose: pid => enclose(layout, pid, options.clock),
    close() {
      for (const name of listGroups(layout.path)) remove(join(layout.path, name));
      remove(layout.path);
    },
  };
}

/** Where a predecessor of this mark would have had its groups. */
export function cgroupPaths(mark: string): string[] {
  return candidates(mark).map(layout => layout.path);
}

function findLayout(mark: string): Layout | undefined {
  for (const layout of candidates(mark)) {
    try {
      mkdirSync(layout.path, { recursive: true });
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
    } catch {
      remove(layout.path);
    }
  }
  return undefined;
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
    // The gateway's own group holds processes, so it may only be divided where that was delegated; root has the top.
    for (const base of [join('/sys/fs/cgroup', unified), '/sys/fs/cgroup']) {
      if (existsSync(join(base, 'cgroup.controllers')))
        found.push({ ...v2, path: join(base, name) });
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
      // What the process had touched before it came stays charged elsewhere: the ceiling is for what it adds.
      const room = Math.max(memoryBytes - residentBytes(pid), overheadBytes) + overheadBytes;
      try {
        writeFileSync(join(path, layout.limitFile), String(room));
      } catch {
        // The group is gone with its process, or the kernel refuses: the look at /proc remains.
      }
    },
    outOfMemory,
    release() {
      outOfMemory();
      endAll(path);
      removeLater(path, clock, removeTriesMax);
    },
  };
}

function residentBytes(pid: number): number {
  try {
    return Number(readFileSync(`/proc/${pid}/statm`, 'utf8').split(' ')[1]) * 4096;
  } catch {
    return 0;
  }
}

function endAll(path: string): void {
  let pids: string[];
  try {
    pids = readFileSync(join(path, 'cgroup.procs'), 'utf8').split('\n');
  } catch {
    return;
  }
  for (const pid of pids) {
    if (pid === '') continue;
    try {
      process.kill(Number(pid), 'SIGKILL');
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
