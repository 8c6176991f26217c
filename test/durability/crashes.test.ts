/**
 * Goal: whatever a gateway is doing when it dies, every job that was accepted ends exactly once, and no try begins while
 * another one has an unexpired lease. Method: a seeded workload on a clock moved by hand, over a store whose gateway dies
 * before or after any of its methods, or freezes for a while and goes on when others have taken over; the next one is started
 * on the same store. A failing seed is told, and can be run alone:
 * FNWAY_TEST_SEED=7; FNWAY_TEST_SEEDS=5000 runs more.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { noRetry } from '../../src/domain/retry.ts';
import { GatewayError } from '../../src/errors.ts';
import { type Call, type CallSignal, failedReply, type Reply } from '../../src/invoke/invoke.ts';
import type { Queue } from '../../src/queue/queue.ts';
import { type JobStore, jobMethods, type Settlement } from '../../src/store/jobs.ts';
import { createMemoryJobs } from '../../src/store/memory-jobs.ts';
import { type CrashingStore, crashingStore } from '../../src/testing/crashing-store.ts';
import { FakeClock } from '../../src/testing/fake-clock.ts';
import { answer, buildQueue, type QueueFixture } from '../../src/testing/test-queue.ts';
import { randomOf, seeds } from './seeds.ts';

const retry = { ...noRetry, attempts: 4, minDelayMs: 1000, maxDelayMs: 20_000 };
const submissions = 15;

class Simulation {
  readonly clock = new FakeClock();
  readonly random: () => number;
  readonly store = createMemoryJobs();
  /** Ids whose 202 was given. */
  readonly accepted: string[] = [];
  /** How often each has ended, as the store says. */
  readonly ends = new Map<string, number>();
  /** What must not happen, found where an error would be taken for one of a function. */
  readonly violations: string[] = [];
  /** Tries that run, with the number of their gateway. */
  readonly #trying = new Map<string, number>();
  /** Who has which job, as the store says. */
  readonly #leases = new Map<string, { number: number; untilMs: number }>();
  #canDie = true;
  #freezes: boolean;
  #gateways = 0;
  #current: CrashingStore<JobStore> | undefined;
  #fixture: QueueFixture | undefined;
  readonly queues: Queue[] = [];

  constructor(seed: number) {
    this.random = randomOf(seed);
    // Where gateways freeze, another one may not take for granted that they are gone.
    this.#freezes = seed % 2 === 0;
  }

  get gateways(): number {
    return this.#gateways;
  }

  /** The one that lives; a new one where the last has died, or seems to have. */
  async gateway(): Promise<QueueFixture> {
    while (this.#fixture === undefined || this.#current!.isGone) {
      const number = ++this.#gateways;
      const crashing: CrashingStore<JobStore> = crashingStore(
        this.#watched(number),
        jobMethods,
        () => this.#fate(() => crashing.thaw()),
      );
      this.#current = crashing;
      const fixture = buildQueue({
        ...{ jobs: crashing.store, clock: this.clock, retry, concurrency: 4 },
        isAlone: !this.#freezes,
        invoke: (call, signal) => this.#invoke(call, signal, { number, crashing }),
      });
      this.#fixture = fixture;
      this.queues.push(fixture.queue);
      let isUp = false;
      void fixture.queue.start().then(() => {
        isUp = true;
      });
      while (!isUp && !crashing.isGone) await this.clock.advance(1);
    }
    return this.#fixture;
  }

  #fate(thaw: () => void): 'lives' | 'dies' | 'freezes' {
    if (!this.#canDie || this.random() >= 0.04) return 'lives';
    if (!this.#freezes) return 'dies';
    this.clock.after(this.random() * 120_000, thaw);
    return 'freezes';
  }

  /** The store, with leases noted and the ends that it takes counted. */
  #watched(number: number): JobStore {
    const { store, ends } = this;
    const leases = this.#leases;
    return new Proxy(store, {
      get(target, name) {
        const method = Reflect.get(target, name) as (...args: unknown[]) => Promise<unknown>;
        if (name === 'recover')
          return (nowMs: number) => {
            leases.clear();
            return store.recover(nowMs);
          };
        if (name === 'claim')
          return async (options: Parameters<JobStore['claim']>[0]) => {
            const claimed = await store.claim(options);
            const untilMs = options.nowMs + options.leaseMs;
            for (const { id } of claimed.jobs) leases.set(id, { number, untilMs });
            return claimed;
          };
        if (name === 'extend')
          return async (held: Array<{ id: string; lease: number }>, untilMs: number) => {
            const extended = await store.extend(held, untilMs);
            for (const [i, { id }] of held.entries())
              if (extended[i]) leases.set(id, { number, untilMs });
            return extended;
          };
        if (name !== 'settle') return method.bind(target);
        return async (settlements: Settlement[]) => {
          const outcomes = await store.settle(settlements);
          for (const [i, { id, outcome }] of settlements.entries()) {
            if (outcomes[i] === 'lost') continue;
            leases.delete(id);
            if (outcome.kind === 'end') ends.set(id, (ends.get(id) ?? 0) + 1);
          }
          return outcomes;
        };
      },
    });
  }

  async #invoke(
    call: Call,
    signal: CallSignal,
    { number, crashing }: { number: number; crashing: CrashingStore<JobStore> },
  ): Promise<Reply> {
    const { id } = call;
    // Of a gateway that has died, the process of the function is gone.
    if (crashing.isGone && !crashing.isFrozen) return new Promise(() => {});
    const lease = this.#leases.get(id);
    if (this.#trying.get(id) === number) this.violations.push(`${id} is tried twice at once`);
    if (lease === undefined || (lease.number !== number && lease.untilMs > this.clock.now()))
      this.violations.push(`${id} is tried while somebody else has its lease`);
    if (this.ends.has(id)) this.violations.push(`${id} is tried after its end`);
    this.#trying.set(id, number);
    const ms = this.random() < 0.3 ? this.random() * 90_000 : this.random() * 500;
    const outcome = this.random();
    await new Promise<void>((resolve, reject) => {
      this.clock.after(ms, resolve);
      signal.onAbort(reject);
    }).finally(() => {
      if (this.#trying.get(id) === number) this.#trying.delete(id);
    });
    if (outcome < 0.55) return answer(200, 'done');
    if (outcome < 0.75) return failedReply({ reason: 'threw', message: 'no' });
    if (outcome < 0.85) return answer(503);
    if (outcome < 0.92) return answer(404);
    throw new GatewayError('FUNCTION_BUSY', 'full', { retryAfterMs: 1000 });
  }

  async run(): Promise<void> {
    for (let i = 0; i < submissions; i++) {
      const { submit, queue } = await this.gateway();
      void submit(`${i}`).then(
        id => this.accepted.push(id),
        () => {},
      );
      await this.clock.advance(this.random() * 5000);
      const id = this.accepted.at(-1);
      if (id !== undefined && this.random() < 0.1) void queue.cancel(id).catch(() => {});
    }
    for (let i = 0; i < 20; i++) {
      await this.gateway();
      await this.clock.advance(this.random() * 60_000);
    }
    this.#canDie = false;
    await this.gateway();
    for (let i = 0; i < 400 && (await this.#living()) > 0; i++) await this.clock.advance(30_000);
    for (const queue of this.queues) void queue.stop(0);
  }

  async #living(): Promise<number> {
    const counts = await this.store.counts();
    return counts.reduce((sum, { waiting, running }) => sum + waiting + running, 0);
  }

  /** Every one that was accepted has one end, whatever it is. */
  async check(): Promise<void> {
    assert.deepEqual(this.violations, []);
    assert.equal(await this.#living(), 0, 'nothing is left waiting or running');
    for (const id of this.accepted) {
      const job = await this.store.find(id);
      assert.match(String(job?.state), /^(?:succeeded|failed|dead|cancelled)$/, id);
      const settled = this.ends.get(id) ?? 0;
      // One that was cancelled while it waited has not been settled by anybody.
      assert.ok(
        settled === 1 || (settled === 0 && job?.state === 'cancelled'),
        `${id}: ${settled}`,
      );
      if (job?.state === 'dead' && job.attempts < retry.attempts)
        assert.ok(job.lost >= 3, `${id} died with ${job.attempts} tries and ${job.lost} lost`);
    }
  }
}

test(`${seeds.length} seeds of gateways that die at any moment`, async () => {
  let gateways = 0;
  let jobs = 0;
  for (const seed of seeds) {
    const simulation = new Simulation(seed);
    try {
      await simulation.run();
      await simulation.check();
    } catch (error) {
      throw new Error(`seed ${seed} (FNWAY_TEST_SEED=${seed})`, { cause: error });
    }
    gateways += simulation.gateways;
    jobs += simulation.accepted.length;
  }
  // Not for want of crashes.
  assert.ok(gateways > seeds.length * 3, `${gateways} gateways`);
  assert.ok(jobs > seeds.length * 5, `${jobs} jobs`);
});
