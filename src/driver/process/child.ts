/**
 * One operating-system process that runs a function's code, in a process group of its own: how it is started,
 * how its output is read, how its end is learned, and how it is ended with all its descendants.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import type { Readable, Writable } from 'node:stream';
import type { Clock } from '../../clock.ts';
import { GatewayError } from '../../errors.ts';
import type { Identity } from '../../invoke/invoke.ts';
import type { Keeper } from './keeper.ts';
import { readProcesses, treeOf } from './memory.ts';

export interface ChildOptions {
  command: string[];
  env: Record<string, string>;
  cwd: string;
  keeper: Keeper;
  clock: Clock;
  /** Start as this user; absent: as the gateway's. */
  identity?: Identity;
  stdin: 'ignore' | 'pipe';
}

export interface Child {
  readonly pid: number;
  readonly stdin: Writable | null;
  readonly stdout: Readable;
  readonly stderr: Readable;
  /** `status 1` or `signal SIGKILL`, once it has ended and its output is read. */
  readonly exited: Promise<string>;
  /** Ends the whole tree at once. Idempotent. */
  kill(): void;
}

/** Throws INSTANCE_NOT_STARTED when the command cannot be run. */
export async function startChild(options: ChildOptions): Promise<Child> {
  const [program, ...args] = options.command;
  let child: ChildProcess;
  try {
    child = spawn(program!, args, {
      detached: true,
      stdio: [options.stdin, 'pipe', 'pipe'],
      env: options.env,
      cwd: options.cwd,
      ...(options.identity !== undefined && {
        uid: options.identity.uid,
        gid: options.identity.gid,
      }),
    });
  } catch (cause) {
    throw new GatewayError(
      'INSTANCE_NOT_STARTED',
      `${program} cannot be started: ${(cause as Error).message}`,
      { cause },
    );
  }
  const pid = child.pid;
  if (pid === undefined) {
    const cause = await new Promise<Error>(resolve => child.once('error', resolve));
    throw new GatewayError(
      'INSTANCE_NOT_STARTED',
      `${program} cannot be started: ${cause.message}`,
      { cause },
    );
  }
  child.on('error', () => {});
  child.stdin?.on('error', () => {});
  options.keeper.add(pid);
  const exited = new Promise<string>(resolve => {
    // `close` waits for the output too; a grandchild that holds the pipes open must not hold this back for ever.
    child.once('exit', (code, signal) => {
      // What it leaves running goes with it, while its group still has its number.
      kill(-pid);
      options.keeper.remove(pid);
      const status = signal !== null ? `signal ${signal}` : `status ${code}`;
      // Where it was the gateway that was busy, what has arrived is read first.
      const late = options.clock.after(outputAfterExitMsMax, () =>
        setImmediate(() => resolve(status)),
      );
      child.once('close', () => {
        late.cancel();
        resolve(status);
      });
    });
  });
  return {
    pid,
    stdin: child.stdin,
    stdout: child.stdout!,
    stderr: child.stderr!,
    exited,
    kill: () => killTree(pid),
  };
}

/** How long output is waited for once the process itself has ended. */
const outputAfterExitMsMax = 200;

/** Ends a process, its group, and descendants that have left the group. */
export function killTree(pid: number): void {
  let descendants: number[] = [];
  try {
    descendants = treeOf(pid, readProcesses());
  } catch {}
  kill(-pid);
  for (const descendant of descendants) kill(descendant);
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // Gone already.
  }
}
