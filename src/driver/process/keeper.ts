/**
 * The keeper: a tiny shell process outside the gateway that ends every process of the functions when the gateway
 * dies, kill -9 included. The gateway tells it which process groups live; when its standard input closes, it kills
 * those groups and then every process that carries the gateway's mark in its environment, which also finds
 * descendants that left their group. Where control groups are writable it also kills all that is in them. It runs in
 * a session of its own, so a signal to the gateway's group spares it.
 *
 * When the gateway is root, every process of its functions' users goes too. Where neither is the case, a process that left
 * its group and wiped its environment is not found.
 */

import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import type { Clock } from '../../clock.ts';
import { systemPath } from '../../config.ts';
import type { Log } from '../../log.ts';

export const markVariable = 'FNWAY_GATEWAY';

/** $1 is the gateway's mark, $2 and $3 first and number of its functions' users, the rest are directories of control groups. Lines: `+PGID`, `-PGID`, `.` (leave without killing). */
const script = `
trap '' TERM INT HUP
mark=$1; first=$2; count=$3; shift 3
groups=' '
while read -r line; do
  case $line in
    +*) groups="$groups\${line#+} " ;;
    -*) g=\${line#-}; case $groups in *" $g "*) groups="\${groups%%" $g "*} \${groups#*" $g "}" ;; esac ;;
    .) exit 0 ;;
  esac
done
for g in $groups; do kill -9 -- "-$g" 2>/dev/null; done
for d in "$@"; do
  [ -w "$d/cgroup.kill" ] && echo 1 2>/dev/null >"$d/cgroup.kill" && continue
  for f in "$d"/*/cgroup.procs; do
    [ -r "$f" ] && while read -r pid; do kill -9 "$pid" 2>/dev/null; done <"$f"
  done
done
if [ "$count" -gt 0 ]; then
  for p in $(find /proc -maxdepth 1 -name '[0-9]*' -uid "+$((first - 1))" -uid "-$((first + count))" 2>/dev/null); do
    kill -9 "\${p#/proc/}" 2>/dev/null
  done
fi
tries=0
while [ $tries -lt 20 ]; do
  found=
  for f in $(grep -lsz "^${markVariable}=$mark\\$" /proc/[0-9]*/environ 2>/dev/null); do
    pid=\${f#/proc/}; pid=\${pid%/environ}
    [ "$pid" = "$$" ] && continue
    kill -9 "$pid" 2>/dev/null && found=1
  done
  [ -z "$found" ] && break
  tries=$((tries + 1))
done
`;

export interface UidRange {
  first: number;
  count: number;
}

/** By what a gateway's processes are known. */
interface Left {
  mark: string;
  cgroups: readonly string[];
  uidRange: UidRange | undefined;
}

function argumentsOf({ mark, cgroups, uidRange }: Left): string[] {
  return [mark, String(uidRange?.first ?? 0), String(uidRange?.count ?? 0), ...cgroups];
}

/** Before another keeper is started in place of one that did not live so long. */
const relaunchMs = 1000;

export interface Keeper {
  add(processGroup: number): void;
  remove(processGroup: number): void;
  /** Tells the keeper that all is ended in good order. */
  close(): void;
}

export function startKeeper(options: {
  mark: string;
  cgroups: string | undefined;
  uidRange: UidRange | undefined;
  clock: Clock;
  log: Log;
}): Keeper {
  const groups = new Set<number>();
  let closing = false;
  let child: ChildProcess = launch();

  function launch(): ChildProcess {
    const startedMs = options.clock.monotonicMs();
    const started = spawn(
      '/bin/sh',
      [
        '-c',
        script,
        'fnway-keeper',
        ...argumentsOf({
          ...options,
          cgroups: options.cgroups === undefined ? [] : [options.cgroups],
        }),
      ],
      {
        detached: true,
        stdio: ['pipe', 'ignore', 'ignore'],
        env: { PATH: systemPath },
        cwd: '/',
      },
    );
    started.unref();
    started.on('error', error => options.log.error('the keeper cannot be started', { error }));
    started.stdin?.on('error', () => {});
    (started.stdin as unknown as { unref?: () => void } | null)?.unref?.();
    started.once('exit', () => {
      if (closing) return;
      // One that cannot live would otherwise take the gateway's time.
      const hasLived = options.clock.monotonicMs() - startedMs > relaunchMs;
      options.log.warn('the keeper ended; a new one takes over', {
        delayMs: hasLived ? 0 : relaunchMs,
      });
      options.clock.after(hasLived ? 0 : relaunchMs, relaunch);
    });
    return started;
  }

  function relaunch(): void {
    if (closing) return;
    child = launch();
    for (const group of groups) child.stdin?.write(`+${group}\n`);
  }

  return {
    add(group) {
      groups.add(group);
      child.stdin?.write(`+${group}\n`);
    },
    remove(group) {
      if (groups.delete(group)) child.stdin?.write(`-${group}\n`);
    },
    close() {
      closing = true;
      child.stdin?.end('.\n');
    },
  };
}

/** Ends what a predecessor of this mark left behind, when gateway and keeper died together. */
export function endPredecessor(left: Left): Promise<void> {
  return new Promise(resolve => {
    const child = spawn('/bin/sh', ['-c', script, 'fnway-keeper', ...argumentsOf(left)], {
      stdio: ['ignore', 'ignore', 'ignore'],
      env: { PATH: systemPath },
      cwd: '/',
    });
    child.once('error', () => resolve());
    child.once('exit', () => resolve());
  });
}
