/**
 * Accepting jobs of 500 bytes, and running them, with a sync of the disk for what is acknowledged: `POST /async-function`
 * beside BullMQ's `add` (Redis, appendfsync always) and pg-boss's `send` (PostgreSQL). The peers are called in their own
 * process, without HTTP. End to end is from the first job that is accepted to the last that has ended, in a real function of
 * ours and in a BullMQ worker's empty handler.
 */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { deploy, type GatewayUnderTest, hello, settled, startGateway } from '../lib/fnway.ts';
import type { QueueMeasured } from '../lib/queue-load.ts';
import type { Row } from '../lib/report.ts';
import { ratios } from '../lib/statistics.ts';
import { runWrk } from '../lib/wrk.ts';
import { addTo, startPostgres, startRedis, startWorker } from '../peers/queues.ts';
import type { SuiteOptions } from './suite.ts';

const jobBytes = 500;
const concurrency = 64;

export async function queue({
  report,
  directory,
  runs,
  seconds,
  tell,
}: SuiteOptions): Promise<void> {
  const data = join(directory, 'queue');
  const [redis, postgres] = [await startRedis(directory), await startPostgres(directory)];
  const gateway = await startGateway({ data });
  try {
    await deploy(gateway, 'hello', { ...hello, queue: { concurrency } });
    await settled(gateway.url);
    const taken = new Map<string, QueueMeasured[]>();
    const note = (name: string, measured: QueueMeasured) => {
      taken.set(name, [...(taken.get(name) ?? []), measured]);
      tell(
        `${name}: ${Math.round(measured.perSecond)}/s, p50 ${measured.p50Us} µs, p99 ${measured.p99Us} µs`,
      );
    };
    for (let run = 0; run < runs; run++) {
      for (const connections of [64, 1]) {
        const load = { connections, seconds };
        note(`fnway c=${connections}`, await accept(gateway, directory, load));
        note(`bullmq c=${connections}`, await addTo('bullmq', redis.address, load));
        if (connections === 64)
          note('pg-boss c=64', await addTo('pg-boss', postgres.address, load));
      }
      note('fnway whole', await wholeOfOurs(gateway, directory, seconds));
      note('bullmq whole', await wholeOfBullmq(redis.address, seconds));
    }
    const of = (name: string, what: keyof QueueMeasured) => taken.get(name)!.map(one => one[what]);
    const row = (measure: string, samples: number[], target: NonNullable<Row['target']>) =>
      report.row({ measure, samples, unit: '×', target });
    row(
      'accept, c=64, jobs/s: fnway / BullMQ add',
      ratios(of('fnway c=64', 'perSecond'), of('bullmq c=64', 'perSecond')),
      { atLeast: 1.5 },
    );
    row(
      'accept, c=64, jobs/s: fnway / pg-boss send',
      ratios(of('fnway c=64', 'perSecond'), of('pg-boss c=64', 'perSecond')),
      { atLeast: 9 },
    );
    row(
      'accept, c=1, p50: fnway / BullMQ add',
      ratios(of('fnway c=1', 'p50Us'), of('bullmq c=1', 'p50Us')),
      { atMost: 1 },
    );
    row(
      'accepted to settled, jobs/s: fnway / BullMQ',
      ratios(of('fnway whole', 'perSecond'), of('bullmq whole', 'perSecond')),
      { atLeast: 2 },
    );
    for (const name of taken.keys()) {
      report.row({ measure: `${name}: rate`, samples: of(name, 'perSecond'), unit: 'jobs/s' });
      if (!name.endsWith('whole'))
        report.row({ measure: `${name}: p99`, samples: of(name, 'p99Us'), unit: 'µs' });
    }
  } finally {
    await Promise.all([gateway.stop(), redis.stop(), postgres.stop()]);
  }
}

/** Jobs of an hour from now, so that none runs meanwhile: as the peers', which nobody works on. */
async function accept(
  gateway: GatewayUnderTest,
  directory: string,
  load: { connections: number; seconds: number },
): Promise<QueueMeasured> {
  const headers = { 'x-delay': '1h' };
  const url = `${gateway.url}/async-function/hello`;
  const { requests: jobs, ...rest } = await runWrk(
    url,
    { ...load, bodyBytes: jobBytes, headers },
    directory,
  );
  return { jobs, ...rest };
}

async function wholeOfOurs(
  gateway: GatewayUnderTest,
  directory: string,
  seconds: number,
): Promise<QueueMeasured> {
  const startMs = performance.now();
  const url = `${gateway.url}/async-function/hello`;
  const load = { connections: 64, seconds, bodyBytes: jobBytes };
  const { requests: jobs, p50Us, p99Us } = await runWrk(url, load, directory);
  // Those of an hour from now wait behind all others.
  for (;;) {
    const { items } = await gateway.client.listInvocations({ state: 'running', limit: 1 });
    if (items.length === 0) break;
    await sleep(20);
  }
  const perSecond = (jobs / (performance.now() - startMs)) * 1000;
  return { jobs, perSecond, p50Us, p99Us };
}

async function wholeOfBullmq(address: string, seconds: number): Promise<QueueMeasured> {
  const { Queue } = await import('bullmq');
  const queue = new Queue('bench', { connection: { host: '127.0.0.1', port: Number(address) } });
  // What the adding before has left.
  await queue.drain();
  const worker = await startWorker(address, concurrency);
  const startMs = performance.now();
  try {
    const { jobs, p50Us, p99Us } = await addTo('bullmq', address, { connections: 64, seconds });
    for (;;) {
      const { waiting, active } = await queue.getJobCounts('waiting', 'active');
      if (waiting! + active! === 0) break;
      await sleep(20);
    }
    const perSecond = (jobs / (performance.now() - startMs)) * 1000;
    return { jobs, perSecond, p50Us, p99Us };
  } finally {
    await worker.stop();
    await queue.close();
  }
}
