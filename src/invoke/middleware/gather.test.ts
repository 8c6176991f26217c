/**
 * Goal: a call whose handler needs its body whole takes no place before that has come, within bounds for one body and for
 * all. Method: a scripted Invoke below, bodies pushed by hand.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PushedBody } from '../../body.ts';
import { mockCall, mockVersion } from '../../driver/mock.ts';
import { GatewayError } from '../../errors.ts';
import { FakeClock, settle } from '../../testing/fake-clock.ts';
import { TimerWheel } from '../../timer-wheel.ts';
import { type Call, CallSignal, emptyBody, type Invoke, isStream, type Reply } from '../invoke.ts';
import { deadline } from './deadline.ts';
import { gather } from './gather.ts';

const ok: Reply = { status: 200, headers: [], body: emptyBody };
const left = new GatewayError('CALL_CANCELLED', 'left');

function bench(options: { needsWhole?: boolean; totalBytesMax?: number; bytesMax?: number } = {}) {
  const { needsWhole = true, totalBytesMax, bytesMax = 100 } = options;
  const taken: Call[] = [];
  const below = new Set<(reply: Reply) => void>();
  const next: Invoke = call => {
    taken.push(call);
    return new Promise(resolve => below.add(resolve));
  };
  const invoke = gather({
    needsWhole: () => needsWhole,
    bufferedBodyBytesMax: bytesMax,
    ...(totalBytesMax !== undefined && { totalBytesMax }),
  })(next);
  const answer = () => {
    for (const resolve of below) resolve(ok);
    below.clear();
  };
  return { invoke, taken, answer };
}

function streamed(headers: string[] = []) {
  const events: string[] = [];
  const body = new PushedBody({
    onRead: bytes => events.push(`read ${bytes}`),
    onCancel: reason => events.push(`cancel ${reason.message}`),
  });
  return { call: mockCall(mockVersion({}, { timeoutMs: 100 }), { body, headers }), body, events };
}

async function text(body: Call['body']): Promise<string> {
  if (!isStream(body)) return Buffer.from(body).toString();
  let all = '';
  for await (const chunk of body) all += Buffer.from(chunk).toString();
  return all;
}

test('a call goes on once its body is there, whole', async () => {
  const { invoke, taken, answer } = bench();
  const { call, body } = streamed();
  const reply = invoke(call, new CallSignal());
  body.push(Buffer.from('one'));
  await settle();
  assert.equal(taken.length, 0);
  body.push(Buffer.from(' two'));
  body.end();
  await settle();
  assert.equal(taken[0], call);
  assert.ok(!isStream(call.body));
  assert.equal(await text(call.body), 'one two');
  answer();
  assert.equal(await reply, ok);
});

test('what is there already, or may be streamed, goes on at once', async () => {
  for (const [options, call] of [
    [{}, mockCall(mockVersion(), { body: Buffer.from('x') })],
    [{ needsWhole: false }, streamed().call],
  ] as const) {
    const { invoke, taken } = bench(options);
    void invoke(call, new CallSignal());
    assert.equal(taken[0], call);
  }
});

test('a body that is too long is refused: at once when it says so, else when it is', async () => {
  const tooLong = { code: 'BODY_TOO_LARGE', message: /longer than 100 bytes/ };
  const { invoke, taken } = bench();
  const told = streamed(['Content-Length', '101']);
  await assert.rejects(invoke(told.call, new CallSignal()), tooLong);
  assert.deepEqual(told.events, []);
  const { call, body, events } = streamed();
  const refused = assert.rejects(invoke(call, new CallSignal()), tooLong);
  body.push(Buffer.alloc(60));
  await settle();
  body.push(Buffer.alloc(60));
  await refused;
  assert.match(events.at(-1)!, /^cancel/);
  assert.equal(taken.length, 0);
});

test('a caller that leaves, and a body that fails, end the call', async () => {
  const { invoke } = bench();
  const gone = streamed();
  const signal = new CallSignal();
  const refused = assert.rejects(invoke(gone.call, signal), left);
  await settle();
  signal.abort(left);
  await refused;
  const broken = streamed();
  const failed = assert.rejects(invoke(broken.call, new CallSignal()), /torn/);
  await settle();
  broken.body.fail(new Error('torn'));
  await failed;
});

test('at the deadline it is the body that came too late, not the function', async () => {
  const clock = new FakeClock();
  const { invoke } = bench();
  const { call } = streamed();
  const bounded = deadline(new TimerWheel(clock))(invoke);
  const refused = assert.rejects(bounded(call, new CallSignal()), {
    code: 'REQUEST_TIMED_OUT',
    message: /the body did not come within 100ms/,
  });
  await clock.advance(120);
  await refused;
});

test('beyond the bound for all, a body is passed on as it comes, from its beginning', async () => {
  // What is counted is memory: 64 KiB for the first bytes of a body, twice what is needed from then on.
  const { invoke, taken, answer } = bench({ bytesMax: 200_000, totalBytesMax: 100_000 });
  const { call, body } = streamed();
  const reply = invoke(call, new CallSignal());
  body.push(Buffer.alloc(10_000, 'a'));
  await settle();
  assert.equal(taken.length, 0, 'there is room for these');
  body.push(Buffer.alloc(60_000, 'b'));
  await settle();
  assert.equal(taken.length, 1);
  assert.ok(isStream(call.body));
  body.push(Buffer.from('c'));
  body.end();
  assert.equal(await text(call.body), `${'a'.repeat(10_000)}${'b'.repeat(60_000)}c`);
  const second = streamed();
  const passed = invoke(second.call, new CallSignal());
  second.body.push(Buffer.from('d'));
  await settle();
  assert.ok(isStream(second.call.body), 'the first one still holds what it gathered');
  answer();
  await Promise.all([reply, passed]);
  const third = streamed();
  void invoke(third.call, new CallSignal());
  third.body.push(Buffer.from('e'));
  third.body.end();
  await settle();
  assert.ok(!isStream(third.call.body), 'answered calls hold nothing');
});

test('chunks that are small parts of large pieces of memory are not kept', async () => {
  const { invoke } = bench({ bytesMax: 1000 });
  const { call, body } = streamed();
  void invoke(call, new CallSignal());
  for (let i = 0; i < 100; i++) {
    body.push(Buffer.allocUnsafeSlow(8192).subarray(0, 2));
    await settle();
  }
  body.end();
  await settle();
  assert.ok(!isStream(call.body));
  assert.deepEqual([call.body.length, call.body.buffer.byteLength], [200, 1000]);
});
