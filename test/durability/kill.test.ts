/**
 * Goal: no accepted job is lost, doubled in its end, or stuck, however often the gateway is killed. Method: the real `fnway
 * serve` in a process of its own, real functions that write down each try, callers that go on calling; `kill -9` at random
 * moments, and a start on the same directory. FNWAY_TEST_KILLS=100 kills more often, FNWAY_TEST_SEED=7 at other moments.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from '../../client/client.ts';
import { randomOf } from './seeds.ts';
import { serveHere } from './serve.ts';

const kills = Number(process.env.FNWAY_TEST_KILLS ?? 20);
const callers = 12;

const random = randomOf(Number(process.env.FNWAY_TEST_SEED ?? 1));
const served = serveHere();

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

async function deployAll(client: Client): Promise<void> {
  const retries = { attempts: 50, minDelay: '5ms', maxDelay: '50ms' };
  for (const name of ['steady', 'flaky']) {
    const { function: view } = await client.putFunction(
      name,
      {
        runtime: 'node',
        auth: 'none',
        source: { files: { 'handler.mjs': code } },
        env: { TRIES: served.log, NAME: name },
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
async function noteSlots(client: Client, slots: Map<string, string>): Promise<void> {
  const { items } = await client.listSlots('secondly');
  for (const { at, outcome, invocation } of items) {
    assert.equal(outcome, 'fired', at);
    assert.equal(slots.get(at) ?? invocation, invocation, `slot ${at} has brought two`);
    slots.set(at, invocation!);
  }
}

async function waitForSlot(client: Client, slots: Map<string, string>): Promise<void> {
  const nowText = new Date().toISOString();
  for (let i = 0; i < 200 && [...slots.keys()].every(at => at < nowText); i++) {
    await sleep(50);
    await noteSlots(client, slots);
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
  let client = await served.start();
  await deployAll(client);
  for (let n = 0; n < kills; n++) {
    let isOver = false;
    const { url } = client;
    const calling = Array.from({ length: callers }, () => callOn(url, accepted, () => isOver));
    await sleep(50 + random() * 400);
    await served.kill();
    isOver = true;
    await Promise.all(calling);
    client = await served.start();
    await noteSlots(client, slots);
  }
  await waitForSlot(client, slots);
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
  for (const line of served.lines()) {
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
  assert.equal(await served.stop(), 0);
});
