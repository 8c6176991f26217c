/**
 * Work that was accepted and runs when there is room: accepted in one sync of the disk, leased, run through the waist,
 * settled. Everything that may be lost is in the store; what is here can be forgotten at any time, and a gateway that is
 * started again goes on with what the store has.
 *
 *   submit ─► store ◄─ claim ─ run ─ settle        one loop: woken by what arrives, ends, or is due
 *                  ◄─ extend                        leases of what runs, while it runs
 *                  ◄─ sweep                         what ended long ago
 */
import type { Clock, Timer } from '../clock.ts';
import { GatewayError } from '../errors.ts';
import { CallSignal } from '../invoke/invoke.ts';
import type { Log } from '../log.ts';
import type {
  DeadCount,
  EndState,
  Enqueued,
  JobQuery,
  JobStore,
  LaneCount,
  LeasedJob,
  NewJob,
  Settlement,
  StoredJob,
} from '../store/jobs.ts';
import { Waiters } from './waiters.ts';

export const queueLimits = {
  /** Jobs that run at once in one gateway. */
  runningJobsMax: 1000,
  /** Jobs that are leased in one transaction. */
  claimedJobsMax: 256,
  /** A lease ends so long after its gateway was seen last. */
  leaseMs: 30_000,
  /** Of one transaction that removes what is old. */
  sweptJobsMax: 500,
} as const;

/** After a store that could not do what it was asked for. */
const retryMs = 1000;
const sweepMs = 60_000;
/** Between two looks at what waits for its time. */
const wakeMsMax = 60_000;
/** For what kept a job from being run to its end. */
const gaveUpMs = 5000;
/** Smaller ones are the daily work of whoever keeps the clock right. */
const jumpMsMin = 1000;

/** Runs jobs of one kind; what it resolves with is settled. What it throws gives the job back. */
export type Run = (job: LeasedJob, signal: CallSignal) => Promise<Ending>;

export type Ending = Pick<
  Settlement,
  'outcome' | 'isCounted' | 'sealedStory' | 'next' | 'messages'
> & {
  /** Of what is cut off, whose result would have told it. */
  sealStory(): Uint8Array;
  /** Who waits for what comes with it hears of that, once it is on disk. */
  onSettled?: (() => void) | undefined;
  /** Nobody needs them once it is settled, or when it cannot be. */
  blobs: { afterwards: Array<string | undefined>; ifLost: Array<string | undefined> };
};

export interface QueueOptions {
  jobs: JobStore;
  run: Run;
  removeBlobs(blobs: Iterable<string | undefined>): Promise<void>;
  clock: Clock;
  log: Log;
  keptMs: { ended: number; dead: number };
  /** No other gateway has this store: whoever held a lease before is gone. */
  isAlone: boolean;
  runningJobsMax?: number;
}

interface Running {
  job: LeasedJob;
  signal: CallSignal;
  isCancelled: boolean;
}

export class Queue {
  readonly #options: QueueOptions;
  readonly #running = new Map<string, Running>();
  readonly #waiters = new Waiters();
  /** What is to end and was running when that was said. */
  readonly #cancelled = new Set<string>();
  #isClaiming = false;
  #claiming: Promise<void> = Promise.resolve();
  /** The last renewal of the leases has failed: before the next claim they are renewed, or would be given out again. */
  #mustRenew = false;
  /** Something has come up while it was claiming. */
  #isAskedAgain = false;
  #wake: Timer | undefined;
  #wakeAtMs = Number.POSITIVE_INFINITY;
  /** Of the wall's clock to the one that never jumps. */
  #offsetMs: number | undefined;
  #heartbeat: Timer | undefined;
  #sweeping: Timer | undefined;
  #lanes: LaneCount[] = [];
  /** Since the start of this gateway. */
  readonly ended: Record<EndState, number> = { succeeded: 0, failed: 0, dead: 0, cancelled: 0 };
  #stopped: Promise<void> | undefined;
  #onIdle: (() => void) | undefined;

  constructor(options: QueueOptions) {
    this.#options = options;
  }

  /** Begins; takes back at once what an earlier gateway had leased, where there can be no other. */
  async start(): Promise<void> {
    const { jobs, clock, log, isAlone } = this.#options;
    const taken = isAlone ? await jobs.recover(clock.now()) : 0;
    if (taken > 0) log.info('jobs of an earlier gateway are tried again', { jobs: taken });
    this.#sweep();
    this.#pump();
  }

  /** Once this resolves, those that were accepted survive a power cut. In order. */
  async submit(jobs: NewJob[]): Promise<Enqueued[]> {
    if (this.#stopped !== undefined)
      throw new GatewayError('GATEWAY_STOPPING', 'the gateway is stopping', { retryAfterMs: 1000 });
    const accepted = this.#options.jobs.enqueue(jobs, this.#options.clock.now());
    // Behind it, and often in the same transaction; what is due later needs no look now.
    const dueMs = Math.min(...jobs.map(job => job.dueMs));
    if (dueMs <= this.#options.clock.now()) this.#pump();
    else this.#wakeAt(dueMs);
    return accepted;
  }

  /** Something was accepted in another way. */
  look(): void {
    if (this.#stopped === undefined) this.#pump();
  }

  /** For who cannot wait: as it was when this was asked for last; it is looked up anew for the next time. */
  lanes(): readonly LaneCount[] {
    if (this.#stopped === undefined)
      void this.#options.jobs.counts().then(
        counts => {
          this.#lanes = counts;
        },
        () => {},
      );
    return this.#lanes;
  }

  /** The room of a function has changed: what waits in its lane may go on, or has to wait. */
  async setRoom(lane: { id: string; runningMax: number }): Promise<void> {
    await this.#options.jobs.setRoom([lane]);
    this.#pump();
  }

  /** Forgets what waits in a lane, which nobody serves any more. */
  async drop(lane: string): Promise<void> {
    const { jobs, clock } = this.#options;
    const { sweptJobsMax: limit } = queueLimits;
    while ((await jobs.drop(lane, { nowMs: clock.now(), limit })) === limit);
  }

  /** Of lanes in which something waits or runs, as it is now. */
  laneCounts(): Promise<LaneCount[]> {
    return this.#options.jobs.counts();
  }

  dead(namespace: string): Promise<DeadCount[]> {
    return this.#options.jobs.dead(namespace);
  }

  /** Forgets dead jobs that are like this. How many. */
  async purge(query: Parameters<JobStore['purge']>[0]): Promise<number> {
    const { jobs, clock, removeBlobs } = this.#options;
    const { sweptJobsMax: limit } = queueLimits;
    let sum = 0;
    for (;;) {
      const { removed, blobs } = await jobs.purge(query, { nowMs: clock.now(), limit });
      await removeBlobs(blobs);
      sum += removed;
      if (removed < limit) return sum;
    }
  }

  /** For those who lease jobs of a lane by its name, and run them elsewhere. */
  async claim(lane: string, options: { limit: number; leaseMs: number }): Promise<LeasedJob[]> {
    const { jobs, clock } = this.#options;
    return (await jobs.claim({ ...options, nowMs: clock.now(), lane })).jobs;
  }

  extend(leases: ReadonlyArray<{ id: string; lease: number }>, ms: number): Promise<boolean[]> {
    return this.#options.jobs.extend(leases, this.#options.clock.now() + ms);
  }

  async settle(settlements: Settlement[]): Promise<Array<'settled' | 'lost'>> {
    const outcomes = await this.#options.jobs.settle(settlements);
    for (const [i, { id, outcome }] of settlements.entries()) {
      if (outcomes[i] !== 'settled' || outcome.kind !== 'end') continue;
      this.ended[outcome.state]++;
      this.#waiters.done(id);
    }
    // What comes behind it, or with it, may be for everybody.
    this.look();
    return outcomes;
  }

  find(id: string): Promise<StoredJob | undefined> {
    return this.#options.jobs.find(id);
  }

  list(query: JobQuery): Promise<StoredJob[]> {
    return this.#options.jobs.list(query);
  }

  /** The job once it has ended, or as it is when the time is over. */
  async waitFor(id: string, ms: number): Promise<StoredJob | undefined> {
    // Before it is looked at: it may end meanwhile.
    const ended = this.#waiters.next(id, this.#options.clock, ms);
    const job = await this.find(id);
    const isLive = job?.state === 'queued' || job?.state === 'running';
    if (!isLive || ms === 0) {
      ended.cancel();
      return job;
    }
    await ended.promise;
    return this.find(id);
  }

  /** `cancelled`: it has not begun, and will not; `running`: it is told, and will end in a moment. */
  async cancel(id: string): Promise<'cancelled' | 'running' | 'ended' | 'missing'> {
    const { jobs, clock } = this.#options;
    const outcome = await jobs.cancel(id, { nowMs: clock.now() });
    if (outcome === 'cancelled') {
      this.ended.cancelled++;
      this.#waiters.done(id);
      this.#pump();
    }
    if (outcome !== 'running') {
      this.#cancelled.delete(id);
      return outcome;
    }
    // It may be on its way here, or about to be tried again.
    this.#cancelled.add(id);
    const running = this.#running.get(id);
    if (running !== undefined) this.#cancelRunning(running);
    return 'running';
  }

  /** Begins nothing new; what runs has `graceMs` to end, and is given back then. Idempotent. */
  stop(graceMs: number): Promise<void> {
    this.#stopped ??= this.#stop(graceMs);
    return this.#stopped;
  }

  async #stop(graceMs: number): Promise<void> {
    this.#wake?.cancel();
    this.#sweeping?.cancel();
    this.#waiters.close();
    await this.#claiming;
    if (this.#running.size > 0) {
      const cut = this.#options.clock.after(graceMs, () => {
        const reason = new GatewayError('GATEWAY_STOPPING', 'the gateway is stopping');
        for (const { signal } of this.#running.values()) signal.abort(reason);
      });
      await new Promise<void>(resolve => {
        this.#onIdle = resolve;
      });
      cut.cancel();
    }
    this.#heartbeat?.cancel();
  }

  /** Leases what there is room for, now or as soon as the claim that is on its way has answered. */
  readonly #pump = (): void => {
    if (this.#isClaiming) {
      this.#isAskedAgain = true;
      return;
    }
    this.#isClaiming = true;
    this.#claiming = this.#claimAll()
      .catch(error => {
        this.#options.log.error('jobs could not be claimed; tried again in a moment', { error });
        this.#wakeAt(this.#options.clock.now() + retryMs);
      })
      .finally(() => {
        this.#isClaiming = false;
        if (this.#isAskedAgain) this.#pump();
      });
  };

  async #claimAll(): Promise<void> {
    const { jobs, clock, isAlone, runningJobsMax = queueLimits.runningJobsMax } = this.#options;
    const { claimedJobsMax, leaseMs } = queueLimits;
    do {
      this.#isAskedAgain = false;
      const limit = Math.min(claimedJobsMax, runningJobsMax - this.#running.size);
      if (limit <= 0 || this.#stopped !== undefined) return;
      await this.#keepLeases();
      const askedMs = clock.monotonicMs();
      const claimed = await jobs.claim({ limit, nowMs: clock.now(), leaseMs });
      for (const job of await this.#stillHeld(claimed.jobs, askedMs)) void this.#run(job);
      if (claimed.jobs.length === limit) this.#isAskedAgain = true;
      if (claimed.nextMs !== undefined) this.#wakeAt(claimed.nextMs);
      // What other gateways lease and accept meanwhile is not among what was said.
      if (!isAlone) this.#wakeAt(clock.now() + leaseMs);
    } while (this.#isAskedAgain);
  }

  /**
   * Leases are in the time of the wall. Where that has jumped, what runs here would look as if nobody ran it: its leases are
   * renewed before anything is claimed.
   */
  async #keepLeases(): Promise<void> {
    const { clock, log } = this.#options;
    const offsetMs = clock.now() - clock.monotonicMs();
    const jumpMs = offsetMs - (this.#offsetMs ?? offsetMs);
    this.#offsetMs = offsetMs;
    if (this.#running.size === 0) return;
    if (jumpMs >= jumpMsMin) {
      this.#mustRenew = true;
      log.warn('the clock has jumped', { ms: Math.round(jumpMs) });
    }
    if (this.#mustRenew) await this.#renew();
  }

  /** Where this process stood still for so long that others may have what it was given: what they have not. */
  async #stillHeld(leased: LeasedJob[], sinceMs: number): Promise<LeasedJob[]> {
    const { jobs, clock } = this.#options;
    const { leaseMs } = queueLimits;
    let held = leased;
    let askedMs = sinceMs;
    while (held.length > 0 && clock.monotonicMs() - askedMs > leaseMs / 2) {
      askedMs = clock.monotonicMs();
      const isHeld = await jobs.extend(held, clock.now() + leaseMs);
      held = held.filter((_, i) => isHeld[i]);
    }
    return held;
  }

  #wakeAt(ms: number): void {
    if (ms >= this.#wakeAtMs || this.#stopped !== undefined) return;
    this.#wake?.cancel();
    this.#wakeAtMs = ms;
    this.#wake = this.#options.clock.after(
      // Never long: the wall's clock, by which jobs are due, may jump.
      Math.min(Math.max(0, ms - this.#options.clock.now()), wakeMsMax),
      () => {
        this.#wakeAtMs = Number.POSITIVE_INFINITY;
        this.#pump();
      },
      { unref: true },
    );
  }

  async #run(job: LeasedJob): Promise<void> {
    const { log } = this.#options;
    const running = { job, signal: new CallSignal(), isCancelled: false };
    this.#running.set(job.id, running);
    this.#heartbeat ??= this.#options.clock.after(queueLimits.leaseMs / 3, this.#extend, {
      unref: true,
    });
    // What was leased while the gateway began to stop.
    if (this.#stopped !== undefined)
      running.signal.abort(new GatewayError('GATEWAY_STOPPING', 'the gateway is stopping'));
    if (this.#cancelled.has(job.id)) this.#cancelRunning(running);
    const ending = await this.#options.run(job, running.signal).catch(error => this.#gaveUp(error));
    const { outcome } = ending;
    const isCut = running.isCancelled && !(outcome.kind === 'end' && outcome.state === 'succeeded');
    await this.#settle(job, isCut ? asCancelled(ending) : ending);
    // What was asked for while it was being settled for another try.
    if (outcome.kind === 'retry' && !isCut && this.#cancelled.has(job.id))
      await this.cancel(job.id).catch(error => log.error('a job is not cancelled yet', { error }));
    else this.#cancelled.delete(job.id);
    // Not another try of it, that began when this one's lease had run out.
    if (this.#running.get(job.id) === running) this.#running.delete(job.id);
    if (this.#stopped === undefined) this.#pump();
    if (this.#running.size === 0) this.#onIdle?.();
  }

  /** A mistake of ours, or a disk that took no result: the job is not to blame. */
  #gaveUp(error: unknown): Ending {
    const { clock, log } = this.#options;
    log.error('a job could not be run to its end; tried again in a moment', { error });
    const outcome = { kind: 'retry' as const, dueMs: clock.now() + gaveUpMs };
    const blobs = { afterwards: [], ifLost: [] };
    return { outcome, isCounted: false, sealStory: () => new Uint8Array(), next: [], blobs };
  }

  #cancelRunning(running: Running): void {
    running.isCancelled = true;
    running.signal.abort(new GatewayError('CALL_CANCELLED', 'the invocation was cancelled'));
  }

  /** Until the store has it, or somebody else has the job: what has been done is not forgotten for a full disk. */
  async #settle(job: LeasedJob, ending: Ending): Promise<void> {
    const { jobs, clock, log, removeBlobs } = this.#options;
    const { blobs, sealStory: _, onSettled, ...settlement } = ending;
    const { id, lease } = job;
    let isFirst = true;
    while (true) {
      try {
        const [outcome] = await jobs.settle([{ id, lease, nowMs: clock.now(), ...settlement }]);
        if (outcome === 'lost') log.warn('a job had been given to somebody else', { job: id });
        if (outcome === 'settled' && ending.outcome.kind === 'end')
          this.ended[ending.outcome.state]++;
        if (ending.outcome.kind === 'end') this.#waiters.done(id);
        if (outcome === 'settled') onSettled?.();
        // Where an earlier try failed, this one's `lost` may mean that it had been stored: then nothing is removed.
        const needless = outcome === 'settled' ? blobs.afterwards : isFirst ? blobs.ifLost : [];
        await removeBlobs(needless).catch(error =>
          log.warn('a blob that nobody needs could not be removed', { error }),
        );
        return;
      } catch (error) {
        isFirst = false;
        log.error('the end of a job could not be stored; tried again in a moment', {
          ...{ job: id, error },
        });
        // It has to end some time: the lease runs out, and the job is tried again.
        if (this.#stopped !== undefined || !this.#running.has(id)) return;
        await new Promise<void>(resolve => clock.after(retryMs, resolve));
      }
    }
  }

  /** While they run, for the leases to last. */
  readonly #extend = (): void => {
    const { clock, log } = this.#options;
    this.#heartbeat = undefined;
    if (this.#running.size === 0) return;
    this.#heartbeat = clock.after(queueLimits.leaseMs / 3, this.#extend, { unref: true });
    this.#mustRenew = true;
    void this.#renew().catch(error =>
      log.error('leases could not be extended; tried again in a moment', { error }),
    );
  };

  /** Whoever has lost one stops: somebody else does the same. */
  async #renew(): Promise<void> {
    const { jobs, clock } = this.#options;
    const all = [...this.#running.values()];
    const leases = all.map(({ job: { id, lease } }) => ({ id, lease }));
    const held = await jobs.extend(leases, clock.now() + queueLimits.leaseMs);
    this.#mustRenew = false;
    for (const [i, { signal }] of all.entries())
      if (!held[i])
        signal.abort(new GatewayError('CALL_CANCELLED', 'the lease of this job has run out'));
  }

  #sweep(): void {
    const { clock, log } = this.#options;
    this.#sweeping = clock.after(sweepMs, () => this.#sweep(), { unref: true });
    void this.#sweepAll().catch(error => log.error('old jobs could not be removed', { error }));
  }

  async #sweepAll(): Promise<void> {
    const { jobs, clock, keptMs, removeBlobs } = this.#options;
    const { sweptJobsMax: limit } = queueLimits;
    while (this.#stopped === undefined) {
      const nowMs = clock.now();
      const ages = { endedBeforeMs: nowMs - keptMs.ended, deadBeforeMs: nowMs - keptMs.dead };
      const { removed, blobs } = await jobs.sweep({ nowMs, ...ages, limit });
      await removeBlobs(blobs);
      if (removed < limit) return;
    }
  }
}

function asCancelled(ending: Ending): Ending {
  const state: EndState = 'cancelled';
  const outcome = { kind: 'end' as const, state, keepsInput: true };
  // Its input stays; what came of it, and would have followed, does not.
  const { ifLost } = ending.blobs;
  const blobs = { afterwards: ifLost, ifLost };
  const sealedStory = ending.sealStory();
  const nothing = { next: [], messages: [], onSettled: undefined };
  return { ...ending, ...nothing, isCounted: false, outcome, sealedStory, blobs };
}
