/**
 * Goal: a cold call is quick because a process is there before it. Method: the processes of a gateway at rest are
 * noted from /proc; the pid that a function then reports of itself must be one of them.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { javascript, python, startTestGateway, waitFor } from '../../src/testing/index.ts';

const gateway = await startTestGateway({ shared: true, settings: { warm: '2' } });
const { call, put, client } = gateway;
/** An instance ends as soon as nobody calls it, so that the next call is a cold one. */
const restless = { instances: { max: 1, idle: '1ms' } };

async function metric(line: string): Promise<number> {
  const text = await (await call('/metrics')).text();
  const found = text.split('\n').find(other => other.startsWith(`${line} `));
  return Number(found?.slice(line.length + 1) ?? 0);
}

function parentOf(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(/^PPid:\s+(\d+)$/m.exec(status)![1]);
}

/** Waits until no instance of the function is left and the pools are full; then every process is a warm one. */
async function atRest(name: string): Promise<number[]> {
  return waitFor(async () => {
    const { running } = await client.getFunction(name);
    if (running!.ready + running!.busy + running!.starting > 0) return undefined;
    for (const runtime of ['node', 'python'])
      if ((await metric(`fnway_warm_processes{runtime="${runtime}"}`)) !== 2) return undefined;
    return gateway.processes();
  });
}

/** What a cold call says of its process, and the processes that there were before it. */
async function coldCall(name: string): Promise<{ pid: number; parent: number; before: number[] }> {
  const starts = `fnway_cold_starts_total{namespace="default",function="${name}"}`;
  const before = await atRest(name);
  const startsBefore = await metric(starts);
  const [pid, parent] = (await (await call(`/function/${name}`)).json()) as [number, number];
  assert.equal(await metric(starts), startsBefore + 1, 'the call was not a cold one');
  return { pid, parent, before };
}

test('a cold call of a Node function runs in a process that was there before it', async () => {
  const code = 'export default () => Response.json([process.pid, process.ppid]);';
  await put('node', javascript(code, restless));
  const first = await coldCall('node');
  assert.ok(first.before.includes(first.pid), `${first.pid} of ${first.before}`);
  const second = await coldCall('node');
  assert.ok(second.before.includes(second.pid), `${second.pid} of ${second.before}`);
  assert.notEqual(second.pid, first.pid, 'an instance that has ended answered');
});

test('a cold call of a Python function runs in a child that the fork server had ready', async () => {
  const code = 'import os\ndef handle(event, context):\n    return [os.getpid(), os.getppid()]';
  await put('python', python(code, restless));
  const { pid, parent, before } = await coldCall('python');
  assert.ok(before.includes(pid), `${pid} of ${before}`);
  assert.ok(before.includes(parent), 'the fork server was there as well');
  assert.equal(parentOf(parent), process.pid, 'the gateway is the parent of the fork server');
});
