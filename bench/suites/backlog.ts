/**
 * Much that waits, and much at once: how fast jobs are leased and settled with a million waiting beside a thousand, and with a
 * million kept that have ended; the memory and the start of such a gateway; what a tick of schedules costs with a hundred
 * thousand of them; one message for a thousand subscriptions; and what accepting does to synchronous calls. The first and the
 * third are asked of the store and the scheduler in this process: what they cost, not what is around them.
 */
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { createSealer } from '../../src/auth/seal.ts';
import { systemClock } from '../../src/clock.ts';
import { Resources } from '../../src/deploy/resources.ts';
import { scheduleSchema } from '../../src/domain/schedule.ts';
import { newId } from '../../src/ids.ts';
import { silentLog } from '../../src/log.ts';
import type { JobStore, NewJob } from '../../src/store/jobs.ts';
import { openQueue } from '../../src/store/sqlite/queue.ts';
import { openSqliteStore } from '../../src/store/sqlite/sqlite.ts';
import { Schedules } from '../../src/trigger/schedules.ts';
import { deploy, hello, settled, startGateway } from '../lib/fnway.ts';
import { startPaced } from '../lib/paced.ts';
import { median, ratios } from '../lib/statistics.ts';
import { runWrk } from '../lib/wrk.ts';
import type { SuiteOptions } from './suite.ts';

const many = 1_000_000;
const few = 1000;
const batch = 100;
const firstMs = Date.now();

export async function backlog(options: SuiteOptions): Promise<void> {
  const data = await waiting(options);
  await startWith(options, data);
  await ticks(options);
  await fanOut(options);
  await besideCalls(options);
}

let made = 0;

/** As if 20 had been accepted in each millisecond: ids of one moment are in no order. */
function jobs(count: number, lane: string): NewJob[] {
  const nowMs = Date.now();
  return Array.from({ length: count }, () => ({
    ...{
      id: newId('inv', firstMs + Math.floor(made++ / 20)),
      kind: 'call',
      namespace: 'default',
      functionId: lane,
    },
    lane: { id: lane, runningMax: 1000, waitingMax: 10_000_000 },
    ...{ priority: 4, acceptedMs: nowMs, dueMs: nowMs, sealedInput: new Uint8Array(500) },
  }));
}

async function fill(store: JobStore, count: number): Promise<void> {
  for (let left = count; left > 0; left -= 10_000)
    await store.enqueue(jobs(Math.min(left, 10_000), 'fn_many'), Date.now());
}

/** Leased and settled, a second. */
async function turnover(store: JobStore, rounds = 60): Promise<number> {
  const startMs = performance.now();
  for (let i = 0; i < rounds; i++) {
    const nowMs = Date.now();
    const { jobs: leased } = await store.claim({ limit: batch, nowMs, leaseMs: 30_000 });
    await store.settle(
      leased.map(({ id, lease }) => ({
        ...{ id, lease, nowMs, isCounted: true, next: [] },
        outcome: { kind: 'end', state: 'succeeded', keepsInput: false },
      })),
    );
    await store.enqueue(jobs(leased.length, 'fn_many'), nowMs);
  }
  return (rounds * batch) / ((performance.now() - startMs) / 1000);
}

async function waiting({ report, directory, runs, tell }: SuiteOptions): Promise<string> {
  const small = openQueue(join(directory, 'few.db'));
  const data = join(directory, 'many');
  // A gateway's own directory: another one's file in a new one is refused.
  await (await startGateway({ data })).stop();
  const large = openQueue(join(data, 'queue.db'));
  await fill(small.jobs, few);
  tell(`${many} jobs are accepted`);
  await fill(large.jobs, many);
  const rates = { few: [] as number[], many: [] as number[] };
  for (let run = 0; run < runs + 1; run++) {
    rates.few.push(await turnover(small.jobs));
    rates.many.push(await turnover(large.jobs));
  }
  report.row({
    ...{ measure: 'leased and settled, 1,000,000 waiting / 1,000', unit: '×' },
    ...{ samples: ratios(rates.many, rates.few), target: { atLeast: 0.8 } },
  });
  report.row({
    measure: 'leased and settled, 1,000,000 waiting',
    samples: rates.many,
    unit: 'jobs/s',
  });
  await small.close();
  await large.close();
  return data;
}

async function startWith({ report, tell }: SuiteOptions, data: string): Promise<void> {
  tell(`a start with ${many} jobs: ${Math.round(statSync(join(data, 'queue.db')).size / 1e6)} MB`);
  const gateway = await startGateway({ data });
  try {
    report.row({
      ...{ measure: 'start with 1,000,000 jobs waiting', unit: 'ms' },
      ...{ samples: [gateway.readyMs], target: { atMost: 5000 } },
    });
    const resident = () =>
      Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${gateway.pid}/status`, 'utf8'))![1]) / 1024;
    report.row({ measure: 'its resident memory', samples: [resident()], unit: 'MiB' });
  } finally {
    await gateway.stop();
  }
}

/** Milliseconds of a tick in which a hundred schedules are due. */
async function tickOf(count: number, directory: string): Promise<number[]> {
  const store = openSqliteStore({ path: join(directory, `ticks-${count}.db`) });
  let nowMs = Date.UTC(2030, 0, 1);
  let fire: (() => void) | undefined;
  const clock = {
    now: () => nowMs,
    monotonicMs: systemClock.monotonicMs,
    after: (_ms: number, fn: () => void) => {
      fire = fn;
      return { cancel() {} };
    },
  };
  const resources = new Resources({ store, sealer: createSealer(new Uint8Array(32)), clock });
  let fired = 0;
  const schedules = new Schedules({
    ...{ resources, clock, log: silentLog, queue: { look() {} } },
    // The store's part is measured above: here, what is around it.
    store: {
      ...store.schedules,
      fire: async firings => {
        fired += firings.length;
        return firings.map(({ slots }) =>
          slots.map(({ slotMs }) => ({ slotMs, outcome: 'fired', decidedMs: nowMs })),
        );
      },
    },
    calls: { jobOf: async () => jobs(1, 'fn_a')[0]! },
    functionOf: () => ({
      ...{ functionId: 'fn_a', namespace: 'default', name: 'a', retry: undefined },
      ...{ queue: undefined, instancesMax: 1, concurrency: 1 },
    }),
  });
  await schedules.start();
  const definition = (i: number) =>
    scheduleSchema.parse(
      i < 100
        ? { function: 'a', every: '1s' }
        : { function: 'a', cron: `${i % 60} ${i % 24} * * *`, timezone: 'Europe/Berlin' },
    );
  for (let i = 0; i < count; i++)
    await resources.put(
      'schedule',
      { namespace: 'default', name: `s-${i}` },
      { definition: definition(i), project: undefined },
    );
  const samples: number[] = [];
  for (let tick = 0; tick < 200; tick++) {
    nowMs += 1000;
    const before = fired;
    const startMs = performance.now();
    fire?.();
    while (fired < before + 100) await new Promise(resolve => setImmediate(resolve));
    samples.push(performance.now() - startMs);
  }
  await schedules.stop();
  await store.close();
  return samples.slice(20);
}

async function ticks({ report, directory, tell }: SuiteOptions): Promise<void> {
  const small = await tickOf(1000, directory);
  tell('100,000 schedules are made');
  const large = await tickOf(100_000, directory);
  report.row({
    ...{ measure: 'a tick of 100 schedules, of 100,000 / of 1,000', unit: '×' },
    ...{ samples: [median(large) / median(small)], target: { atMost: 1.5 } },
  });
  report.row({ measure: 'a tick of 100 of 100,000 schedules', samples: large, unit: 'ms' });
}

async function fanOut({ report, directory, tell }: SuiteOptions): Promise<void> {
  const gateway = await startGateway({ data: join(directory, 'fan-out') });
  try {
    const { client } = gateway;
    await client.resources('topics').put('wide', {});
    tell('1,000 subscriptions are made');
    for (let i = 0; i < 1000; i++)
      await client.resources('subscriptions').put(`s-${i}`, { topic: 'wide', pull: true });
    const samples: number[] = [];
    for (let i = 0; i < 20; i++) {
      const startMs = performance.now();
      await client.publish('wide', [{ data: Buffer.alloc(500).toString('base64') }]);
      samples.push(performance.now() - startMs);
    }
    report.row({ measure: 'publish to 1,000 subscriptions', samples, unit: 'ms' });
  } finally {
    await gateway.stop();
  }
}

/** Synchronous calls at 8 connections, alone and while others accept 2,000 jobs a second. */
async function besideCalls({
  report,
  directory,
  runs,
  seconds,
  tell,
}: SuiteOptions): Promise<void> {
  const gateway = await startGateway({ data: join(directory, 'beside') });
  try {
    await deploy(gateway, 'hello', hello);
    await deploy(gateway, 'later', hello);
    await settled(gateway.url);
    const load = { connections: 8, seconds: Math.max(3, seconds) };
    const calls = () => runWrk(`${gateway.url}/function/hello`, load, directory);
    // For an hour from now: accepted, and not run.
    const later = { path: '/async-function/later', headers: ['X-Delay: 1h'], bodyBytes: 500 };
    const [alone, beside]: number[][] = [[], []];
    for (let run = 0; run < runs + 1; run++) {
      alone!.push((await calls()).p99Us);
      const accepting = await startPaced({ ...later, url: gateway.url, perSecond: 2000 });
      beside!.push((await calls()).p99Us);
      tell(`${await accepting.stop()} jobs a second were accepted meanwhile`);
    }
    report.row({
      ...{ measure: 'p99 of calls while 2,000 jobs/s are accepted / alone', unit: '×' },
      ...{ samples: ratios(beside!, alone!), target: { atMost: 2 } },
    });
  } finally {
    await gateway.stop();
  }
}
