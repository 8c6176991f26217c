/** The instances of one version, as the pool keeps them. */
import type { Timer } from '../clock.ts';
import type { Driver, Instance } from '../driver/driver.ts';
import type { Call, CallSignal, Reply, Version } from './invoke.ts';

export interface Member {
  readonly instance: Instance;
  inFlight: number;
  /** Its fleet's when it was started. */
  readonly generation: number;
  /** Calls of it that have timed out and not returned. */
  late: number;
  idleSinceMs: number;
  retiring: boolean;
}

export interface Waiter {
  readonly call: Call;
  readonly signal: CallSignal;
  readonly sinceMs: number;
  readonly resolve: (reply: Reply | Promise<Reply>) => void;
  readonly reject: (error: Error) => void;
}

export interface Fleet {
  readonly version: Version;
  readonly driver: Driver;
  members: Member[];
  starting: number;
  waiting: Waiter[];
  /** Its version answers calls that pin none: only then its function's `min` is kept. */
  keepsMinimum: boolean;
  /** Replaced by a newer version: keeps no idle instance. */
  retired: boolean;
  /** Counts what made new instances necessary. */
  generation: number;
  renewing: boolean;
  failuresInRow: number;
  retryTimer: Timer | undefined;
}

/** Instances that take calls. */
export function taking(fleet: Fleet): number {
  let count = 0;
  for (const member of fleet.members) if (!member.retiring && member.late === 0) count++;
  return count;
}

/** The instance with the fewest calls that has room for one more. */
export function pick(fleet: Fleet): Member | undefined {
  const { concurrency } = fleet.version;
  let best: Member | undefined;
  for (const member of fleet.members) {
    if (member.retiring || member.late > 0) continue;
    if (member.inFlight >= concurrency || !member.instance.alive) continue;
    if (best === undefined || member.inFlight < best.inFlight) best = member;
  }
  return best;
}

/** Those that were started before the newest there is: they have been replaced. */
export function outdated(fleet: Fleet): Member[] {
  const staying = fleet.members.filter(member => !member.retiring);
  const newest = Math.max(...staying.map(({ generation }) => generation));
  return staying.filter(({ generation }) => generation < newest);
}
