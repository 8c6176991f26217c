/**
 * Goal: deadline, concurrency and outcomes each keep their one promise. Method: a scripted Invoke below them and a
 * fake clock.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { PushedBody } from '../../body.ts';
import { mockCall, mockVersion } from '../../driver/mock.ts';
import { GatewayError } from '../../errors.ts';
import { Metrics } from '../../telemetry/metrics.ts';
import { FakeClock, settle } from '../../testing/fake-clock.ts';
import { TimerWheel } from '../../timer-wheel.ts';
import { CallSignal, compose, emptyBody, type Invoke, isStream, type Reply } from '../invoke.ts';
import { concurrency } from './concurrency.ts';
import { deadline } from './deadline.ts';
import { outcomes } from './outcomes.ts';

const ok: Reply = { status: 200, headers: [], body: emptyBody };

/** As the pool does: rejects with the signal's reason, or breaks the body off with it. */
const silent: Invoke = (_, signal) => new Promise((_resolve, reject) => signal.onAbort(reject));

function streaming(): { invoke: Invoke; body: PushedBody } {
  const body = new PushedBody({ onRead() {}, onCancel() {} });
  const invoke: Invoke = async (_, signal) => {
    signal.onAbort(reason => body.fail(reason));
    return { status: 200, headers: [], body };
  };
  return { invoke, body };
}

describe('deadline', () => {
  function bounded(next: Invoke) {
    const clock = new FakeClock();
    const wheel = new TimerWheel(clock);
    const invoke = deadline(wheel)(next);
    return { clock, wheel, invoke };
  }
  const version = mockVersion({}, { timeoutMs: 100 });

  test('before the head the answer is a 504 with the reason timeout', async () => {
    const { clock, invoke } = bounded(silent);
    const call = mockCall(version);
    call.instance = 'ins_1';
    const reply = invoke(call, new CallSignal());
    await clock.advance(120);
    const { status, failure } = await reply;
    assert.deepEqual([status, failure!.reason], [504, 'timeout']);
    assert.match(failure!.message, /it did not answer within 100ms/);
    assert.equal(clock.pending, 0);
  });

  test('a call that no instance was free for is not the function’s failure', async () => {
    const { clock, invoke } = bounded(silent);
    const reply = invoke(mockCall(version), new CallSignal());
    const refused = assert.rejects(reply, {
      code: 'CALL_DEADLINE_EXCEEDED',
      message: /no instance was free within 100ms/,
    });
    await clock.advance(120);
    await refused;
  });

  test('after the head the body fails', async () => {
    const { invoke: next } = streaming();
    const { clock, invoke } = bounded(next);
    const { body } = await invoke(mockCall(version), new CallSignal());
    await clock.advance(120);
    await assert.rejects(
      async () => {
        if (isStream(body)) for await (const _ of body);
      },
      { code: 'CALL_DEADLINE_EXCEEDED' },
    );
    assert.equal(clock.pending, 0);
  });

  test('an answer, a failure and the end of a body each take the deadline away', async () => {
    const failing: Invoke = async () => {
      throw new GatewayError('FUNCTION_FAILED', 'x');
    };
    const { invoke: next, body } = streaming();
    for (const inner of [async () => ok, failing, next]) {
      const { clock, wheel, invoke } = bounded(inner);
      const signal = new CallSignal();
      await invoke(mockCall(version), signal).catch(() => {});
      if (inner === next) body.end();
      assert.equal(wheel.size, 0);
      await clock.advance(1000);
      assert.equal(signal.aborted, false);
    }
  });

  test('a caller that left is no timeout', async () => {
    const { wheel, invoke } = bounded(silent);
    const signal = new CallSignal();
    const reply = invoke(mockCall(version), signal);
    const left = assert.rejects(reply, { code: 'CALL_CANCELLED' });
    signal.abort(new GatewayError('CALL_CANCELLED', 'left'));
    await left;
    assert.equal(wheel.size, 0);
  });
});

describe('concurrency', () => {
  const version = mockVersion({}, { concurrency: 2, max: 2 });
  const busy = { code: 'FUNCTION_BUSY' };

  test('what instances can run and what may wait is admitted, one more is refused', async () => {
    const invoke = concurrency({ waitingCallsMax: 3 })(silent);
    const signals = Array.from({ length: 7 }, () => new CallSignal());
    const replies = signals.map(signal => invoke(mockCall(version), signal));
    for (const reply of replies) reply.catch(() => {});
    await assert.rejects(invoke(mockCall(version), new CallSignal()), busy);
    signals[0]!.abort(new GatewayError('CALL_CANCELLED', 'left'));
    await settle();
    void invoke(mockCall(version), new CallSignal()).catch(() => {});
    await assert.rejects(invoke(mockCall(version), new CallSignal()), busy);
    const other = mockVersion();
    void invoke(mockCall(other), new CallSignal()).catch(assert.fail);
    await settle();
  });

  test('a step that throws takes no place', async () => {
    const single = mockVersion({}, { concurrency: 1, max: 1 });
    const invoke = concurrency({ waitingCallsMax: 0 })(() => {
      throw new RangeError('the stack is full');
    });
    for (let i = 0; i < 3; i++)
      await assert.rejects(invoke(mockCall(single), new CallSignal()), /the stack is full/);
  });

  test('a place is free again when the last byte is read, not before', async () => {
    const single = mockVersion({}, { concurrency: 1, max: 1 });
    const { invoke: next, body } = streaming();
    const invoke = concurrency({ waitingCallsMax: 0 })(next);
    await invoke(mockCall(single), new CallSignal());
    await assert.rejects(invoke(mockCall(single), new CallSignal()), busy);
    body.end();
    await invoke(mockCall(single), new CallSignal());
  });

  test('a refusal below frees the place', async () => {
    const single = mockVersion({}, { concurrency: 1, max: 1 });
    const refuse: Invoke = () => Promise.reject(new GatewayError('FUNCTION_FAILED', 'x'));
    const invoke = concurrency({ waitingCallsMax: 0 })(refuse);
    for (let i = 0; i < 3; i++) {
      await assert.rejects(invoke(mockCall(single), new CallSignal()), { code: 'FUNCTION_FAILED' });
    }
  });
});

test('outcomes count answers, failures and refusals by their status', async () => {
  const clock = new FakeClock();
  const metrics = new Metrics();
  const replies: Invoke[] = [
    async () => ok,
    async () => ({ ...ok, status: 502, failure: { reason: 'threw', message: '' } }),
    () => Promise.reject(new GatewayError('FUNCTION_BUSY', 'x')),
    () => Promise.reject(new Error('a mistake of ours')),
  ];
  for (const reply of replies) {
    const invoke = compose([outcomes({ clock, metrics })], reply);
    await invoke(mockCall(mockVersion()), new CallSignal()).catch(() => {});
  }
  const text = metrics.text();
  for (const status of [200, 429, 500, 502])
    assert.match(text, new RegExp(`fnway_calls_total\\{[^}]*status="${status}"\\} 1\n`));
  assert.match(text, /fnway_call_failures_total\{[^}]*reason="threw"\} 1\n/);
  assert.match(text, /fnway_calls_in_flight\{[^}]*\} 0\n/);
});
