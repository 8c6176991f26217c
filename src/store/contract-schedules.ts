/** What every store does with schedules: how far they have come, and what became of their slots. */
import assert from 'node:assert/strict';
import { buildJob, ending, noon } from './contract-jobs.ts';
import type { Define } from './contract-rows.ts';
import type { NewJob } from './jobs.ts';
import { type Firing, slotsKeptMax } from './schedules.ts';
import type { Store } from './store.ts';

const minute = 60_000;

/** Of the slot at `toMs`, from where the schedule stood before it. */
export function buildFiring(toMs: number, changes: Partial<Firing> & { job?: NewJob } = {}) {
  const { job = buildJob(), ...rest } = changes;
  const firing: Firing = {
    ...{ schedule: 'sch_a', fromMs: toMs - minute, toMs, skipsOverlap: false },
    slots: [{ slotMs: toMs, job }],
    ...rest,
  };
  return { firing, job };
}

const idsOf = async ({ jobs }: Store) =>
  (await jobs.list({ namespace: 'default', limit: 100 })).map(({ id }) => id).sort();

export function schedulesContract(define: Define): void {
  defineDeciding(define);
  defineOverlap(define);
  defineRoom(define);
  defineRemembering(define);
}

function defineDeciding(define: Define): void {
  define('a slot is decided once, and its job is accepted with it', async store => {
    const { firing, job } = buildFiring(noon);
    const slot = { slotMs: noon, outcome: 'fired', decidedMs: noon + 5, job: job.id };
    assert.deepEqual(await store.schedules.fire([firing], noon + 5), [[slot]]);
    const again = buildFiring(noon).firing;
    const later = buildFiring(noon + minute, { fromMs: noon - minute }).firing;
    assert.deepEqual(await store.schedules.fire([again, later], noon + 6), ['moved', 'moved']);
    assert.deepEqual(await idsOf(store), [job.id]);
    assert.deepEqual(await store.schedules.slots('sch_a', 10), [slot]);
    assert.deepEqual(await store.schedules.positions(), [{ schedule: 'sch_a', atMs: noon }]);
  });

  define('one that stood later, since it was resumed, goes on from there', async store => {
    await store.schedules.fire([buildFiring(noon).firing], noon);
    const { firing } = buildFiring(noon + 9 * minute, { fromMs: noon + 5 * minute });
    assert.equal((await store.schedules.fire([firing], noon))[0]!.length, 1);
  });
}

function defineOverlap(define: Define): void {
  define('a slot is skipped while the job of an earlier one has not ended', async store => {
    const { jobs, schedules } = store;
    const first = buildFiring(noon, { skipsOverlap: true });
    await schedules.fire([first.firing], noon);
    const [leased] = (await jobs.claim({ limit: 1, nowMs: noon, leaseMs: 1000 })).jobs;
    const second = buildFiring(noon + minute, { skipsOverlap: true }).firing;
    const [skipped] = await schedules.fire([second], noon + minute);
    const slot = { slotMs: noon + minute, outcome: 'skipped', decidedMs: noon + minute };
    assert.deepEqual(skipped, [slot]);
    assert.equal((await idsOf(store)).length, 1);
    await jobs.settle([ending(leased!)]);
    const third = buildFiring(noon + 2 * minute, { skipsOverlap: true });
    const [fired] = await schedules.fire([third.firing], noon + 2 * minute);
    assert.equal((fired as Array<{ job?: string }>)[0]!.job, third.job.id);
  });

  define('a slot is skipped however many were since the one whose job runs', async store => {
    const { schedules } = store;
    await schedules.fire([buildFiring(noon, { skipsOverlap: true }).firing], noon);
    for (let i = 1; i <= slotsKeptMax + 5; i++) {
      const { firing } = buildFiring(noon + i * minute, { skipsOverlap: true });
      const [decided] = await schedules.fire([firing], noon);
      assert.equal((decided as Array<{ outcome: string }>)[0]!.outcome, 'skipped', String(i));
    }
    assert.equal((await schedules.slots('sch_a', 999)).length, slotsKeptMax + 1);
  });

  define('of two slots in one firing, the second is skipped behind the first', async store => {
    const [one, two] = [buildJob(), buildJob()];
    const { firing } = buildFiring(noon + minute, {
      ...{ fromMs: noon - minute, skipsOverlap: true },
      slots: [
        { slotMs: noon, job: one },
        { slotMs: noon + minute, job: two },
      ],
    });
    const [decided] = await store.schedules.fire([firing], noon);
    assert.deepEqual(
      (decided as Array<{ outcome: string }>).map(({ outcome }) => outcome),
      ['fired', 'skipped'],
    );
    assert.deepEqual(await idsOf(store), [one.id]);
  });
}

function defineRoom(define: Define): void {
  define('where as many jobs wait as may, nothing is decided until there is room', async store => {
    const lane = { id: 'fn_a', runningMax: 1, waitingMax: 1 };
    const job = buildJob({ lane });
    assert.deepEqual(await store.jobs.enqueue([job], noon), ['accepted']);
    const { firing } = buildFiring(noon, { job: buildJob({ lane }) });
    assert.deepEqual(await store.schedules.fire([firing], noon), ['full']);
    assert.deepEqual(await store.schedules.positions(), []);
    assert.deepEqual(await store.schedules.slots('sch_a', 10), []);
    await store.jobs.cancel(job.id, { nowMs: noon });
    assert.equal((await store.schedules.fire([firing], noon))[0]!.length, 1);
  });

  define(
    'where there is room for some, those are decided, and it stands at the last',
    async store => {
      const lane = { id: 'fn_a', runningMax: 1, waitingMax: 2 };
      const slots = [0, 1, 2, 3].map(i => ({
        slotMs: noon + i * minute,
        ...(i > 0 && { job: buildJob({ lane }) }),
      }));
      const all = { ...buildFiring(noon).firing, slots, toMs: noon + 3 * minute };
      const [decided] = await store.schedules.fire([all], noon);
      const outcomes = (decided as Array<{ outcome: string }>).map(({ outcome }) => outcome);
      assert.deepEqual(outcomes, ['missed', 'fired', 'fired']);
      const atMs = noon + 2 * minute;
      assert.deepEqual(await store.schedules.positions(), [{ schedule: 'sch_a', atMs }]);
      const rest = { ...all, fromMs: atMs, slots: slots.slice(3) };
      assert.deepEqual(await store.schedules.fire([rest], noon), ['full']);
      await store.jobs.cancel(slots[1]!.job!.id, { nowMs: noon });
      assert.equal((await store.schedules.fire([rest], noon))[0]!.length, 1);
    },
  );

  define('what would be skipped needs no room', async store => {
    const lane = { id: 'fn_a', runningMax: 1, waitingMax: 1 };
    const slots = [0, 1, 2].map(i => ({ slotMs: noon + i * minute, job: buildJob({ lane }) }));
    const skipping = { ...buildFiring(noon).firing, slots, toMs: noon + 2 * minute };
    const [decided] = await store.schedules.fire([{ ...skipping, skipsOverlap: true }], noon);
    const outcomes = (decided as Array<{ outcome: string }>).map(({ outcome }) => outcome);
    assert.deepEqual(outcomes, ['fired', 'skipped', 'skipped']);
  });
}

function defineRemembering(define: Define): void {
  define('missed slots are told, and bring nothing', async store => {
    const { firing } = buildFiring(noon, { slots: [{ slotMs: noon }] });
    const missed = { slotMs: noon, outcome: 'missed', decidedMs: noon + 1 };
    assert.deepEqual(await store.schedules.fire([firing], noon + 1), [[missed]]);
    assert.deepEqual(await idsOf(store), []);
    assert.deepEqual(await store.schedules.positions(), [{ schedule: 'sch_a', atMs: noon }]);
  });

  define('what is asked for by hand is told, and moves nothing', async store => {
    await store.schedules.fire([buildFiring(noon).firing], noon);
    const byHand = buildFiring(noon, {
      fromMs: noon,
      slots: [{ slotMs: noon + 7, job: buildJob() }],
    });
    const [decided] = await store.schedules.fire([byHand.firing], noon + 7);
    assert.equal((decided as Array<{ outcome: string }>)[0]!.outcome, 'by-hand');
    assert.deepEqual(await store.schedules.positions(), [{ schedule: 'sch_a', atMs: noon }]);
    assert.equal((await idsOf(store)).length, 2);
  });

  define(
    'the last slots are remembered, newest first, and forgotten with their schedule',
    async store => {
      for (let i = 0; i < slotsKeptMax + 3; i++)
        await store.schedules.fire([buildFiring(noon + i * minute).firing], noon);
      const slots = await store.schedules.slots('sch_a', 1000);
      assert.equal(slots.length, slotsKeptMax);
      assert.equal(slots[0]!.slotMs, noon + (slotsKeptMax + 2) * minute);
      assert.equal(slots.at(-1)!.slotMs, noon + 3 * minute);
      assert.equal((await store.schedules.slots('sch_a', 2)).length, 2);
      await store.schedules.fire([buildFiring(noon, { schedule: 'sch_b' }).firing], noon);
      await store.schedules.forget(['sch_a', 'sch_none']);
      assert.deepEqual(await store.schedules.slots('sch_a', 10), []);
      assert.deepEqual(await store.schedules.positions(), [{ schedule: 'sch_b', atMs: noon }]);
    },
  );
}
