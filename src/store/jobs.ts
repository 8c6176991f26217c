/**
 * The facet `jobs` of the store: work that was accepted and is not over, and what became of it. What a method has
 * acknowledged survives a power cut. Each method is one atomic transaction; all take arrays, for many jobs in one cost
 * little more than one. Bytes named `sealed` are encrypted by the caller.
 *
 *   accepted ─► ready ─► running ─► succeeded, failed, dead        (`ended`: kept for a while, then swept)
 *                ▲ ▲        │
 *        delayed ┘ └────────┘ tried again, given back, or the lease ran out
 *        blocked: another of its key comes first
 *
 * A lease is the right to run a job until a time; its number grows with every claim of the job, so that whoever had an
 * older one can settle nothing. A lane is what shares room: within one, the higher priority comes first, then the older;
 * among lanes, whoever has waited longest is served.
 * Implementations: sqlite/jobs.ts, memory-jobs.ts (the executable specification). Suite: contract-jobs.ts.
 */
import type { NewMessage } from './messages.ts';

/** How a job came to its end. Which means what: docs/concepts/delivery.md. */
export const endStates = ['succeeded', 'failed', 'dead', 'cancelled'] as const;
export type EndState = (typeof endStates)[number];
export const jobStates = ['queued', 'running', ...endStates] as const;
export type JobState = (typeof jobStates)[number];

/**
 * `call`: of a function; `callback`: tells an address of its end; `delivery`: of a message, for a subscription;
 * `notification`: tells somebody of what happened.
 */
export const jobKinds = ['call', 'callback', 'delivery', 'notification'] as const;
export type JobKind = (typeof jobKinds)[number];

export const jobLimits = {
  /** 9 comes first. */
  priorityMax: 9,
  priorityDefault: 4,
  /** Jobs of one key, of which all but the first wait: text of the key. */
  orderKeyCharsMax: 1024,
} as const;

interface JobFacts {
  /** `inv_…`, never used again. */
  id: string;
  kind: JobKind;
  namespace: string;
  /** Whose it is: a function, a subscription. */
  functionId: string;
  priority: number;
  acceptedMs: number;
  /** One of a key at a time, in the order of acceptance, within a lane. */
  orderKey?: string;
  /** The invocation that this one belongs to. */
  parent?: string;
  /** In the row, or a blob's name; of a delivery, those of its message. */
  sealedInput?: Uint8Array;
  inputBlob?: string;
  /** Of a delivery, which has no input of its own. One delivery of a message waits or runs in a lane. */
  message?: string;
}

export interface NewJob extends JobFacts {
  lane: Lane;
  /** Not before. */
  dueMs: number;
  idempotency?: { key: string; digest: string; untilMs: number };
  /** The job, failed, dead or cancelled, that is tried again as this one: once. */
  redrives?: string;
}

export interface Lane {
  id: string;
  /**
   * Of this lane, over all gateways. The newest job's count, but for deliveries: theirs is said by `setRoom`, once there is a
   * lane. 0: only those run that are claimed by its name.
   */
  runningMax: number;
  waitingMax: number;
}

/**
 * `full`: as many wait as may. `first`: the job that was accepted under this key, or the delivery of the same message;
 * `conflict`: it was another one. `gone`: what it was to redrive is not there, has not ended, or was redriven before.
 */
export type Enqueued = 'accepted' | 'full' | 'conflict' | 'gone' | { first: string };

export interface LeasedJob extends JobFacts {
  lane: string;
  lease: number;
  /** Tries that have ended and count. */
  attempts: number;
  /** Tries whose gateway was gone before they ended. */
  lost: number;
  sealedStory?: Uint8Array;
}

export interface Settlement {
  id: string;
  lease: number;
  nowMs: number;
  /** As a try: unless it was given back, or has not been one. */
  isCounted: boolean;
  outcome:
    | {
        kind: 'end';
        state: EndState;
        status?: number;
        /** Of what is dead, by which it is grouped: not sealed. */
        cause?: string;
        sealedResult?: Uint8Array;
        resultBlob?: string;
        /** For whoever wants to try it again. */
        keepsInput: boolean;
      }
    | { kind: 'retry'; dueMs: number };
  /** Absent: as it was. */
  sealedStory?: Uint8Array;
  /** Accepted in the same transaction, or not at all. */
  next: NewJob[];
  /** Published with it: those that `next` deliver. */
  messages?: NewMessage[];
}

export interface StoredJob extends JobFacts {
  lane: string;
  state: JobState;
  attempts: number;
  lost: number;
  /** When it is tried next; of what waits. */
  dueMs?: number;
  endedMs?: number;
  status?: number;
  cause?: string;
  /** The job that it was redriven as. */
  redriven?: string;
  sealedStory?: Uint8Array;
  sealedResult?: Uint8Array;
  resultBlob?: string;
}

export interface LaneCount {
  lane: string;
  waiting: number;
  running: number;
}

export interface JobQuery {
  namespace: string;
  functionId?: string;
  kind?: JobKind;
  state?: JobState;
  /** Of one of these. */
  lanes?: readonly string[];
  cause?: string;
  /** Without those that were redriven. */
  isOpen?: boolean;
  /** Those that come after this id: older ones. */
  after?: string;
  limit: number;
}

/** Dead jobs of one lane and one cause that nobody has redriven. */
export interface DeadCount {
  lane: string;
  kind: JobKind;
  /** Empty where none was told. */
  cause: string;
  count: number;
  firstMs: number;
  lastMs: number;
}

/** Of `JobStore`, for whoever wraps it. */
export const jobMethods = [
  ...(['enqueue', 'claim', 'extend', 'settle', 'cancel', 'setRoom', 'recover'] as const),
  ...(['find', 'list', 'counts', 'dead', 'purge', 'drop', 'sweep', 'blobs'] as const),
] satisfies Array<keyof JobStore>;

export interface JobStore {
  /** In order; what is refused leaves nothing. */
  enqueue(jobs: NewJob[], nowMs: number): Promise<Enqueued[]>;
  /**
   * Leases up to `limit` jobs. Those whose lease has run out are ready again first, with one more `lost`; in a lane whose jobs
   * are claimed by name, with one more attempt.
   * `nextMs`: when a job that waits for its time, or for the end of a lease, is to be looked at.
   */
  claim(options: {
    limit: number;
    nowMs: number;
    leaseMs: number;
    /** Only of this one, however many of it run. */
    lane?: string;
  }): Promise<{ jobs: LeasedJob[]; nextMs?: number }>;
  /** False for leases that are no longer held. */
  extend(leases: ReadonlyArray<{ id: string; lease: number }>, untilMs: number): Promise<boolean[]>;
  settle(settlements: Settlement[]): Promise<Array<'settled' | 'lost'>>;
  /** Ends a job that waits; one that runs stays, for whoever runs it to end. */
  cancel(
    id: string,
    options: { nowMs: number },
  ): Promise<'cancelled' | 'running' | 'ended' | 'missing'>;
  /** How many of a lane may run from now on; lanes that no job has been in are left out. */
  setRoom(lanes: ReadonlyArray<{ id: string; runningMax: number }>): Promise<void>;
  /**
   * Every lease is over: nobody runs anything, as at the start of the only gateway. But for lanes whose jobs are claimed by
   * name: who holds those is elsewhere. How many there were.
   */
  recover(nowMs: number): Promise<number>;
  find(id: string): Promise<StoredJob | undefined>;
  /** Newest first, without inputs, results and stories. */
  list(query: JobQuery): Promise<StoredJob[]>;
  /** By lane, where there are any. */
  counts(): Promise<LaneCount[]>;
  /** Of a namespace, those that most recently grew first. */
  dead(namespace: string): Promise<DeadCount[]>;
  /**
   * Forgets dead jobs that are like this and that nobody has redriven, up to `limit`. How many; `blobs`: those that nobody
   * names any more.
   */
  purge(
    query: { namespace: string; lanes?: readonly string[]; cause?: string; id?: string },
    options: { nowMs: number; limit: number },
  ): Promise<{ removed: number; blobs: string[] }>;
  /**
   * Forgets up to `limit` of what waits in a lane, which nobody serves any more, and of what somebody holds who has claimed it
   * by name; and then the lane. How many.
   */
  drop(lane: string, options: { nowMs: number; limit: number }): Promise<number>;
  /**
   * Removes up to `limit` of what ended before these times, and as many keys that are over. `removed`: the more of both;
   * `blobs`: those that nobody names any more.
   */
  sweep(options: {
    nowMs: number;
    endedBeforeMs: number;
    deadBeforeMs: number;
    limit: number;
  }): Promise<{ removed: number; blobs: string[] }>;
  /** Every blob that a job names. */
  blobs(): Promise<Set<string>>;
}
