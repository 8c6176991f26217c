/**
 * Goal: what is accepted ends once, whatever goes wrong around it. Method: the queue over the store in memory and a clock
 * that is moved by hand; functions are what a test says.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Clock } from '../clock.ts';
import { noRetry } from '../domain/retry.ts';
import { GatewayError } from '../errors.ts';
import { newId } from '../ids.ts';
import type { Call, CallSignal, Reply } from '../invoke/invoke.ts';
import { failedReply } from '../invoke/invoke.ts';
import { buildJob } from '../store/contract-jobs.ts';
import { type JobStore, jobMethods } from '../store/jobs.ts';
import { createMemoryJobs } from '../store/memory-jobs.ts';
import { FakeClock } from '../testing/fake-clock.ts';
import { answer, buildQueue } from '../testing/test-queue.ts';
import { waitFor } from '../testing/wait-for.ts';
import { queueLimits } from './queue.ts';

const minute = 60_000;
const six = { ...noRetry, attempts: 6, minDelayMs: 2 * minute, maxDelayMs: 10 * minute };

/** A handler that answers when it is told to. */
function held() {
  const calls: Array<{ call: Call; signal: CallSignal; reply(reply: Reply): void }> = [];
  const invoke = (call: Call, signal: CallSignal) =>
    new Promise<Reply>((resolve, reject) => {
      calls.push({ call, signal, reply: resolve });
      signal.onAbort(reject);
    });
  return { calls, invoke };
}

test('tries are as far apart as the policy says, and count up', async () => {
  const clock = new FakeClock();
  const startMs = clock.now();
  const attempts: Array<[number, number]> = [];
  const { queue, submit } = buildQueue({
    ...{ jobs: createMemoryJobs(), clock, retry: six },
    async invoke(call) {
      attempts.push([call.attempt, (clock.now() - startMs) / minute]);
      return failedReply({ reason: 'threw', message: 'no' });
    },
  });
  const id = await submit();
  await clock.advance(60 * minute);
  assert.deepEqual(attempts, [
    [1, 0],
    [2, 2],
    [3, 6],
    [4, 14],
    [5, 24],
    [6, 34],
  ]);
  assert.equal((await queue.find(id))?.state, 'dead');
  await queue.stop(0);
});

test('what a gateway left is tried again without a try less; after three, it is lost', async () => {
  const clock = new FakeClock();
  const jobs = createMemoryJobs();
  const options = { jobs, clock, retry: six };
  const { submit } = buildQueue({ ...options, invoke: () => new Promise(() => {}) });
  const id = await submit('poison');
  await waitFor(async () => (await jobs.find(id))?.state === 'running');
  for (let gateways = 1; gateways < 3; gateways++) {
    const next = buildQueue({ ...options, invoke: () => new Promise(() => {}) });
    await next.queue.start();
    await waitFor(async () => {
      const job = await jobs.find(id);
      return job?.state === 'running' && job.lost === gateways;
    });
  }
  const last = buildQueue({
    ...options,
    invoke: () => assert.fail('it is not tried a fourth time'),
  });
  await last.queue.start();
  const job = await waitFor(async () => {
    const found = await jobs.find(id);
    return found?.state === 'dead' && found;
  });
  assert.deepEqual([job.attempts, job.lost], [0, 3]);
  const told = await last.calls.tell(job);
  assert.equal(told.result?.failure?.code, 'JOB_LOST');
  assert.notEqual(job.sealedInput, undefined, 'it can be driven again');
  await last.queue.stop(0);
});

test('leases last as long as their jobs run', async () => {
  const clock = new FakeClock();
  const { calls, invoke } = held();
  const jobs = createMemoryJobs();
  const { queue, submit } = buildQueue({ jobs, clock, invoke });
  const id = await submit();
  await clock.advance(20 * queueLimits.leaseMs);
  assert.equal(calls.length, 1);
  calls[0]!.reply(answer(200, 'done'));
  await clock.advance(0);
  const { state, lost } = (await queue.find(id))!;
  assert.deepEqual([state, lost], ['succeeded', 0]);
  await queue.stop(0);
});

test('whoever has lost a lease is told, and settles nothing', async () => {
  const clock = new FakeClock();
  const { calls, invoke } = held();
  const jobs = createMemoryJobs();
  const { queue, submit } = buildQueue({ jobs, clock, invoke });
  const id = await submit();
  await clock.advance(0);
  // Another gateway, while this one did not get to renew its lease.
  await jobs.recover(clock.now());
  const other = await jobs.claim({ limit: 1, nowMs: clock.now(), leaseMs: 10 * minute });
  await clock.advance(queueLimits.leaseMs);
  assert.equal(calls[0]!.signal.reason?.code, 'CALL_CANCELLED');
  assert.equal((await jobs.find(id))?.state, 'running');
  assert.deepEqual(await jobs.extend([{ id, lease: other.jobs[0]!.lease }], clock.now() + minute), [
    true,
  ]);
  await queue.stop(0);
});

test('a clock that jumps ahead takes no lease away', async () => {
  const fake = new FakeClock();
  let jumpMs = 0;
  const clock: Clock = {
    now: () => fake.now() + jumpMs,
    monotonicMs: () => fake.monotonicMs(),
    after: (ms, fn) => fake.after(ms, fn),
  };
  const { calls, invoke } = held();
  const jobs = createMemoryJobs();
  const { queue, submit } = buildQueue({ jobs, clock, invoke });
  const id = await submit();
  await fake.advance(0);
  jumpMs = 3_600_000;
  // Wakes the claim.
  await submit('another');
  await fake.advance(0);
  assert.equal(calls.length, 2);
  assert.equal((await jobs.find(id))?.lost, 0);
  for (const { reply } of calls) reply(answer(200));
  await fake.advance(0);
  await queue.stop(0);
});

test('a stop waits for what runs, and gives back what goes on for too long', async () => {
  const clock = new FakeClock();
  const { calls, invoke } = held();
  const jobs = createMemoryJobs();
  const { queue, submit } = buildQueue({ jobs, clock, invoke });
  const [ends, stays] = [await submit('ends'), await submit('stays')];
  await clock.advance(0);
  let isStopped = false;
  const stopped = queue.stop(5000).then(() => {
    isStopped = true;
  });
  await assert.rejects(submit('late'), { code: 'GATEWAY_STOPPING' });
  calls[0]!.reply(answer(200));
  await clock.advance(4999);
  assert.equal(isStopped, false);
  assert.equal((await jobs.find(ends))?.state, 'succeeded');
  await clock.advance(1);
  await stopped;
  const { state, attempts, lost } = (await jobs.find(stays))!;
  assert.deepEqual([state, attempts, lost], ['queued', 0, 0]);
});

test('an end that cannot be stored is kept until it can, and the work is not done again', async () => {
  const clock = new FakeClock();
  const store = createMemoryJobs();
  const full = new GatewayError('DATA_DIRECTORY_UNUSABLE', 'the disk is full');
  let isFull = false;
  const jobs: JobStore = {
    ...methodsOf(store),
    async settle(settlements) {
      if (isFull) throw full;
      return store.settle(settlements);
    },
    // Neither can leases be renewed: nothing is claimed meanwhile, or what runs here would be given out again.
    async extend(leases, untilMs) {
      if (isFull) throw full;
      return store.extend(leases, untilMs);
    },
  };
  let runs = 0;
  const { queue, submit } = buildQueue({
    ...{ jobs, clock },
    async invoke() {
      runs++;
      return answer(200);
    },
  });
  isFull = true;
  const id = await submit();
  await clock.advance(5 * queueLimits.leaseMs);
  assert.equal((await store.find(id))?.state, 'running');
  await submit().catch(() => {});
  await clock.advance(2000);
  isFull = false;
  await clock.advance(3000);
  const { state, lost } = (await store.find(id))!;
  assert.deepEqual([state, lost], ['succeeded', 0]);
  assert.equal(runs, 2, 'once each');
  await queue.stop(0);
});

test('a mistake of ours gives a job back, and ends nothing', async () => {
  const clock = new FakeClock();
  const jobs = createMemoryJobs();
  let mistakes = 2;
  const { queue, submit } = buildQueue({
    ...{ jobs, clock, invoke: async () => answer(200) },
    async following() {
      if (mistakes-- > 0) throw new Error('a mistake');
      return [];
    },
  });
  const id = await submit();
  await clock.advance(20_000);
  const { state, attempts } = (await jobs.find(id))!;
  assert.deepEqual([state, attempts], ['succeeded', 1]);
  await queue.stop(0);
});

test('what is damaged costs its own job, or its own story', async () => {
  const clock = new FakeClock();
  const jobs = createMemoryJobs();
  const invoke = async () => answer(200);
  const { queue, calls, submit } = buildQueue({ jobs, clock, invoke });
  const garbage = Uint8Array.of(1, 2, 3);
  const broken = buildJob({ acceptedMs: clock.now(), dueMs: clock.now(), sealedInput: garbage });
  await queue.submit([broken]);
  await clock.advance(0);
  const ended = (await jobs.find(broken.id))!;
  assert.equal(ended.state, 'failed');
  assert.equal((await calls.tell(ended)).result?.failure?.code, 'JOB_LOST');
  const id = await submit('', { dueMs: clock.now() + 1000 });
  await clock.advance(1);
  const { jobs: leased } = await jobs.claim({ limit: 1, nowMs: clock.now() + 1000, leaseMs: 1 });
  const outcome = { kind: 'retry' as const, dueMs: clock.now() + 1000 };
  const settled = { id, lease: leased[0]!.lease, nowMs: clock.now(), isCounted: true, next: [] };
  await jobs.settle([{ ...settled, outcome, sealedStory: garbage }]);
  await clock.advance(2000);
  const whole = (await jobs.find(id))!;
  assert.equal(whole.state, 'succeeded');
  assert.equal((await calls.tell(whole)).attempts.length, 1);
  await queue.stop(0);
});

test('what is cancelled while it is on its way, or between two tries, is not tried', async () => {
  const clock = new FakeClock();
  const store = createMemoryJobs();
  let letGo: Array<() => void> = [];
  const jobs: JobStore = {
    ...methodsOf(store),
    async claim(options) {
      const claimed = await store.claim(options);
      await new Promise<void>(resolve => letGo.push(resolve));
      return claimed;
    },
  };
  const invoke = async (_call: Call, signal: CallSignal) => {
    if (signal.reason !== undefined) throw signal.reason;
    return answer(200);
  };
  const { queue, submit } = buildQueue({ jobs, clock, invoke });
  const id = await submit();
  await clock.advance(0);
  assert.equal(await queue.cancel(id), 'running');
  for (const go of letGo) go();
  letGo = [];
  await clock.advance(0);
  assert.equal((await store.find(id))?.state, 'cancelled');
  // Stops only when what was claimed meanwhile has been given back.
  const late = await submit();
  await clock.advance(0);
  const stopped = queue.stop(0);
  for (const go of letGo) go();
  await clock.advance(0);
  await stopped;
  assert.equal((await store.find(late))?.state, 'queued');
});

test('a store that cannot be asked is asked again', async () => {
  const clock = new FakeClock();
  const store = createMemoryJobs();
  let failures = 3;
  const jobs: JobStore = {
    ...methodsOf(store),
    async claim(options) {
      if (failures-- > 0) throw new GatewayError('DATA_DIRECTORY_UNUSABLE', 'it is gone');
      return store.claim(options);
    },
  };
  const { queue, submit } = buildQueue({ jobs, clock, invoke: async () => answer(200) });
  const id = await submit();
  await clock.advance(4000);
  assert.equal((await store.find(id))?.state, 'succeeded');
  await queue.stop(0);
});

test('no room in an instance is no try; the job comes again, until it is too old', async () => {
  const clock = new FakeClock();
  const jobs = createMemoryJobs();
  let isBusy = true;
  const { queue, submit } = buildQueue({
    ...{ jobs, clock, retry: { ...noRetry, maxAgeMs: minute } },
    async invoke() {
      if (isBusy) throw new GatewayError('FUNCTION_BUSY', 'full', { retryAfterMs: 1000 });
      return answer(200);
    },
  });
  const id = await submit();
  await clock.advance(10_000);
  assert.deepEqual([(await jobs.find(id))?.state, (await jobs.find(id))?.attempts], ['queued', 0]);
  isBusy = false;
  await clock.advance(1000);
  assert.equal((await jobs.find(id))?.state, 'succeeded');
  isBusy = true;
  const late = await submit();
  await clock.advance(minute + 2000);
  assert.equal((await jobs.find(late))?.state, 'dead');
  await queue.stop(0);
});

test('jobs of a function that was removed are told so', async () => {
  const clock = new FakeClock();
  const jobs = createMemoryJobs();
  const gone = new GatewayError('FUNCTION_NOT_FOUND', 'a has been removed');
  const { queue, calls, submit } = buildQueue({
    ...{ jobs, clock, retry: six },
    invoke: () => Promise.reject(gone),
  });
  const id = await submit();
  await clock.advance(0);
  const job = (await jobs.find(id))!;
  assert.equal(job.state, 'failed');
  assert.equal((await calls.tell(job)).result?.failure?.code, 'FUNCTION_NOT_FOUND');
  await queue.stop(0);
});

test('what follows an end is there with it', async () => {
  const clock = new FakeClock();
  const jobs = createMemoryJobs();
  const { queue, submit } = buildQueue({
    ...{ jobs, clock, invoke: async () => answer(200, 'x') },
    async following({ job, state, body }) {
      assert.equal(state, 'succeeded');
      assert.equal(Buffer.from(body).toString(), 'x');
      const lane = { id: 'callback fn_a', runningMax: 1, waitingMax: 1 };
      const { namespace, functionId, priority } = job;
      const id = newId('inv', clock.now());
      const times = { acceptedMs: clock.now(), dueMs: clock.now() + minute };
      return [
        { id, kind: 'callback', namespace, functionId, priority, lane, ...times, parent: job.id },
      ];
    },
  });
  const id = await submit();
  await clock.advance(0);
  const all = await queue.list({ namespace: 'default', kind: 'callback', limit: 9 });
  assert.deepEqual(
    all.map(({ parent, state }) => [parent, state]),
    [[id, 'queued']],
  );
  await queue.stop(0);
});

test('whoever waits is told of the end, or when the time is over', async () => {
  const clock = new FakeClock();
  const { calls, invoke } = held();
  const { queue, submit } = buildQueue({ jobs: createMemoryJobs(), clock, invoke });
  const id = await submit();
  await clock.advance(0);
  const early = queue.waitFor(id, 1000);
  await clock.advance(1000);
  assert.equal((await early)?.state, 'running');
  const late = queue.waitFor(id, 30_000);
  await clock.advance(1);
  calls[0]!.reply(answer(200));
  assert.equal((await late)?.state, 'succeeded');
  assert.equal(await queue.waitFor('inv_none', 1000), undefined);
  await queue.stop(0);
});

test('what has ended goes in time', async () => {
  const clock = new FakeClock();
  const { queue, submit } = buildQueue({
    ...{ jobs: createMemoryJobs(), clock, retry: { ...six, attempts: 2, minDelayMs: 0 } },
    invoke: async ({ body }) =>
      answer(Buffer.from(body as Uint8Array).toString() === '' ? 200 : 500),
  });
  await queue.start();
  const [good, bad] = [await submit(), await submit('bad')];
  await clock.advance(59 * minute);
  assert.deepEqual(
    [(await queue.find(good))?.state, (await queue.find(bad))?.state],
    ['succeeded', 'dead'],
  );
  await clock.advance(3 * minute);
  assert.deepEqual(
    [(await queue.find(good))?.state, (await queue.find(bad))?.state],
    [undefined, 'dead'],
  );
  await clock.advance(60 * minute);
  assert.equal(await queue.find(bad), undefined);
  await queue.stop(0);
});

/** Bound, so that a test can put its own in place of one. */
function methodsOf(store: JobStore): JobStore {
  return Object.fromEntries(
    jobMethods.map(name => [name, (store[name] as (...args: unknown[]) => unknown).bind(store)]),
  ) as unknown as JobStore;
}
