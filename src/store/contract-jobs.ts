/** What every store does with jobs. */
import assert from 'node:assert/strict';
import { newId } from '../ids.ts';
import type { Define } from './contract-rows.ts';
import type { EndState, JobStore, LeasedJob, NewJob, Settlement } from './jobs.ts';

export const noon = Date.parse('2026-01-31T12:00:00Z');
const leaseMs = 30_000;
const story = Uint8Array.of(7);

export function buildJob(changes: Partial<NewJob> & { laneId?: string } = {}): NewJob {
  const { laneId = 'fn_a', ...rest } = changes;
  return {
    id: newId('inv', noon),
    kind: 'call',
    namespace: 'default',
    functionId: laneId,
    lane: { id: laneId, runningMax: 100, waitingMax: 1000 },
    priority: 4,
    acceptedMs: noon,
    dueMs: noon,
    sealedInput: Uint8Array.of(1, 0, 255),
    ...rest,
  };
}

const claim = (jobs: JobStore, limit = 100, nowMs = noon) => jobs.claim({ limit, nowMs, leaseMs });
const idsOf = (jobs: ReadonlyArray<{ id: string }>) => jobs.map(({ id }) => id);

export function ending(
  { id, lease }: { id: string; lease: number },
  state: EndState = 'succeeded',
  changes: Partial<Settlement> = {},
): Settlement {
  return {
    ...{ id, lease, nowMs: noon + 5, isCounted: true, sealedStory: story, next: [] },
    outcome: { kind: 'end', state, keepsInput: state === 'dead' },
    ...changes,
  };
}

function again({ id, lease }: LeasedJob, dueMs: number, isCounted = true): Settlement {
  const outcome = { kind: 'retry' as const, dueMs };
  return { id, lease, nowMs: noon + 5, isCounted, sealedStory: story, next: [], outcome };
}

export function jobsContract(define: Define): void {
  defineLife(define);
  defineEnds(define);
  defineLeases(define);
  defineOrder(define);
  defineFairness(define);
  defineRefusals(define);
  defineLooking(define);
}

function defineLife(define: Define): void {
  define('a job is accepted, leased with all that it came with, and ends', async ({ jobs }) => {
    const job = buildJob({ priority: 9, orderKey: 'k', parent: 'inv_parent' });
    assert.deepEqual(await jobs.enqueue([job], noon), ['accepted']);
    const { lane, dueMs, ...facts } = job;
    const stored = { ...facts, lane: lane.id, attempts: 0, lost: 0 };
    assert.deepEqual(await jobs.find(job.id), { ...stored, state: 'queued', dueMs });
    const { jobs: leased, nextMs } = await claim(jobs);
    assert.deepEqual(leased, [{ ...stored, lease: 1 }]);
    assert.equal(nextMs, noon + leaseMs);
    assert.deepEqual(await jobs.find(job.id), { ...stored, state: 'running' });
    const sealedResult = new Uint8Array(100);
    const outcome = { kind: 'end', state: 'succeeded', status: 200, sealedResult } as const;
    const settlement = ending(leased[0]!, 'succeeded', {
      outcome: { ...outcome, keepsInput: false },
    });
    assert.deepEqual(await jobs.settle([settlement]), ['settled']);
    const { sealedInput: _, ...kept } = stored;
    assert.deepEqual(await jobs.find(job.id), {
      ...kept,
      ...{ state: 'succeeded', status: 200, attempts: 1, endedMs: noon + 5 },
      ...{ sealedStory: story, sealedResult },
    });
    assert.deepEqual(await claim(jobs), { jobs: [] });
    assert.deepEqual(await jobs.counts(), []);
  });

  define('a dead job keeps its input, and says where its result is', async ({ jobs }) => {
    const job = buildJob({ inputBlob: 'sha256:abcd' });
    delete job.sealedInput;
    await jobs.enqueue([job], noon);
    const [leased] = (await claim(jobs)).jobs;
    const outcome = {
      kind: 'end',
      state: 'dead',
      resultBlob: 'sha256:ef01',
      keepsInput: true,
    } as const;
    await jobs.settle([ending(leased!, 'dead', { outcome })]);
    const found = await jobs.find(job.id);
    assert.equal(found?.inputBlob, 'sha256:abcd');
    assert.equal(found?.resultBlob, 'sha256:ef01');
    assert.deepEqual(await jobs.blobs(), new Set(['sha256:abcd', 'sha256:ef01']));
  });

  define('a job is tried again when it is due, and its tries are counted', async ({ jobs }) => {
    const job = buildJob();
    await jobs.enqueue([job], noon);
    const [first] = (await claim(jobs)).jobs;
    await jobs.settle([again(first!, noon + 1000)]);
    assert.equal((await jobs.find(job.id))?.attempts, 1);
    assert.deepEqual(await claim(jobs), { jobs: [], nextMs: noon + 1000 });
    const [second] = (await claim(jobs, 1, noon + 1000)).jobs;
    assert.equal(second!.lease, 2);
    assert.equal(second!.attempts, 1);
    assert.deepEqual(second!.sealedStory, story);
    // Given back: it was no try. A story that is not given stays.
    const { sealedStory: _, ...silent } = again(second!, noon, false);
    await jobs.settle([silent]);
    const [third] = (await claim(jobs)).jobs;
    assert.deepEqual([third?.attempts, third?.sealedStory], [1, story]);
  });
}

function defineEnds(define: Define): void {
  define('what follows an end is accepted with it, or not at all', async ({ jobs }) => {
    const full = { id: 'callbacks', runningMax: 1, waitingMax: 1 };
    await jobs.enqueue([buildJob(), buildJob({ lane: full })], noon);
    const leased = (await claim(jobs)).jobs.find(({ lane }) => lane === 'fn_a')!;
    const next = [buildJob({ lane: full, kind: 'callback' }), buildJob({ lane: full })];
    assert.deepEqual(await jobs.settle([ending(leased, 'failed', { next })]), ['settled']);
    assert.equal((await jobs.find(next[1]!.id))?.state, 'queued', 'also where the lane is full');
    const lost = [buildJob()];
    assert.deepEqual(await jobs.settle([ending(leased, 'failed', { next: lost })]), ['lost']);
    assert.equal(await jobs.find(lost[0]!.id), undefined);
  });

  define('what waits is cancelled, what runs is not', async ({ jobs }) => {
    const [waits, runs, later] = [buildJob(), buildJob(), buildJob({ dueMs: noon + 1000 })];
    await jobs.enqueue([runs, waits, later], noon);
    const [leased] = (await claim(jobs, 1)).jobs;
    const options = { nowMs: noon + 1 };
    assert.equal(await jobs.cancel(runs.id, options), 'running');
    assert.equal(await jobs.cancel(waits.id, options), 'cancelled');
    assert.equal(await jobs.cancel(later.id, { nowMs: noon + 1 }), 'cancelled');
    assert.equal(await jobs.cancel(waits.id, options), 'ended');
    assert.equal(await jobs.cancel(newId('inv', noon), options), 'missing');
    const { state, endedMs, attempts } = (await jobs.find(waits.id))!;
    assert.deepEqual(
      { state, endedMs, attempts },
      { state: 'cancelled', endedMs: noon + 1, attempts: 0 },
    );
    assert.deepEqual(await jobs.counts(), [{ lane: 'fn_a', waiting: 0, running: 1 }]);
    assert.deepEqual(await jobs.settle([ending(leased!, 'cancelled')]), ['settled']);
  });
}

function defineLeases(define: Define): void {
  define(
    'a lease that has run out settles nothing, and its job is leased again',
    async ({ jobs }) => {
      await jobs.enqueue([buildJob()], noon);
      const [first] = (await claim(jobs)).jobs;
      assert.deepEqual((await claim(jobs, 10, noon + leaseMs - 1)).jobs, []);
      const [second] = (await claim(jobs, 10, noon + leaseMs)).jobs;
      assert.deepEqual([second!.lease, second!.lost, second!.attempts], [2, 1, 0]);
      assert.deepEqual(await jobs.settle([ending(first!)]), ['lost']);
      assert.deepEqual(await jobs.extend([first!, second!], noon + 2 * leaseMs), [false, true]);
      assert.deepEqual(await jobs.settle([ending(second!), ending(second!)]), ['settled', 'lost']);
      assert.deepEqual(await jobs.extend([second!], noon), [false]);
    },
  );

  define('a lease that is extended lasts', async ({ jobs }) => {
    await jobs.enqueue([buildJob()], noon);
    const [leased] = (await claim(jobs)).jobs;
    await jobs.extend([leased!], noon + 100_000);
    const later = await claim(jobs, 10, noon + 99_999);
    assert.deepEqual(later, { jobs: [], nextMs: noon + 100_000 });
  });

  define('all leases are taken back when nobody can hold one', async ({ jobs }) => {
    await jobs.enqueue([buildJob(), buildJob({ laneId: 'fn_b' }), buildJob()], noon);
    const { jobs: leased } = await claim(jobs, 2);
    assert.equal(await jobs.recover(noon + 1), 2);
    assert.equal(await jobs.recover(noon + 1), 0);
    const { jobs: anew } = await claim(jobs, 10, noon + 1);
    assert.deepEqual(anew.map(({ lost }) => lost).sort(), [0, 1, 1]);
    assert.deepEqual(await jobs.settle(leased.map(job => ending(job))), ['lost', 'lost']);
  });
}

function defineOrder(define: Define): void {
  define('higher priorities come first, then whoever was accepted first', async ({ jobs }) => {
    const low = buildJob({ priority: 0 });
    const [first, second] = [buildJob(), buildJob()];
    const high = buildJob({ priority: 9 });
    await jobs.enqueue([low, first, second, high], noon);
    assert.deepEqual(idsOf((await claim(jobs)).jobs), idsOf([high, first, second, low]));
  });

  define('nothing begins before its time', async ({ jobs }) => {
    const later = buildJob({ dueMs: noon + 60_000, priority: 9 });
    const now = buildJob({ dueMs: noon - 5 });
    await jobs.enqueue([later, now], noon);
    const { jobs: leased, nextMs } = await claim(jobs);
    assert.deepEqual(idsOf(leased), [now.id]);
    assert.equal(nextMs, noon + leaseMs);
    assert.deepEqual(
      idsOf((await claim(jobs, 9, noon + 60_000)).jobs),
      [later.id, now.id].slice(0, 2),
    );
  });

  define('of one key, one at a time and in order; other keys go on', async ({ jobs }) => {
    const [a1, a2, a3] = [1, 2, 3].map(n => buildJob({ orderKey: 'a', priority: n }));
    const [b1, other] = [buildJob({ orderKey: 'b' }), buildJob({ orderKey: 'a', laneId: 'fn_b' })];
    await jobs.enqueue([a1!, a2!, a3!, b1!, other!], noon);
    const { jobs: leased } = await claim(jobs);
    assert.deepEqual(idsOf(leased).sort(), idsOf([a1!, b1!, other!]).sort());
    const [first] = leased.filter(({ id }) => id === a1!.id);
    // The one that fails keeps its place.
    await jobs.settle([again(first!, noon + 1000)]);
    assert.deepEqual((await claim(jobs)).jobs, []);
    const [second] = (await claim(jobs, 9, noon + 1000)).jobs;
    assert.equal(second!.id, a1!.id);
    await jobs.settle([ending(second!, 'dead')]);
    assert.deepEqual(idsOf((await claim(jobs)).jobs), [a2!.id]);
    assert.equal(await jobs.cancel(a3!.id, { nowMs: noon }), 'cancelled');
  });

  define(
    'the next of a key keeps its own time, and goes when the one before is cancelled',
    async ({ jobs }) => {
      const first = buildJob({ orderKey: 'a', dueMs: noon + 10 });
      const second = buildJob({ orderKey: 'a', dueMs: noon + 500 });
      const third = buildJob({ orderKey: 'a' });
      await jobs.enqueue([first, second, third], noon);
      await jobs.cancel(first.id, { nowMs: noon });
      assert.deepEqual(await claim(jobs), { jobs: [], nextMs: noon + 500 });
      await jobs.cancel(second.id, { nowMs: noon });
      assert.deepEqual(idsOf((await claim(jobs)).jobs), [third.id]);
    },
  );
}

function defineFairness(define: Define): void {
  define('lanes take turns, whatever waits in one of them', async ({ jobs }) => {
    const busy = Array.from({ length: 20 }, () => buildJob({ laneId: 'fn_busy' }));
    await jobs.enqueue([...busy, buildJob({ laneId: 'fn_b' }), buildJob({ laneId: 'fn_c' })], noon);
    const lanes = (await claim(jobs, 4)).jobs.map(({ lane }) => lane);
    assert.deepEqual(lanes, ['fn_b', 'fn_busy', 'fn_c', 'fn_busy']);
    await jobs.enqueue([buildJob({ laneId: 'fn_d' }), buildJob({ laneId: 'fn_b' })], noon);
    const next = (await claim(jobs, 3)).jobs.map(({ lane }) => lane);
    assert.deepEqual(next, ['fn_d', 'fn_b', 'fn_busy']);
  });

  define('no more run of a lane than may, and the newest job says how many', async ({ jobs }) => {
    const lane = (runningMax: number) => ({ id: 'fn_a', runningMax, waitingMax: 100 });
    await jobs.enqueue(
      [1, 2, 3, 4].map(() => buildJob({ lane: lane(2) })),
      noon,
    );
    const { jobs: leased } = await claim(jobs);
    assert.equal(leased.length, 2);
    assert.deepEqual(await jobs.counts(), [{ lane: 'fn_a', waiting: 2, running: 2 }]);
    await jobs.settle([ending(leased[0]!)]);
    assert.equal((await claim(jobs)).jobs.length, 1);
    await jobs.enqueue([buildJob({ lane: lane(4) })], noon);
    assert.equal((await claim(jobs)).jobs.length, 2);
    await jobs.enqueue(
      [1, 2, 3].map(() => buildJob({ lane: lane(4) })),
      noon,
    );
    await jobs.setRoom([
      { id: 'fn_a', runningMax: 6 },
      { id: 'fn_none', runningMax: 1 },
    ]);
    assert.equal((await claim(jobs)).jobs.length, 2, 'also without another job');
  });
}

function defineRefusals(define: Define): void {
  define('a lane that is full refuses, and leaves nothing', async ({ jobs }) => {
    const lane = { id: 'fn_a', runningMax: 1, waitingMax: 2 };
    const many = [1, 2, 3].map(() => buildJob({ lane }));
    assert.deepEqual(await jobs.enqueue(many, noon), ['accepted', 'accepted', 'full']);
    assert.equal(await jobs.find(many[2]!.id), undefined);
    await claim(jobs, 1);
    assert.deepEqual(await jobs.enqueue([buildJob({ lane })], noon), ['accepted']);
    assert.deepEqual(await jobs.enqueue([buildJob({ laneId: 'fn_b' })], noon), ['accepted']);
  });

  define('the same key is the same job for as long as it lasts', async ({ jobs }) => {
    const key = (digest: string, untilMs = noon + 1000) => ({
      idempotency: { key: 'k', digest, untilMs },
    });
    const first = buildJob(key('x'));
    const repeated = buildJob(key('x'));
    assert.deepEqual(await jobs.enqueue([first, repeated], noon), [
      'accepted',
      { first: first.id },
    ]);
    assert.equal(await jobs.find(repeated.id), undefined);
    assert.deepEqual(await jobs.enqueue([buildJob(key('y'))], noon), ['conflict']);
    const later = buildJob(key('y', noon + 5000));
    assert.deepEqual(await jobs.enqueue([later], noon + 1000), ['accepted']);
    assert.deepEqual(await jobs.enqueue([buildJob(key('y'))], noon + 1001), [{ first: later.id }]);
  });
}

function defineLooking(define: Define): void {
  define('jobs are listed newest first, by what is asked for', async ({ jobs }) => {
    const ids = [1, 2, 3, 4].map(ms => newId('inv', noon + ms));
    await jobs.enqueue(
      [
        buildJob({ id: ids[0]! }),
        buildJob({ id: ids[1]!, laneId: 'fn_b' }),
        buildJob({ id: ids[2]!, kind: 'callback' }),
        buildJob({ id: ids[3]!, namespace: 'team' }),
      ],
      noon,
    );
    const [leased] = (await claim(jobs, 1)).jobs;
    await jobs.settle([ending(leased!, 'dead')]);
    const page = { namespace: 'default', limit: 10 };
    const list = async (query: object) => idsOf(await jobs.list({ ...page, ...query }));
    assert.deepEqual(await list({}), [ids[2], ids[1], ids[0]]);
    assert.deepEqual(await list({ limit: 1 }), [ids[2]]);
    assert.deepEqual(await list({ after: ids[1] }), [ids[0]]);
    assert.deepEqual(await list({ functionId: 'fn_b' }), [ids[1]]);
    assert.deepEqual(await list({ kind: 'callback' }), [ids[2]]);
    assert.deepEqual(await list({ state: 'dead' }), [leased!.id]);
    assert.deepEqual(
      await list({ state: 'queued' }),
      [ids[2], ids[1], ids[0]].filter(id => id !== leased!.id),
    );
    assert.deepEqual(await list({ state: 'running' }), []);
    const [dead] = await jobs.list({ ...page, state: 'dead' });
    assert.ok(!('sealedInput' in dead!) && !('sealedStory' in dead!));
  });

  define('what is old goes, the dead later, and so do keys', async ({ jobs }) => {
    const key = { key: 'k', digest: 'x', untilMs: noon + 10 };
    const [a, b, c] = [
      buildJob({ idempotency: key }),
      buildJob({ inputBlob: 'sha256:aaaa' }),
      buildJob(),
    ];
    delete b.sealedInput;
    await jobs.enqueue([a, b, c], noon);
    const leased = (await claim(jobs)).jobs;
    await jobs.settle([ending(leased[0]!), ending(leased[1]!, 'dead'), ending(leased[2]!)]);
    const sweep = (endedBeforeMs: number, deadBeforeMs: number, limit = 10) =>
      jobs.sweep({ nowMs: noon + 10, endedBeforeMs, deadBeforeMs, limit });
    assert.deepEqual(await sweep(noon + 5, noon + 5), { removed: 1, blobs: [] }, 'the key');
    assert.deepEqual(await sweep(noon + 5, noon + 5), { removed: 0, blobs: [] });
    assert.deepEqual(await sweep(noon + 6, noon + 5, 1), { removed: 1, blobs: [] });
    assert.deepEqual(await sweep(noon + 6, noon + 5), { removed: 1, blobs: [] });
    assert.deepEqual(await sweep(noon + 6, noon + 6), { removed: 1, blobs: ['sha256:aaaa'] });
    assert.equal(await jobs.find(b.id), undefined);
    assert.deepEqual(await jobs.enqueue([buildJob({ idempotency: key })], noon), ['accepted']);
  });
}
