/**
 * Goal: every call finds an instance, waits for one or is refused, and instances come and go as their function's
 * settings say. Method: the mock driver and a fake clock; no sockets, no sleeping.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { mockCall } from '../driver/mock.ts';
import { GatewayError } from '../errors.ts';
import { settle } from '../testing/fake-clock.ts';
import { callPool, graceMs, mockVersion, poolBench, textOf } from '../testing/pool-bench.ts';
import { CallSignal } from './invoke.ts';
import { returnMsMax } from './pool.ts';

setFlagsFromString('--expose-gc');
const collectGarbage: () => void = runInNewContext('gc');

const late = new GatewayError('CALL_DEADLINE_EXCEEDED', 'too slow');
const leave = new GatewayError('CALL_CANCELLED', 'the caller left');

describe('choosing an instance', () => {
  test('a call takes the instance with the fewest calls', async () => {
    const { clock, driver, pool } = poolBench();
    const version = mockVersion({ MOCK_RUN_MS: '100' }, { concurrency: 3, max: 2 });
    for (let i = 0; i < 6; i++) callPool(pool, version);
    await clock.advance(0);
    const [one, two] = [...driver.instances];
    assert.deepEqual([one!.inFlight, two!.inFlight], [3, 3]);
    await clock.advance(100);
    for (let calls = 1; calls <= 6; calls++) {
      callPool(pool, version);
      const both = [one!.inFlight, two!.inFlight].sort();
      assert.deepEqual(both, [Math.floor(calls / 2), Math.ceil(calls / 2)]);
    }
  });

  test('a first call starts one instance, and the next calls use it', async () => {
    const { clock, driver, pool } = poolBench();
    const version = mockVersion({ MOCK_START_DELAY_MS: '50', MOCK_REPLY_BODY: '{instance}' });
    const first = callPool(pool, version);
    await clock.advance(49);
    assert.equal(first.outcome, undefined);
    assert.deepEqual(pool.counts(version)[0], {
      version,
      ready: 0,
      busy: 0,
      starting: 1,
      waiting: 1,
    });
    await clock.advance(1);
    const second = callPool(pool, version);
    assert.equal(await textOf(first), await textOf(second));
    assert.equal(driver.starts, 1);
  });

  test('a body longer than a handler may have whole is refused before it is sent', async () => {
    const { clock, driver, pool } = poolBench();
    const version = mockVersion({ MOCK_WHOLE_BODIES: 'true' });
    const [fits, long] = [1000, 1001].map(size => callPool(pool, version, {}, Buffer.alloc(size)));
    await clock.advance(0);
    assert.deepEqual([fits!.outcome, long!.outcome], ['200', 'refused: BODY_TOO_LARGE']);
    assert.equal(
      [...driver.instances].every(instance => instance.inFlight === 0),
      true,
    );
  });

  test('a version that no driver runs is refused by a rejection, not by a throw', async () => {
    const { pool } = poolBench({ runs: () => false });
    let called: ReturnType<typeof callPool> | undefined;
    assert.doesNotThrow(() => {
      called = callPool(pool, mockVersion());
    });
    await settle();
    assert.equal(called!.outcome, 'refused: DRIVER_NOT_CONFIGURED');
  });
});

describe('growing', () => {
  test('as many instances start as the waiting calls need, up to the maximum', async () => {
    for (const [calls, concurrency, max, expected] of [
      [1, 1, 4, 1],
      [3, 1, 4, 3],
      [9, 1, 4, 4],
      [9, 5, 4, 2],
      [10, 5, 4, 2],
      [11, 5, 4, 3],
      [50, 5, 1, 1],
    ] as const) {
      const { clock, driver, pool } = poolBench();
      const env = { MOCK_START_DELAY_MS: '10', MOCK_RUN_MS: '10' };
      const version = mockVersion(env, { concurrency, max });
      const called = Array.from({ length: calls }, () => callPool(pool, version));
      await clock.advance(1);
      assert.equal(driver.starts, expected, `${calls} calls, ${concurrency} at once, max ${max}`);
      await clock.advance(1000);
      assert.ok(called.every(one => one.outcome === '200' && one.settled === 1));
      assert.equal(driver.starts, expected, 'and no more later');
    }
  });

  test('calls that wait are served in the order they came', async () => {
    const { clock, pool } = poolBench();
    const version = mockVersion({ MOCK_RUN_MS: '10' }, { max: 1 });
    const order: number[] = [];
    for (let i = 0; i < 5; i++) void callPool(pool, version).reply.then(() => order.push(i));
    await clock.advance(30);
    assert.deepEqual(order, [0, 1, 2]);
    await clock.advance(20);
    assert.deepEqual(order, [0, 1, 2, 3, 4]);
  });

  test('how long calls waited and how often one started an instance is counted', async () => {
    const { clock, pool, metrics } = poolBench();
    callPool(pool, mockVersion({ MOCK_START_DELAY_MS: '40' }));
    await clock.advance(40);
    const text = metrics.text();
    assert.match(text, /fnway_cold_starts_total\{[^}]*\} 1\n/);
    assert.match(text, /fnway_queue_wait_seconds_sum\{[^}]*\} 0\.04\n/);
  });

  test('a call that leaves while it waits is rejected with its reason and never run', async () => {
    const { clock, driver, pool } = poolBench();
    const version = mockVersion({ MOCK_RUN_MS: '100' }, { max: 1 });
    const running = callPool(pool, version);
    const waiting = callPool(pool, version);
    const next = callPool(pool, version);
    await clock.advance(10);
    waiting.signal.abort(leave);
    await settle();
    assert.equal(waiting.outcome, 'refused: CALL_CANCELLED');
    assert.equal(pool.counts(version)[0]!.waiting, 1);
    await clock.advance(90);
    assert.equal(running.outcome, '200');
    assert.equal([...driver.instances][0]!.inFlight, 1);
    await clock.advance(100);
    assert.equal(next.outcome, '200');
    assert.equal(waiting.settled, 1);
  });

  test('calls that left count for no instance', async () => {
    const { clock, driver, pool } = poolBench();
    const version = mockVersion({ MOCK_START_DELAY_MS: '100' });
    callPool(pool, version).signal.abort(leave);
    callPool(pool, version);
    await clock.advance(1000);
    assert.equal(driver.starts, 1);
  });

  test('a call that left before it came starts no instance', async () => {
    const { clock, driver, pool } = poolBench();
    const signal = new CallSignal();
    signal.abort(leave);
    const call = mockCall(mockVersion());
    await assert.rejects(async () => pool.invoke(call, signal), leave);
    await clock.advance(1000);
    assert.equal(driver.starts, 0);
  });

  test('calls that left are not kept', async () => {
    const { clock, pool } = poolBench();
    const version = mockVersion({ MOCK_RUN_MS: 'never' }, { max: 1 });
    callPool(pool, version);
    callPool(pool, version);
    await clock.advance(0);
    const left: WeakRef<object>[] = [];
    for (let i = 0; i < 100; i++) {
      const { signal } = callPool(pool, version);
      left.push(new WeakRef(signal));
      signal.abort(leave);
    }
    await clock.advance(5000);
    collectGarbage();
    const kept = left.filter(ref => ref.deref() !== undefined).length;
    assert.ok(kept < 10, `${kept} of 100 are kept`);
  });
});

describe('an instance that does not start', () => {
  for (const [whose, env] of [
    ["the platform's fault", { MOCK_START_ERROR: 'no process' }],
    ["the user's mistake", { MOCK_LOAD_ERROR: 'no handler' }],
  ] as const) {
    test(`refuses the calls that wait for it, when it is ${whose}`, async () => {
      const { clock, driver, pool } = poolBench();
      const version = mockVersion({ ...env, MOCK_START_DELAY_MS: '10' });
      const called = [callPool(pool, version), callPool(pool, version)];
      await clock.advance(1000);
      assert.deepEqual(
        called.map(one => one.outcome),
        ['refused: INSTANCE_NOT_STARTED', 'refused: INSTANCE_NOT_STARTED'],
      );
      assert.equal(driver.starts, 2, 'and is not tried again for them');
      await assert.rejects(called[0]!.reply, { message: /no process|no handler/ });
    });
  }

  test('leaves the calls to the instances that there are', async () => {
    const { clock, driver, pool } = poolBench();
    const env = { MOCK_START_DELAY_MS: '10', MOCK_RUN_MS: '100' };
    const version = mockVersion(env, { max: 2 });
    const first = callPool(pool, version);
    await clock.advance(10);
    Object.assign(version.spec.env, { MOCK_START_ERROR: 'no more processes' });
    const second = callPool(pool, version);
    await clock.advance(50);
    assert.equal(second.outcome, undefined);
    assert.ok(driver.starts <= 3, `${driver.starts} starts`);
    await clock.advance(150);
    assert.deepEqual([first.outcome, second.outcome], ['200', '200']);
  });

  test('that was prepared gives the mistake as a value, and the fault as an error', async () => {
    const { pool } = poolBench();
    assert.deepEqual(await pool.prepare(mockVersion({ MOCK_LOAD_ERROR: 'no handler' })), {
      code: 'LOAD_FAILED',
      message: 'no handler',
    });
    await assert.rejects(pool.prepare(mockVersion({ MOCK_START_ERROR: 'no process' })), {
      code: 'INSTANCE_NOT_STARTED',
    });
  });

  test('that was prepared refuses a call that came meanwhile', async () => {
    const { clock, pool } = poolBench();
    const version = mockVersion({ MOCK_LOAD_ERROR: 'no handler', MOCK_START_DELAY_MS: '10' });
    const prepared = pool.prepare(version);
    const called = callPool(pool, version);
    await clock.advance(1000);
    assert.equal((await prepared)!.message, 'no handler');
    assert.equal(called.outcome, 'refused: INSTANCE_NOT_STARTED');
  });

  test('that was prepared well takes the first call', async () => {
    const { driver, pool } = poolBench();
    const version = mockVersion({ MOCK_REPLY_BODY: 'x' });
    assert.equal(await pool.prepare(version), undefined);
    assert.equal(await pool.prepare(version), undefined);
    assert.equal(await textOf(callPool(pool, version)), 'x');
    assert.equal(driver.starts, 1);
  });
});

describe('a call whose time is up', () => {
  test('ends its instance when it is alone in it and does not return', async () => {
    const { clock, driver, pool } = poolBench();
    const version = mockVersion({ MOCK_RUN_MS: 'never', MOCK_IGNORE_ABORT: 'true' });
    const called = callPool(pool, version);
    await clock.advance(10);
    called.signal.abort(late);
    await settle();
    assert.equal(called.outcome, 'refused: CALL_DEADLINE_EXCEEDED');
    await clock.advance(returnMsMax - 1);
    assert.equal(driver.instances.size, 1);
    await clock.advance(1);
    assert.equal(driver.instances.size, 0);
  });

  test('costs no instance whose handler returns, and that takes no call until then', async () => {
    const { clock, driver, pool } = poolBench();
    const env = { MOCK_RUN_MS: '100', MOCK_IGNORE_ABORT: 'true' };
    const version = mockVersion(env, { concurrency: 2, max: 1 });
    const hung = callPool(pool, version);
    const other = callPool(pool, version, { 'run-ms': '400' });
    await clock.advance(10);
    hung.signal.abort(late);
    const next = callPool(pool, version, { 'run-ms': '1' });
    await clock.advance(10);
    // In a second instance, for this one might never return.
    assert.deepEqual([next.outcome, driver.starts], ['200', 2]);
    await clock.advance(1000);
    assert.equal(other.outcome, '200');
    // One is enough again.
    assert.equal([...driver.instances].filter(({ alive }) => alive).length, 1);
  });

  test('that ends before it began takes no other call’s place', async () => {
    const { clock, pool } = poolBench();
    const version = mockVersion({ MOCK_RUN_MS: '10' }, { max: 1 });
    const running = callPool(pool, version);
    const refused = callPool(pool, version, { refuse: 'true' });
    const waiting = [callPool(pool, version), callPool(pool, version)];
    await clock.advance(100);
    assert.equal(refused.outcome, 'refused: HEADERS_TOO_LARGE');
    for (const called of [running, ...waiting]) assert.equal(called.outcome, '200');
  });

  test('leaves the others in it the grace time, and new calls go elsewhere', async () => {
    const { clock, driver, pool } = poolBench();
    const env = { MOCK_RUN_MS: 'never', MOCK_IGNORE_ABORT: 'true' };
    const version = mockVersion(env, { concurrency: 3 });
    const hung = callPool(pool, version);
    const quick = callPool(pool, version, { 'run-ms': String(graceMs - 100) });
    const slow = callPool(pool, version, { 'run-ms': String(returnMsMax + graceMs + 100) });
    await clock.advance(0);
    const [old] = [...driver.instances];
    hung.signal.abort(late);
    const next = callPool(pool, version, { 'run-ms': '1' });
    await clock.advance(returnMsMax + graceMs - 1);
    assert.deepEqual([quick.outcome, slow.outcome, next.outcome], ['200', undefined, '200']);
    assert.equal(old!.inFlight, 2);
    await clock.advance(1);
    assert.equal(slow.outcome, 'failed: crashed');
    assert.equal(driver.instances.has(old!), false);
    assert.equal(driver.starts, 2);
  });

  test('while it waits for an instance costs none its place', async () => {
    const { clock, driver, pool } = poolBench();
    const version = mockVersion({ MOCK_RUN_MS: '100' }, { max: 1 });
    const running = callPool(pool, version);
    const waiting = callPool(pool, version);
    await clock.advance(10);
    waiting.signal.abort(late);
    await clock.advance(90);
    assert.deepEqual([running.outcome, waiting.settled], ['200', 1]);
    assert.equal([...driver.instances][0]!.alive, true);
  });

  test('after it has left its instance harms neither that nor the calls in it', async () => {
    const { clock, driver, pool } = poolBench();
    const version = mockVersion({}, { concurrency: 2 });
    // Answered whole, but its caller reads slowly: the deadline still runs.
    const answered = callPool(pool, version, { 'stream-chunks': '2' });
    await clock.advance(0);
    assert.equal(answered.outcome, '200');
    const other = callPool(pool, version, { 'run-ms': '50' });
    answered.signal.abort(late);
    await clock.advance(50);
    assert.equal(other.outcome, '200');
    assert.equal([...driver.instances][0]?.alive, true);
  });

  test('of a caller that left, the instance goes on', async () => {
    const { clock, driver, pool } = poolBench();
    const version = mockVersion({ MOCK_RUN_MS: 'never' });
    const called = callPool(pool, version);
    await clock.advance(10);
    called.signal.abort(leave);
    await clock.advance(10);
    assert.equal([...driver.instances][0]!.alive, true);
    assert.equal(callPool(pool, version, { 'run-ms': '0' }).outcome, undefined);
    assert.equal(driver.starts, 1);
  });
});
