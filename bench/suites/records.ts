/**
 * What it costs that every call leaves a record and that bodies are held against schemas, as ratios to the same gateway
 * without; and how ten million records are searched, and dropped while calls go on.
 */
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { openSealer } from '../../src/auth/seal.ts';
import { newId } from '../../src/ids.ts';
import { ItemWriter } from '../../src/store/records/items.ts';
import { Series } from '../../src/store/records/series.ts';
import { sortIntoBlocks } from '../../src/store/records/worker.ts';
import { deploy, echo, hello, settled, startGateway } from '../lib/fnway.ts';
import { type Measured, manyRuns, oneConnection, takeTurns } from '../lib/load.ts';
import { ratios } from '../lib/statistics.ts';
import { runWrk } from '../lib/wrk.ts';
import type { SuiteOptions } from './suite.ts';

const recordsCount = 10_000_000;
const searchesEach = 9;

export async function records(options: SuiteOptions): Promise<void> {
  await measureRecording(options);
  await measureSchemas(options);
  await measureMillions(options);
}

const perSecond = (samples: Map<string, Measured[]>, name: string) =>
  samples.get(name)!.map(sample => sample.perSecond);

/** Two processes of one program differ by a twentieth for as long as they live: several pairs, and turns within each. */
const pairs = 4;

async function measureRecording({ report, directory, runs, seconds, tell }: SuiteOptions) {
  const samples: number[] = [];
  for (let pair = 0; pair < pairs; pair++) {
    const data = join(directory, `pair-${pair}`);
    const [on, off] = await Promise.all([
      startGateway({ data: `${data}-on` }),
      startGateway({ data: `${data}-off`, env: { FNWAY_RECORDS: 'false' } }),
    ]);
    try {
      for (const gateway of [on, off]) {
        await deploy(gateway, 'hello', hello);
        await settled(gateway.url);
      }
      const taken = await takeTurns(
        [
          { name: 'on', url: `${on.url}/function/hello`, pids: [on.pid] },
          { name: 'off', url: `${off.url}/function/hello`, pids: [off.pid] },
        ],
        { connections: 64, seconds: Math.min(seconds, 1) },
        { runs: 3 * runs, directory, tell },
      );
      samples.push(...ratios(perSecond(taken, 'on'), perSecond(taken, 'off')));
    } finally {
      await Promise.all([on.stop(), off.stop()]);
    }
  }
  report.row({
    measure: 'hello, c=64, req/s: with records / without',
    samples,
    unit: '×',
    target: { atLeast: 0.95 },
  });
}

/** A kilobyte of JSON, as events have it. */
const order = JSON.stringify({
  ...{ id: '9b2f', type: 'order.created', time: '2026-01-31T20:00:00Z', source: '/shop/eu' },
  customer: { id: 4711, name: 'Ada Lovelace', mail: 'ada@example.com' },
  ...{ total: 129.9, currency: 'EUR', tags: ['new', 'gift'] },
  note: 'x'.repeat(700),
}).padEnd(1024);

const orderSchema = {
  type: 'object',
  required: ['id', 'type', 'customer'],
  properties: {
    id: { type: 'string' },
    type: { type: 'string' },
    time: { type: 'string', format: 'date-time' },
    customer: {
      type: 'object',
      required: ['id', 'mail'],
      properties: { id: { type: 'integer' }, mail: { type: 'string', format: 'email' } },
    },
    total: { type: 'number', minimum: 0 },
    currency: { enum: ['EUR', 'USD'] },
    tags: { type: 'array', items: { type: 'string' } },
    note: { type: 'string', maxLength: 1000 },
  },
};

async function measureSchemas({ report, directory, runs, seconds, tell }: SuiteOptions) {
  const gateway = await startGateway({ data: join(directory, 'schemas') });
  try {
    await deploy(gateway, 'plain', echo);
    await deploy(gateway, 'checked', { ...echo, schema: { in: orderSchema } });
    await settled(gateway.url);
    const contestant = (name: string) => ({
      ...{ name, url: `${gateway.url}/function/${name}`, pids: [gateway.pid] },
    });
    const samples = await takeTurns(
      [contestant('checked'), contestant('plain')],
      { connections: 64, seconds, body: order },
      { runs: 2 * runs, directory, tell },
    );
    report.row({
      measure: 'echo of 1 KiB of JSON, c=64, req/s: with schema.in / without',
      samples: ratios(perSecond(samples, 'checked'), perSecond(samples, 'plain')),
      unit: '×',
      target: { atLeast: 0.95 },
    });
    const alone = await takeTurns(
      [contestant('checked'), contestant('plain')],
      { ...oneConnection, body: order },
      manyRuns({ runs, directory, tell }),
    );
    const p50 = (name: string) => alone.get(name)!.map(sample => sample.p50Us);
    report.row({
      measure: 'the same at c=1, p50: with schema.in / without',
      samples: ratios(p50('checked'), p50('plain')),
      unit: '×',
      target: { atMost: 1.05 },
    });
  } finally {
    await gateway.stop();
  }
}

async function measureMillions(options: SuiteOptions): Promise<void> {
  const { report, directory, tell } = options;
  const data = join(directory, 'millions');
  // The first one makes the data directory and the function that the records are of.
  const first = await startGateway({ data });
  await deploy(first, 'hello', hello);
  const { id } = await first.client.getFunction('hello');
  await first.stop();
  tell(`writing ${recordsCount} records`);
  const writtenMs = Date.now();
  const firstId = writeMillions(data, id);
  const env = { FNWAY_RECORDS_BYTES_MAX: '8Gi', FNWAY_RECORDS_KEPT: '30d' };
  const gateway = await startGateway({ data, env });
  try {
    const questions = {
      'of a function': { function: 'hello' },
      'with a rare status': { status: '418' },
      'that failed': { state: 'failed' as const },
      'of a version': { version: 3 },
      'of an hour': { since: '3h', until: '2h' },
      'with the start of an id': { prefix: firstId.slice(0, 20) },
    };
    for (const [name, query] of Object.entries(questions)) {
      const samples: number[] = [];
      for (let i = 0; i < searchesEach; i++) {
        const startMs = performance.now();
        const { items } = await gateway.client.listInvocations({ ...query, limit: 50 });
        samples.push(performance.now() - startMs);
        if (items.length === 0) throw new Error(`nothing was found ${name}`);
      }
      report.row({
        measure: `of 10 million records: 50 ${name}`,
        samples,
        unit: 'ms',
        target: { atMost: 50 },
      });
    }
  } finally {
    await gateway.stop();
  }
  await measureDrop(options, { data, writtenMs });
}

/** How often the gateway looks for what is too old; see retainMs. */
const retainEverySeconds = 60;

/**
 * The same data, of which all but the newest files become too old while the gateway is called: the same load before it looks
 * for them and while it does.
 */
async function measureDrop(
  { report, directory, tell }: SuiteOptions,
  { data, writtenMs }: { data: string; writtenMs: number },
): Promise<void> {
  const files = () =>
    readdirSync(join(data, 'records')).filter(name => /^records-\d+\.db$/.test(name)).length;
  const before = files();
  const keptSeconds = Math.ceil((Date.now() - writtenMs) / 1000) + 20;
  const env = { FNWAY_RECORDS_BYTES_MAX: '8Gi', FNWAY_RECORDS_KEPT: `${keptSeconds}s` };
  const gateway = await startGateway({ data, env });
  try {
    const url = `${gateway.url}/function/hello`;
    const load = { connections: 64, seconds: 6 };
    const startMs = performance.now();
    const dropping = watchDrop(files, before);
    await runWrk(url, { ...load, seconds: 2 }, directory);
    const quiet = await runWrk(url, load, directory);
    const waitMs = (retainEverySeconds - 3) * 1000 - (performance.now() - startMs);
    await new Promise(resolve => setTimeout(resolve, waitMs));
    const during = await runWrk(url, load, directory);
    const { beganMs, tookMs, left } = await dropping;
    tell(`p99 ${quiet.p99Us} µs before, ${during.p99Us} µs with the drop after ${beganMs} ms`);
    report.row({
      measure: `dropping ${before - left} of ${before} files of 10 million records`,
      samples: [tookMs],
      unit: 'ms',
      target: { atMost: 1000 },
    });
    report.row({
      measure: 'hello, c=64, p99: while they are dropped / before',
      samples: ratios([during.p99Us], [quiet.p99Us]),
      unit: '×',
      target: { atMost: 2 },
    });
  } finally {
    await gateway.stop();
  }
}

/** When the first file went, and how long until the last one had. */
async function watchDrop(files: () => number, before: number) {
  const startMs = performance.now();
  const pause = () => new Promise(resolve => setTimeout(resolve, 1));
  while (files() >= before) await pause();
  const beganMs = performance.now();
  let left = files();
  let goneMs = beganMs;
  while (performance.now() < beganMs + 1500) {
    if (files() < left) {
      left = files();
      goneMs = performance.now();
    }
    await pause();
  }
  return { beganMs: beganMs - startMs, tookMs: goneMs - beganMs, left };
}

/** A day of 10 million calls: one in a thousand fails, one in a hundred thousand has a rare status; three versions. */
function writeMillions(data: string, functionId: string): string {
  const directory = join(data, 'records');
  mkdirSync(directory, { recursive: true });
  const series = new Series({
    kind: 'records',
    directory,
    sealer: openSealer(join(data, 'key')),
    retention: { keptMs: 30 * 86_400_000, bytesMax: 8 * 1024 ** 3 },
    onTrouble: what => {
      throw new Error(what);
    },
  });
  const subject = { functionId, namespace: 'default', name: 'hello' };
  const nowMs = Date.now();
  const startMs = nowMs - 86_400_000;
  const perBatch = 600;
  let firstId = '';
  for (let n = 0; n < recordsCount; n += perBatch) {
    const writer = new ItemWriter(perBatch * 400);
    for (let i = n; i < n + perBatch && i < recordsCount; i++) {
      const failed = i % 1000 === 999;
      const id = newId('inv', Math.floor(startMs + (i / recordsCount) * 86_400_000));
      firstId ||= id;
      writer.record(
        {
          id,
          subject,
          version: 1 + Math.floor((i * 3) / recordsCount),
          status: failed ? 502 : i % 100_000 === 50_000 ? 418 : 200,
          state: failed ? 'failed' : 'succeeded',
          ...{ origin: 'http', caller: 'anonymous', attempt: 1, durationMs: 1.5 },
          ...{ method: 'GET', target: `/orders/${i}?page=2` },
          ...(failed && {
            failure: { kind: 'function' as const, code: 'FUNCTION_FAILED', message: 'it broke' },
          }),
        },
        0,
      );
    }
    const blocks = sortIntoBlocks(writer.bytes.subarray(0, writer.used), [subject]);
    series.insert([...blocks.records.values()], nowMs);
  }
  series.close();
  return firstId;
}
