/**
 * Goal: no accepted job is lost, doubled in its end, or stuck, however often the gateway is killed. Method: the real `fnway
 * serve` in a process of its own, real functions that write down each try, callers that go on calling; `kill -9` at random
 * moments, and a start on the same directory. FNWAY_TEST_KILLS=100 kills more often, FNWAY_TEST_SEED=7 at other moments.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createClient } from '../../client/client.ts';

const cli = join(import.meta.dirname, '../../src/cli/cli.ts');
const kills = Number(process.env.FNWAY_TEST_KILLS ?? 20);
const callers = 12;

let seed = Number(process.env.FNWAY_TEST_SEED ?? 1);
/** A linear congruence: moments that can be had again, as far as a machine lets them. */
function random(): number {
  seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
  return seed / 4_294_967_296;
}

const root = mkdtempSync(join(tmpdir(), 'fnway-durability-'));
chmodSync(root, 0o755);
const data = join(root, 'data');
const written = join(root, 'tries');
mkdirSync(written);
chmodSync(written, 0o777);
const triesFile = join(written, 'log');
writeFileSync(triesFile, '');
chmodSync(triesFile, 0o666);

let child: ChildProcess | undefined;
after(() => {
  child?.kill('SIGKILL');
  rmSync(root, { recursive: true, force: true });
});

async function serve(): Promise<string> {
  const started = spawn(
    process.execPath,
    [cli, 'serve', '--data', data, '--port', '0', '--log-level', 'warn'],
    { stdio: ['ignore', 'pipe', 'pipe'], env: { PATH: process.env.PATH, FNWAY_WARM: '1' } },
  );
  child = started;
  let text = '';
  for (const stream of [started.stdout, started.stderr])
    stream!.on('data', chunk => {
      text += chunk;
    });
  for (let waitedMs = 0; waitedMs < 20_000 && started.exitCode === null; waitedMs += 10) {
    const url = /http:\/\/127\.0\.0\.1:\d+/.exec(text)?.[0];
    if (url !== undefined) return url;
    await sleep(10);
  }
  throw new Error(`the gateway did not start:\n${text}`);
}

async function kill(): Promise<void> {
  child!.kill('SIGKILL');
  await once(child!, 'exit');
}

const clientOf = (url: string) =>
  createClient({ url, token: readFileSync(join(data, 'admin.token'), 'utf8').trim() });

/** Writes down each try before it does anything. `flaky` fails a third of them. */
const code = `import { appendFileSync } from 'node:fs';
let calls = 0;
export default async (request) => {
  const id = request.headers.get('x-call-id');
  const body = await request.text();
  appendFileSync(process.env.TRIES, id + ' ' + process.env.NAME + '\\n');
  await new Promise(resolve => setTimeout(resolve, 5));
  if (process.env.NAME === 'flaky' && calls++ % 3 === 0) throw new Error('this time not');
  return new Response(body);
};`;

async function deployAll(url: string): Promise<void> {
  const client = clientOf(url);
  const retries = { attempts: 50, minDelay: '5ms', maxDelay: '50ms' };
  for (const name of ['steady', 'flaky']) {
    const { function: view } = await client.putFunction(
      name,
      {
        runtime: 'node',
        auth: 'none',
        source: { files: { 'handler.mjs': code } },
        env: { TRIES: triesFile, NAME: name },
        retry: retries,
        // What a kill meets three times is lost for good: few at a time.
        queue: { concurrency: 4 },
      },
      { wait: '60s' },
    );
    assert.equal(view.state, 'ready');
  }
  const start = new Date(Math.floor(Date.now() / 1000) * 1000).toISOString();
  await client.resources('schedules').put('secondly', {
    ...{ function: 'steady', start, every: '1s', catchUp: 'all', catchUpMax: 1000 },
  });
}

/** Calls for as long as it goes; notes what got a 202. */
async function callOn(url: string, accepted: Map<string, string>, isOver: () => boolean) {
  for (let n = 0; !isOver(); n++) {
    const body = `${n}-${random()}`;
    const headers: Record<string, string> = random() < 0.2 ? { 'x-delay': '200ms' } : {};
    try {
      const name = random() < 0.5 ? 'steady' : 'flaky';
      const init = { method: 'POST', body, headers };
      const response = await fetch(`${url}/async-function/${name}`, init);
      // Read to its end: only then has it been answered.
      const { id } = (await response.json()) as { id: string };
      if (response.status === 202) accepted.set(id, body);
    } catch {
      // The gateway is gone: it may have been accepted or not.
    }
  }
}

/** Slot by slot, the invocation that it has brought. */
async function noteSlots(url: string, slots: Map<string, string>): Promise<void> {
  const { items } = await clientOf(url).listSlots('secondly');
  for (const { at, outcome, invocation } of items) {
    assert.equal(outcome, 'fired', at);
    assert.equal(slots.get(at) ?? invocation, invocation, `slot ${at} has brought two`);
    slots.set(at, invocation!);
  }
}

async function waitForSlot(url: string, slots: Map<string, string>): Promise<void> {
  const nowText = new Date().toISOString();
  for (let i = 0; i < 200 && [...slots.keys()].every(at => at < nowText); i++) {
    await sleep(50);
    await noteSlots(url, slots);
  }
}

/** None is missing, and no two have brought the same. */
function checkSlots(slots: Map<string, string>): void {
  const times = [...slots.keys()].map(at => Date.parse(at)).sort((a, b) => a - b);
  assert.deepEqual(
    times,
    times.map((_, i) => times[0]! + 1000 * i),
  );
  assert.equal(new Set(slots.values()).size, slots.size);
  assert.ok(slots.size >= kills / 4, `${slots.size} slots`);
}

test(`${kills} times kill -9 while jobs are accepted and run`, { timeout: 600_000 }, async t => {
  const accepted = new Map<string, string>();
  const slots = new Map<string, string>();
  let url = await serve();
  await deployAll(url);
  for (let n = 0; n < kills; n++) {
    let isOver = false;
    const calling = Array.from({ length: callers }, () => callOn(url, accepted, () => isOver));
    await sleep(50 + random() * 400);
    await kill();
    isOver = true;
    await Promise.all(calling);
    url = await serve();
    await noteSlots(url, slots);
  }
  const client = clientOf(url);
  await waitForSlot(url, slots);
  checkSlots(slots);
  const ended = new Map<string, string>();
  for (const id of accepted.keys()) {
    const view = await client.getInvocation(id, { wait: '60s' });
    ended.set(id, view.state);
  }
  const unlucky = [...ended].filter(([, state]) => state !== 'succeeded');
  // Three gateways that die with one job is what JOB_LOST is for.
  for (const [id, state] of unlucky) {
    assert.equal(state, 'dead', id);
    assert.equal((await client.getInvocation(id)).failure?.code, 'JOB_LOST');
  }
  assert.ok(unlucky.length < accepted.size / 20, `${unlucky.length} of ${accepted.size}`);
  const tries = new Map<string, number>();
  for (const line of readFileSync(triesFile, 'utf8').trimEnd().split('\n')) {
    const [id] = line.split(' ');
    tries.set(id!, (tries.get(id!) ?? 0) + 1);
  }
  for (const [id, body] of accepted) {
    if (ended.get(id) !== 'succeeded') continue;
    assert.ok((tries.get(id) ?? 0) >= 1, `${id} has succeeded without a try`);
    assert.equal(await (await client.getResult(id)).text(), body);
  }
  // Nothing waits for anything.
  for (const state of ['queued', 'running'] as const)
    assert.deepEqual((await client.listInvocations({ state })).items, []);
  assert.ok(accepted.size > kills * 10, `${accepted.size} were accepted`);
  const sum = [...tries.values()].reduce((all, count) => all + count, 0);
  t.diagnostic(
    `${accepted.size} accepted, ${sum} tries, ${unlucky.length} lost too often, ${slots.size} slots`,
  );
  child!.kill('SIGTERM');
  await once(child!, 'exit');
  assert.equal(child!.exitCode, 0);
});
