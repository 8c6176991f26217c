/**
 * The queues beside ours, each with a sync of the disk for what it acknowledges. As programs:
 *
 *   node queues.ts add    bullmq|pg-boss ADDRESS CONNECTIONS SECONDS   adds jobs of 500 bytes; prints what it measured
 *   node queues.ts work   bullmq ADDRESS CONCURRENCY                   runs them; prints how many so far, ten times a second
 */
import { spawnSync } from 'node:child_process';
import { chownSync, mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePort } from '../lib/http.ts';
import { type Started, start } from '../lib/processes.ts';
import type { QueueMeasured } from '../lib/queue-load.ts';

export type QueuePeer = 'bullmq' | 'pg-boss';

/** Redis that syncs what it acknowledges. */
export async function startRedis(
  directory: string,
): Promise<{ address: string; stop(): Promise<void> }> {
  const port = await freePort();
  const settings = ['--port', String(port), '--bind', '127.0.0.1', '--dir', directory];
  const durable = ['--appendonly', 'yes', '--appendfsync', 'always', '--save', ''];
  const started = start(['redis-server', ...settings, ...durable], { name: 'Redis' });
  await started.firstLine;
  await sleep(500);
  return { address: String(port), stop: started.stop };
}

/** PostgreSQL as it comes: it syncs at every commit. */
export async function startPostgres(
  directory: string,
): Promise<{ address: string; stop(): Promise<void> }> {
  const port = await freePort();
  const data = join(directory, 'postgres');
  mkdirSync(data, { recursive: true });
  const isRoot = process.getuid?.() === 0;
  if (isRoot) {
    const { uid, gid } = statSync('/var/lib/postgresql');
    chownSync(data, uid, gid);
  }
  const as = isRoot ? ['runuser', '-u', 'postgres', '--'] : [];
  const bin = spawnSync('sh', ['-c', 'ls -d /usr/lib/postgresql/*/bin'], { encoding: 'utf8' });
  const program = (name: string) => join(bin.stdout.trim().split('\n').at(-1)!, name);
  const made = spawnSync(
    'env',
    [...as, program('initdb'), '-A', 'trust', '-U', 'postgres', '-D', data],
    { encoding: 'utf8' },
  );
  if (made.status !== 0) throw new Error(`initdb: ${made.stderr}`);
  const options = ['-p', String(port), '-k', data, '-c', 'listen_addresses=127.0.0.1'];
  const started: Started = start([...as, program('postgres'), '-D', data, ...options], {
    name: 'PostgreSQL',
  });
  await sleep(3000);
  return { address: `postgres://postgres@127.0.0.1:${port}/postgres`, stop: started.stop };
}

/** What one who adds jobs without a pause has measured. */
export async function addTo(
  peer: QueuePeer,
  address: string,
  load: { connections: number; seconds: number },
): Promise<QueueMeasured> {
  const { connections, seconds } = load;
  const args = ['add', peer, address, String(connections), String(seconds)];
  const adder = start([process.execPath, import.meta.filename, ...args], { name: peer });
  return JSON.parse(await adder.firstLine) as QueueMeasured;
}

/** A process that runs jobs; `done` tells how many. */
export async function startWorker(
  address: string,
  concurrency: number,
): Promise<{ stop(): Promise<void> }> {
  const args = ['work', 'bullmq', address, String(concurrency)];
  const worker = start([process.execPath, import.meta.filename, ...args], { name: 'a worker' });
  await worker.firstLine;
  return { stop: worker.stop };
}

const body = 'x'.repeat(500);

async function adderOf(peer: string, address: string): Promise<() => Promise<unknown>> {
  if (peer === 'bullmq') {
    const { Queue } = await import('bullmq');
    const queue = new Queue('bench', { connection: { host: '127.0.0.1', port: Number(address) } });
    await queue.waitUntilReady();
    const options = { removeOnComplete: true };
    return () => queue.add('job', { body }, options);
  }
  const { PgBoss } = await import('pg-boss');
  const boss = new PgBoss(address);
  boss.on('error', () => {});
  await boss.start();
  await boss.createQueue('bench');
  return () => boss.send('bench', { body });
}

async function add(
  peer: string,
  address: string,
  connections: number,
  seconds: number,
): Promise<void> {
  const addOne = await adderOf(peer, address);
  const samples: number[] = [];
  const startMs = performance.now();
  const endMs = startMs + seconds * 1000;
  async function loop(): Promise<void> {
    for (let now = performance.now(); now < endMs; ) {
      await addOne();
      const then = performance.now();
      samples.push(then - now);
      now = then;
    }
  }
  await Promise.all(Array.from({ length: connections }, loop));
  const tookMs = performance.now() - startMs;
  samples.sort((a, b) => a - b);
  const us = (share: number) => Math.round(1000 * samples[Math.floor(samples.length * share)]!);
  const measured = {
    ...{ jobs: samples.length, perSecond: (samples.length / tookMs) * 1000 },
    ...{ p50Us: us(0.5), p99Us: us(0.99) },
  } satisfies QueueMeasured;
  process.stdout.write(`${JSON.stringify(measured)}\n`);
  process.exit(0);
}

async function work(address: string, concurrency: number): Promise<void> {
  const { Worker } = await import('bullmq');
  const connection = { host: '127.0.0.1', port: Number(address) };
  const worker = new Worker('bench', async () => 'Hello world\n', { connection, concurrency });
  await worker.waitUntilReady();
  process.stdout.write('ready\n');
}

if (process.argv[1] === import.meta.filename) {
  const [role, peer, address, count, seconds] = process.argv.slice(2) as [
    string,
    string,
    string,
    string,
    string,
  ];
  process.stdin.once('end', () => process.exit(0)).resume();
  if (role === 'add') await add(peer, address, Number(count), Number(seconds));
  else await work(address, Number(count));
}
