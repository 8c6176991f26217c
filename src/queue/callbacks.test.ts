/** Goal: a callback is tried until it is taken, and given up in the open. Method: the queue over memory, a target of the test's. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createSealer } from '../auth/seal.ts';
import { createMemoryBlobs } from '../blob/memory.ts';
import { GatewayError } from '../errors.ts';
import { silentLog } from '../log.ts';
import { createMemoryJobs } from '../store/memory-jobs.ts';
import { FakeClock } from '../testing/fake-clock.ts';
import { Callbacks, callbackRetry, representationOf, sign, signingKeyOf } from './callbacks.ts';
import type { OutboundAnswer } from './outbound.ts';
import { Payloads } from './payloads.ts';
import { Queue } from './queue.ts';

const sealer = createSealer(new Uint8Array(32));
const down = new GatewayError('UPSTREAM_UNREACHABLE', 'example.com does not answer');

/** A callback that waits, and a target that does what it is told. */
async function start(target: (n: number) => Promise<OutboundAnswer>) {
  const clock = new FakeClock();
  const startMs = clock.now();
  const jobs = createMemoryJobs();
  const payloads = new Payloads({ sealer, blobs: createMemoryBlobs() });
  const posts: Array<{ atMs: number; headers: Record<string, string>; body: string }> = [];
  const callbacks = new Callbacks({
    noticesOf: async () => [],
    ...{ payloads, clock, log: silentLog, random: () => 0 },
    signingKeyOf: () => 'key',
    outbound: {
      async post(_url, { headers, body }) {
        posts.push({ atMs: clock.now() - startMs, headers, body: Buffer.from(body).toString() });
        return target(posts.length);
      },
    },
  });
  const queue = new Queue({
    ...{ jobs, run: callbacks.run, clock, log: silentLog, isAlone: true },
    removeBlobs: blobs => payloads.remove(blobs),
    keptMs: { ended: 1e9, dead: 1e9 },
  });
  const common = { namespace: 'default', functionId: 'fn_a', priority: 4, attempts: 0, lost: 0 };
  const [next] = await callbacks.following({
    job: { ...common, id: 'inv_call', kind: 'call', acceptedMs: 0, lane: 'fn_a', lease: 1 },
    head: {
      ...{ name: 'a', method: 'POST', target: '/', headers: [], caller: 'admin', traceparent: 't' },
      callbackUrl: 'http://example.com/done',
    },
    result: {
      ...{ about: undefined, attempts: [], status: 200, durationMs: 1500 },
      headers: ['Content-Type', 'text/plain', 'Content-Encoding', 'gzip', 'X-Own', 'no'],
    },
    ...{ body: Buffer.from('the body'), state: 'succeeded' },
  });
  return { clock, jobs, queue, posts, next: next! };
}

test('a target that is down is tried again, further and further apart, until it takes it', async () => {
  const { clock, jobs, queue, posts, next } = await start(async n => {
    if (n < 3) throw down;
    return { status: n === 3 ? 302 : 204, retryAfter: undefined };
  });
  await queue.submit([next]);
  await clock.advance(60_000);
  assert.deepEqual(
    posts.map(({ atMs }) => atMs),
    [0, 5000, 15_000, 35_000],
  );
  assert.equal((await jobs.find(next.id))?.state, 'succeeded');
  const { headers, body } = posts[0]!;
  assert.equal(body, 'the body');
  assert.equal(headers['Content-Encoding'], 'gzip');
  assert.equal(headers['X-Fnway-Invocation'], 'inv_call');
  assert.equal(headers['X-Duration-Seconds'], '1.500000');
  assert.ok(!('X-Own' in headers));
  await queue.stop(0);
});

test('ten times, then it is dead, with what it had to say', async () => {
  const { clock, jobs, queue, posts, next } = await start(async () => {
    throw down;
  });
  await queue.submit([next]);
  await clock.advance(3_600_000);
  assert.equal(posts.length, callbackRetry.attempts);
  const job = (await jobs.find(next.id))!;
  assert.equal(job.state, 'dead');
  assert.notEqual(job.sealedInput, undefined);
  await queue.stop(0);
});

test('one that three gateways have died with is not sent once more', async () => {
  const { clock, jobs, queue, posts, next } = await start(async () => ({
    ...{ status: 200, retryAfter: undefined },
  }));
  await jobs.enqueue([next], clock.now());
  for (let i = 0; i < 3; i++) {
    await jobs.claim({ limit: 1, nowMs: clock.now(), leaseMs: 1000 });
    await jobs.recover(clock.now());
  }
  await queue.start();
  await clock.advance(10);
  assert.equal((await jobs.find(next.id))?.state, 'dead');
  assert.equal(posts.length, 0);
  await queue.stop(0);
});

test('one whose input is damaged ends, as one that nobody takes', async () => {
  const { clock, jobs, queue, posts, next } = await start(async () =>
    assert.fail('it is not sent'),
  );
  const { inputBlob: _, ...facts } = next;
  await queue.submit([{ ...facts, sealedInput: Uint8Array.of(1, 2, 3) }]);
  await clock.advance(3_600_000);
  assert.equal((await jobs.find(next.id))?.state, 'dead');
  assert.equal(posts.length, 0);
  await queue.stop(0);
});

test('keys differ by function, signatures by time and body', () => {
  assert.notEqual(signingKeyOf('fn_a', sealer), signingKeyOf('fn_b', sealer));
  const body = Buffer.from('x');
  const signed = sign('key', 1_700_000_000_123, body);
  // echo -n 1700000000.x | openssl dgst -sha256 -hmac key
  const expected = 'b6bc421fa47f18834e8d544c49e64c37f1c92a65ea85baf357cf40cd85a1f311';
  assert.equal(signed, `t=1700000000,v1=${expected}`);
  assert.notEqual(sign('key', 1_700_000_001_123, body), signed);
  assert.notEqual(sign('key', 1_700_000_000_123, Buffer.from('y')), signed);
  assert.deepEqual(representationOf(['content-TYPE', 'a', 'x', 'b']), { 'content-TYPE': 'a' });
});
