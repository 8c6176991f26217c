/**
 * Goal: a tree of processes over its memory limit is noticed at the next look, and a look comes every 100 ms. Method:
 * time is moved by hand; the processes are real and grow when they are told to, so that what is true at each look is
 * known.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { afterEach, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { FakeClock } from '../../testing/fake-clock.ts';
import { waitFor } from '../../testing/wait-for.ts';
import type { Cgroup } from './cgroup.ts';
import { limitMemory, memoryCheckMs } from './memory.ts';

const mebi = 1024 ** 2;
const limit = 200 * mebi;
const running = new Set<{ kill(signal: 'SIGKILL'): boolean }>();
afterEach(() => {
  // The shells that have processes below them pass the end of their input on.
  for (const child of running) child.kill('SIGKILL');
  running.clear();
});

/** A process, and one below it, that each take 8 MiB more than they have up to what they are told. */
const code = `
const { spawn } = require('child_process');
const kept = [];
const isParent = process.argv[1] === 'parent';
const child = isParent && spawn(process.execPath, ['-e', process.env.CODE, 'child'],
  { stdio: ['pipe', 'pipe', 'ignore'] });
if (child) child.stdout.on('data', chunk => process.stdout.write(chunk));
else console.log('ready');
process.stdin.on('end', () => process.exit());
require('readline').createInterface({ input: process.stdin }).on('line', line => {
  const [who, mebi] = line.split(' ');
  if (isParent && who === 'child') return child.stdin.write(line + '\\n');
  kept.push(Buffer.alloc(mebi * 1024 ** 2, 1));
  console.log('has ' + mebi);
});`;

async function startTree() {
  const child = spawn(process.execPath, ['-e', code, 'parent'], {
    stdio: ['pipe', 'pipe', 'ignore'],
    env: { ...process.env, CODE: code },
  });
  running.add(child);
  let text = '';
  child.stdout.on('data', chunk => {
    text += chunk;
  });
  const said = (what: string) => waitFor(() => text.includes(`${what}\n`), { what });
  await said('ready');
  return {
    pid: child.pid!,
    async grow(who: 'parent' | 'child', size: number) {
      text = '';
      child.stdin.write(`${who} ${size}\n`);
      await said(`has ${size}`);
    },
  };
}

/** A bound tree, and how often it was said to be over. */
function bind(memory: ReturnType<typeof limitMemory>, pid: number, memoryBytes = limit) {
  const seen = { times: 0 };
  const onOverLimit = () => {
    seen.times++;
  };
  return { seen, bound: memory.bound({ pid, memoryBytes, onOverLimit }) };
}

test('a process over its limit is noticed at the next look, and once', async () => {
  const clock = new FakeClock();
  const tree = await startTree();
  const { seen, bound } = bind(limitMemory(clock), tree.pid);
  await clock.advance(1000);
  assert.equal(seen.times, 0, 'it is within its limit');
  assert.equal(bound.exceeded(), false);
  await tree.grow('parent', 220);
  await clock.advance(99);
  assert.equal(seen.times, 0, 'nobody looks between two looks');
  await clock.advance(1);
  assert.equal(seen.times, 1);
  assert.equal(bound.exceeded(), true);
  await clock.advance(1000);
  assert.equal(seen.times, 1, 'the owner was told already');
  bound.release();
});

test('every 100 ms there is a look, and none once nothing is bound', async () => {
  const clock = new FakeClock();
  const tree = await startTree();
  assert.equal(memoryCheckMs, 100);
  const memory = limitMemory(clock);
  assert.equal(clock.pending, 0);
  const { bound } = bind(memory, tree.pid);
  for (let look = 1; look <= 5; look++) {
    // A tree that is over from the start is told at the very next look, whichever that is.
    const over = bind(memory, tree.pid, 1);
    await clock.advance(99);
    assert.equal(over.seen.times, 0, `look ${look} comes early`);
    await clock.advance(1);
    assert.equal(over.seen.times, 1, `look ${look} is missing`);
    over.bound.release();
  }
  bound.release();
  await clock.advance(100);
  assert.equal(clock.pending, 0);
});

test('processes of a tree count together, and those of another tree do not', async () => {
  const clock = new FakeClock();
  const [grows, stays] = [await startTree(), await startTree()];
  const memory = limitMemory(clock);
  const one = bind(memory, grows.pid, 300 * mebi);
  const other = bind(memory, stays.pid, 300 * mebi);
  await grows.grow('parent', 110);
  await clock.advance(100);
  assert.equal(one.seen.times, 0, 'neither process is over, nor are both');
  await grows.grow('child', 110);
  await clock.advance(100);
  assert.deepEqual([one.seen.times, other.seen.times], [1, 0]);
  assert.deepEqual([one.bound.exceeded(), other.bound.exceeded()], [true, false]);
  one.bound.release();
  other.bound.release();
});

test('a tree that was released is looked at no more', async () => {
  const clock = new FakeClock();
  const tree = await startTree();
  const { seen, bound } = bind(limitMemory(clock), tree.pid, 1);
  bound.release();
  await clock.advance(1000);
  assert.equal(seen.times, 0);
});

test('a tree in a control group costs no look at the machine, and is looked at now and then', async () => {
  const clock = new FakeClock();
  let resident = 10;
  let reads = 0;
  const cgroup: Cgroup = {
    limit: () => true,
    adopt: () => assert.fail('it was enclosed before its code ran'),
    outOfMemory: () => false,
    residentBytes() {
      reads++;
      return resident;
    },
    release() {},
  };
  let times = 0;
  const bound = limitMemory(clock).bound({
    pid: 1,
    memoryBytes: 100,
    enclosed: Promise.resolve(cgroup),
    onOverLimit: () => times++,
  });
  await clock.advance(1000);
  assert.deepEqual([times, reads], [0, 2]);
  resident = 101;
  await clock.advance(499);
  assert.equal(times, 0);
  await clock.advance(1);
  assert.equal(times, 1);
  assert.equal(bound.exceeded(), true);
  bound.release();
});

test('a tree whose group comes late is looked at until all of it is in there', async () => {
  const clock = new FakeClock();
  const tree = await startTree();
  const late = Promise.withResolvers<Cgroup>();
  const adopted = Promise.withResolvers<void>();
  let adoptions = 0;
  const cgroup: Cgroup = {
    limit: () => true,
    adopt() {
      adoptions++;
      return adopted.promise;
    },
    outOfMemory: () => false,
    residentBytes: () => 1,
    release() {},
  };
  let times = 0;
  const bound = limitMemory(clock).bound({
    pid: tree.pid,
    memoryBytes: limit,
    enclosed: late.promise,
    onOverLimit: () => times++,
  });
  await setImmediate();
  late.resolve(cgroup);
  await waitFor(() => adoptions === 1);
  await clock.advance(1000);
  assert.equal(times, 0);
  await tree.grow('child', 220);
  await clock.advance(100);
  assert.equal(times, 1);
  adopted.resolve();
  bound.release();
});
