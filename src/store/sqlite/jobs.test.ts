/**
 * Jobs in SQLite. Goal: whatever is done in whatever order, it answers as the memory store does; and what it says of
 * commits holds. Method: random operations on both; then real files that are closed and opened, and batches in which one fails.
 */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { newId } from '../../ids.ts';
import { buildJob, ending, noon } from '../contract-jobs.ts';
import { buildDelivery, buildMessage } from '../contract-messages.ts';
import { type JobStore, jobMethods, type LeasedJob, type Settlement } from '../jobs.ts';
import { createMemoryJobs } from '../memory-jobs.ts';
import { createMemoryMessages } from '../memory-messages.ts';
import { createMemorySchedules } from '../memory-schedules.ts';
import { type MessageStore, messageMethods } from '../messages.ts';
import { type ScheduleStore, scheduleMethods } from '../schedules.ts';
import type { Store } from '../store.ts';
import { openDatabase } from './database.ts';
import { openQueue } from './queue.ts';
import { queueMigrations } from './queue-migrations.ts';
import { createQueueFacets, type QueueMethods } from './queue-thread.ts';

const root = mkdtempSync(path.join(tmpdir(), 'fnway-jobs-'));
after(() => rmSync(root, { recursive: true }));
let files = 0;
const newPath = () => path.join(root, `${files++}.db`);

type Facets = Pick<Store, 'jobs' | 'schedules' | 'messages'>;

/** The facets in this thread: each method a transaction. */
function direct(): Facets & { lanes(): unknown[]; wrongLane(id: string): void; close(): void } {
  const { connection, close } = openDatabase({ path: newPath(), migrations: queueMigrations });
  const { methods, within } = createQueueFacets(connection.db);
  const facet = (names: ReadonlyArray<keyof QueueMethods>) =>
    Object.fromEntries(
      names.map(name => [
        name,
        async (...args: unknown[]) =>
          connection.write(() =>
            within(() => (methods[name] as (...args: unknown[]) => unknown)(...args)),
          ),
      ]),
    );
  return {
    jobs: facet(jobMethods) as unknown as JobStore,
    schedules: facet(scheduleMethods) as unknown as ScheduleStore,
    messages: facet(messageMethods) as unknown as MessageStore,
    /** As counted, and as they are. */
    lanes: () =>
      connection.db
        .prepare(
          `SELECT id, ready, waiting, running,
            (SELECT count(*) FROM jobs WHERE lane = lanes.id AND state = 0) AS isReady,
            (SELECT count(*) FROM jobs WHERE lane = lanes.id AND state < 3) AS isWaiting,
            (SELECT count(*) FROM jobs WHERE lane = lanes.id AND state = 3) AS isRunning
          FROM lanes`,
        )
        .all(),
    wrongLane: id => connection.db.prepare('UPDATE lanes SET ready = 9 WHERE id = ?').run(id),
    close,
  };
}

function inMemory(): Facets {
  const jobs = createMemoryJobs();
  return { jobs, schedules: createMemorySchedules(jobs), messages: createMemoryMessages(jobs) };
}

const operation = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant('enqueue' as const),
      lane: fc.constantFrom('fn_a', 'fn_b', 'fn_c'),
      priority: fc.integer({ min: 3, max: 5 }),
      delay: fc.constantFrom(0, 0, 5, 50),
      orderKey: fc.constantFrom(undefined, 'k', 'k', 'l'),
      runningMax: fc.integer({ min: 1, max: 3 }),
      waitingMax: fc.integer({ min: 1, max: 6 }),
      key: fc.constantFrom(undefined, undefined, 'x', 'y'),
      digest: fc.constantFrom('d', 'e'),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('claim' as const),
      limit: fc.integer({ min: 1, max: 4 }),
      lane: fc.constantFrom(undefined, undefined, 'sub_b'),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant('settle' as const),
      which: fc.nat(),
      isOld: fc.boolean(),
      how: fc.constantFrom(
        'succeeded' as const,
        'failed' as const,
        'dead' as const,
        'retry' as const,
      ),
      isCounted: fc.boolean(),
      delay: fc.constantFrom(0, 20),
      hasNext: fc.boolean(),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('cancel' as const), which: fc.nat() }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('extend' as const), which: fc.nat() }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('recover' as const) }) },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('publish' as const),
      lanes: fc.subarray(['sub_a', 'sub_b']),
      keepMs: fc.constantFrom(0, 0, 30),
      isBlob: fc.boolean(),
      orderKey: fc.constantFrom(undefined, 'k'),
      waitingMax: fc.integer({ min: 2, max: 6 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('seek' as const), skipped: fc.nat(2) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('drop' as const),
      lane: fc.constantFrom('sub_a', 'sub_b', 'fn_a'),
      limit: fc.integer({ min: 1, max: 3 }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('purge' as const),
      lanes: fc.constantFrom(undefined, ['sub_a'], ['sub_b', 'fn_a']),
      cause: fc.constantFrom(undefined, '', 'c'),
      limit: fc.integer({ min: 1, max: 3 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('redrive' as const), which: fc.nat() }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('fire' as const),
      schedule: fc.constantFrom('sch_a', 'sch_b'),
      fromMs: fc.integer({ min: 0, max: 3 }),
      steps: fc.integer({ min: 0, max: 2 }),
      isMissed: fc.boolean(),
      skipsOverlap: fc.boolean(),
      waitingMax: fc.integer({ min: 1, max: 6 }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('sweep' as const),
      limit: fc.integer({ min: 1, max: 3 }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant('wait' as const), ms: fc.constantFrom(1, 10, 40) }),
  },
);
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;

/** Does the same with both, and compares what they say. */
class Pair {
  readonly #stores: Facets[];
  readonly #ids: string[] = [];
  readonly #leased: LeasedJob[] = [];
  #nowMs = noon;

  constructor(stores: Facets[]) {
    this.#stores = stores;
  }

  #both<T>(ask: (jobs: JobStore) => Promise<T>): Promise<T> {
    return this.#of(({ jobs }) => ask(jobs));
  }

  async #of<T>(ask: (facets: Facets) => Promise<T>): Promise<T> {
    const [expected, answer] = await Promise.all(this.#stores.map(ask));
    assert.deepEqual(answer, expected);
    return expected!;
  }

  async run(step: Operation): Promise<void> {
    const nowMs = this.#nowMs;
    const id = newId('inv', nowMs);
    switch (step.do) {
      case 'enqueue': {
        const { lane, priority, delay, orderKey, runningMax, waitingMax, key, digest } = step;
        this.#ids.push(id);
        const job = buildJob({
          ...{ id, functionId: lane, lane: { id: lane, runningMax, waitingMax }, priority },
          ...{ acceptedMs: nowMs, dueMs: nowMs + delay },
          ...(orderKey !== undefined && { orderKey }),
          ...(key !== undefined && { idempotency: { key, digest, untilMs: nowMs + 30 } }),
        });
        await this.#both(jobs => jobs.enqueue([job], nowMs));
        return;
      }
      case 'claim': {
        const { limit, lane } = step;
        const only = lane === undefined ? {} : { lane };
        const { jobs: leased } = await this.#both(jobs =>
          jobs.claim({ limit, nowMs, leaseMs: 25, ...only }),
        );
        this.#leased.push(...leased);
        return;
      }
      case 'settle':
        return this.#settle(step, id);
      case 'cancel': {
        const which = this.#ids[step.which % Math.max(1, this.#ids.length)];
        if (which !== undefined) await this.#both(jobs => jobs.cancel(which, { nowMs }));
        return;
      }
      case 'extend': {
        const lease = this.#leased[step.which % Math.max(1, this.#leased.length)];
        if (lease !== undefined) await this.#both(jobs => jobs.extend([lease], nowMs + 60));
        return;
      }
      case 'recover':
        await this.#both(jobs => jobs.recover(nowMs));
        return;
      case 'fire':
        return this.#fire(step);
      case 'publish':
        return this.#publish(step);
      case 'seek':
        return this.#seek(step);
      case 'drop': {
        const { lane, limit } = step;
        await this.#both(jobs => jobs.drop(lane, { nowMs, limit }));
        return;
      }
      case 'purge': {
        const { do: _, limit, ...query } = step;
        const given = { namespace: 'default', ...JSON.parse(JSON.stringify(query)) };
        await this.#both(async jobs => {
          const { removed, blobs } = await jobs.purge(given, { nowMs, limit });
          return { removed, blobs: blobs.sort() };
        });
        return;
      }
      case 'redrive':
        return this.#redrive(step, id);
      case 'sweep': {
        const { limit } = step;
        const ages = { endedBeforeMs: nowMs - 20, deadBeforeMs: nowMs - 50 };
        const swept = await this.#both(
          async jobs => (await jobs.sweep({ nowMs, ...ages, limit })).removed,
        );
        assert.ok(swept <= limit);
        return;
      }
      case 'wait':
        this.#nowMs += step.ms;
    }
  }

  async #settle(step: Operation & { do: 'settle' }, id: string): Promise<void> {
    const nowMs = this.#nowMs;
    const { which, isOld, how, isCounted, delay, hasNext } = step;
    const lease = isOld
      ? this.#leased[which % Math.max(1, this.#leased.length)]
      : this.#leased.at(-1 - (which % 3));
    if (lease === undefined) return;
    const next = hasNext ? [buildJob({ id, laneId: 'fn_c', acceptedMs: nowMs, dueMs: nowMs })] : [];
    if (hasNext) this.#ids.push(id);
    const changes: Partial<Settlement> = { nowMs, isCounted, next };
    if (how === 'retry') changes.outcome = { kind: 'retry', dueMs: nowMs + delay };
    if (how === 'dead')
      changes.outcome = {
        kind: 'end',
        state: 'dead',
        keepsInput: true,
        ...(isOld && { cause: 'c' }),
      };
    const settlement = ending(lease, how === 'retry' ? 'succeeded' : how, changes);
    await this.#both(jobs => jobs.settle([settlement]));
  }

  async #publish(step: Operation & { do: 'publish' }): Promise<void> {
    const nowMs = this.#nowMs;
    const { lanes, keepMs, isBlob, orderKey, waitingMax } = step;
    const { sealed, ...rest } = buildMessage({ publishedMs: nowMs, keepUntilMs: nowMs + keepMs });
    const message = { ...rest, ...(isBlob ? { blob: `sha256:${rest.id}` } : { sealed: sealed! }) };
    const deliveries = lanes.map(lane =>
      buildDelivery(message, {
        lane: { id: lane, runningMax: lane === 'sub_a' ? 2 : 0, waitingMax },
        ...{ acceptedMs: nowMs, dueMs: nowMs, functionId: lane },
        ...(orderKey !== undefined && { orderKey }),
      }),
    );
    this.#ids.push(...deliveries.map(({ id }) => id));
    await this.#of(({ messages }) => messages.publish({ messages: [message], deliveries }, nowMs));
  }

  async #seek({ skipped }: Operation & { do: 'seek' }): Promise<void> {
    const nowMs = this.#nowMs;
    const all = { topic: 'top_a', sinceMs: 0, limit: 1000 };
    const found = await this.#of(({ messages }) => messages.messages(all));
    const deliveries = found
      .slice(skipped)
      .map(message => buildDelivery(message, { acceptedMs: nowMs, dueMs: nowMs }));
    this.#ids.push(...deliveries.map(({ id }) => id));
    const place = { lane: 'sub_a', sinceMs: nowMs - skipped * 10, deliveries };
    await this.#of(({ messages }) => messages.seek(place, nowMs));
  }

  async #redrive({ which }: Operation & { do: 'redrive' }, id: string): Promise<void> {
    const nowMs = this.#nowMs;
    const query = { namespace: 'default', limit: 1000 };
    const ended = (await this.#both(jobs => jobs.list(query))).filter(
      ({ endedMs }) => endedMs !== undefined,
    );
    const old = ended[which % Math.max(1, ended.length)];
    if (old === undefined) return;
    this.#ids.push(id);
    const lane = { id: old.lane, runningMax: 2, waitingMax: 100 };
    const facts = { id, lane, redrives: old.id, acceptedMs: nowMs, dueMs: nowMs };
    const job =
      old.message === undefined
        ? buildJob({ ...facts, functionId: old.lane })
        : buildDelivery({ id: old.message }, { ...facts, functionId: old.lane });
    await this.#both(jobs => jobs.enqueue([job], nowMs));
  }

  async #fire(step: Operation & { do: 'fire' }): Promise<void> {
    const nowMs = this.#nowMs;
    const { schedule, fromMs, steps, isMissed, skipsOverlap, waitingMax } = step;
    const slots = Array.from({ length: Math.max(1, steps) }, (_, i) => {
      const lane = { id: 'fn_a', runningMax: 2, waitingMax };
      const job = buildJob({ lane, acceptedMs: nowMs, dueMs: nowMs });
      this.#ids.push(job.id);
      return { slotMs: fromMs + i, ...(!isMissed && { job }) };
    });
    const firing = { schedule, fromMs, toMs: fromMs + steps, skipsOverlap, slots };
    await this.#of(({ schedules }) => schedules.fire([firing], nowMs));
  }

  async compare(): Promise<void> {
    await this.#both(jobs => jobs.dead('default'));
    await this.#both(async jobs => [...(await jobs.blobs())].sort());
    await this.#of(({ messages }) => messages.messages({ topic: 'top_a', sinceMs: 0, limit: 999 }));
    await this.#of(({ schedules }) => schedules.positions());
    await this.#of(({ schedules }) => schedules.slots('sch_a', 100));
    await this.#of(({ schedules }) => schedules.slots('sch_b', 100));
    await this.#both(jobs => jobs.counts());
    for (const id of this.#ids) await this.#both(jobs => jobs.find(id));
    await this.#both(jobs => jobs.list({ namespace: 'default', limit: 1000 }));
  }
}

test('whatever is done, it answers as the memory store does', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(operation, { minLength: 30, maxLength: 60 }), async steps => {
      const sqlite = direct();
      try {
        const pair = new Pair([inMemory(), sqlite]);
        for (const step of steps) await pair.run(step);
        await pair.compare();
        for (const lane of sqlite.lanes() as Array<Record<string, unknown>>)
          assert.deepEqual(
            [lane.ready, lane.waiting, lane.running],
            [lane.isReady, lane.isWaiting, lane.isRunning],
            `the counts of ${lane.id}`,
          );
      } finally {
        sqlite.close();
      }
    }),
    { numRuns: Number(process.env.FNWAY_TEST_RUNS ?? 60) },
  );
});

test('a count that is wrong is put right, and stops no other lane', async () => {
  const sqlite = direct();
  try {
    const [a, b] = ['fn_a', 'fn_b'].map(id =>
      buildJob({ lane: { id, runningMax: 4, waitingMax: 10 } }),
    );
    await sqlite.jobs.enqueue([a!, b!], noon);
    sqlite.wrongLane('fn_a');
    const { jobs } = await sqlite.jobs.claim({ limit: 8, nowMs: noon, leaseMs: 1000 });
    assert.deepEqual(jobs.map(({ id }) => id).sort(), [a!.id, b!.id].sort());
    const [lane] = sqlite.lanes() as Array<Record<string, unknown>>;
    assert.deepEqual([lane!.ready, lane!.waiting, lane!.running], [0, 0, 1]);
  } finally {
    sqlite.close();
  }
});

test('one operation that fails leaves nothing, and those that came with it hold', async () => {
  const queue = openQueue(newPath());
  const [good, bad, other] = [buildJob(), buildJob({ priority: 10 }), buildJob()];
  const outcomes = await Promise.allSettled([
    queue.jobs.enqueue([good], noon),
    queue.jobs.enqueue([buildJob({ id: other.id }), bad], noon),
    queue.jobs.enqueue([other], noon),
    queue.jobs.enqueue([good], noon),
  ]);
  assert.deepEqual(
    outcomes.map(({ status }) => status),
    ['fulfilled', 'rejected', 'fulfilled', 'rejected'],
  );
  assert.equal((await queue.jobs.find(good.id))?.state, 'queued');
  assert.equal((await queue.jobs.list({ namespace: 'default', limit: 9 })).length, 2);
  await queue.close();
});

test('what was accepted is there after the thread and the file were closed, and order stays', async () => {
  const file = newPath();
  const jobs = Array.from({ length: 50 }, () => buildJob());
  const first = openQueue(file);
  // Closed with all of them on their way.
  const accepted = Promise.all(jobs.map(job => first.jobs.enqueue([job], noon)));
  await first.close();
  assert.deepEqual(new Set((await accepted).flat()), new Set(['accepted']));
  const second = openQueue(file);
  const { jobs: leased } = await second.jobs.claim({ limit: 100, nowMs: noon, leaseMs: 1000 });
  assert.deepEqual(
    leased.map(({ id }) => id),
    jobs.map(({ id }) => id),
  );
  await second.close();
});

test('without a file there is nothing, no thread, and no file is made', async () => {
  const file = newPath();
  const { jobs, close } = openQueue(file);
  assert.deepEqual(await jobs.claim({ limit: 1, nowMs: noon, leaseMs: 1 }), { jobs: [] });
  assert.equal(await jobs.find('inv_none'), undefined);
  assert.equal(await jobs.cancel('inv_none', { nowMs: noon }), 'missing');
  assert.equal(await jobs.recover(noon), 0);
  assert.deepEqual(await jobs.counts(), []);
  assert.deepEqual(await jobs.blobs(), new Set());
  assert.equal(existsSync(file), false);
  await close();
});

test('a file that cannot be used is an error of each method, until it can', async () => {
  const file = newPath();
  mkdirSync(file);
  const { jobs, close } = openQueue(file);
  await assert.rejects(jobs.enqueue([buildJob()], noon), { code: 'DATA_DIRECTORY_UNUSABLE' });
  rmSync(file, { recursive: true });
  assert.deepEqual(await jobs.enqueue([buildJob()], noon), ['accepted']);
  await close();
});
