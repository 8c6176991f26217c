/**
 * Goal: instances come and go as their function's settings say: idle, kept, crashed, replaced, stopped. Method: as in
 * pool.test.ts.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { settle } from '../testing/fake-clock.ts';
import { callPool, mockVersion, poolBench } from '../testing/pool-bench.ts';

describe('idle instances', () => {
  test('end after their idle time, down to none', async () => {
    const { clock, driver, pool } = poolBench();
    const version = mockVersion({}, { idleMs: 5000, max: 3 });
    for (let i = 0; i < 3; i++) callPool(pool, version, { 'run-ms': '10' });
    await clock.advance(10);
    assert.equal(driver.instances.size, 3);
    await clock.advance(4900);
    assert.equal(driver.instances.size, 3);
    await clock.advance(1000);
    assert.equal(driver.instances.size, 0);
    await clock.advance(1000);
    assert.equal(clock.pending, 0, 'no timer ticks for nothing');
    assert.deepEqual(pool.counts(), []);
  });

  test('that answer a call now and then stay', async () => {
    const { clock, driver, pool } = poolBench();
    const version = mockVersion({}, { idleMs: 5000 });
    for (let i = 0; i < 5; i++) {
      callPool(pool, version);
      await clock.advance(4000);
    }
    assert.equal(driver.starts, 1);
  });

  test('are kept to the minimum', async () => {
    const { clock, driver, pool } = poolBench();
    const version = mockVersion({}, { idleMs: 5000, min: 2, max: 4 });
    pool.activate(version);
    for (let i = 0; i < 4; i++) callPool(pool, version, { 'run-ms': '10' });
    await clock.advance(10);
    assert.equal(driver.instances.size, 4);
    await clock.advance(20_000);
    assert.equal(driver.instances.size, 2);
  });
});

describe('a renewal', () => {
  test('lets the old instances take calls until a new one is there, and then go', async () => {
    const { clock, driver, pool } = poolBench();
    const version = mockVersion({ MOCK_START_DELAY_MS: '100' }, { max: 3 });
    const first = [callPool(pool, version, { 'run-ms': '1000' }), callPool(pool, version)];
    await clock.advance(100);
    const old = new Set(driver.instances);
    assert.equal(old.size, 2);
    pool.renew(other => other === version);
    await clock.advance(50);
    const meanwhile = callPool(pool, version);
    await clock.advance(0);
    assert.equal(meanwhile.outcome, '200');
    await clock.advance(50);
    const left = [...driver.instances];
    assert.equal(left.filter(instance => !old.has(instance)).length, 1);
    assert.equal(left.filter(instance => old.has(instance)).length, 1, 'the one with a call');
    await clock.advance(1000);
    assert.equal(first[0]!.outcome, '200');
    assert.ok([...driver.instances].every(instance => !old.has(instance)));
    assert.equal(driver.instances.size, 1);
  });

  test('many at once start one after the other, and one instance is left', async () => {
    const { clock, driver, pool } = poolBench();
    const version = mockVersion({ MOCK_START_DELAY_MS: '100' }, { max: 1 });
    callPool(pool, version);
    await clock.advance(100);
    for (let i = 0; i < 20; i++) pool.renew(() => true);
    await clock.advance(50);
    assert.equal(driver.starts, 2);
    await clock.advance(200);
    assert.equal(driver.starts, 3, 'one for the first, one for all that came meanwhile');
    assert.equal(driver.instances.size, 1);
    pool.retire(version);
    pool.renew(() => true);
    assert.equal(driver.starts, 3, 'a version that was replaced is not renewed');
  });

  test('replaces also what was being started, and starts nothing where nothing runs', async () => {
    const { clock, driver, pool } = poolBench();
    const version = mockVersion({ MOCK_START_DELAY_MS: '100' }, { max: 3 });
    pool.renew(() => true);
    assert.equal(driver.starts, 0);
    const called = callPool(pool, version);
    await clock.advance(50);
    pool.renew(other => other === version);
    await clock.advance(50);
    const [early] = driver.instances;
    assert.equal(called.outcome, '200');
    await clock.advance(50);
    assert.equal(driver.instances.size, 1);
    assert.notEqual([...driver.instances][0], early);
  });
});

describe('a kept minimum', () => {
  test('is that of the active version alone, also when an old one is called', async () => {
    const { clock, driver, pool } = poolBench();
    const [old, now] = [mockVersion({}, { min: 2, idleMs: 5000 }), mockVersion({}, { min: 1 })];
    pool.activate(old);
    await clock.advance(0);
    pool.activate(now);
    pool.retire(old);
    await clock.advance(1000);
    const called = callPool(pool, old);
    await clock.advance(1000);
    assert.equal(called.outcome, '200');
    assert.deepEqual(
      [...driver.instances].map(instance => instance.version),
      [now, old],
    );
    await clock.advance(20_000);
    assert.deepEqual(
      [...driver.instances].map(instance => instance.version),
      [now],
    );
  });

  test('is started when the version is activated, and again when an instance ends', async () => {
    const { clock, driver, pool } = poolBench();
    const version = mockVersion({}, { min: 2 });
    pool.activate(version);
    await clock.advance(0);
    assert.equal(driver.instances.size, 2);
    void [...driver.instances][0]!.kill('crashed');
    await clock.advance(0);
    assert.equal(driver.instances.size, 2);
    assert.equal(driver.starts, 3);
  });

  test('that does not start is tried again, each time later', async () => {
    const { clock, driver, pool } = poolBench();
    const env = { MOCK_START_ERROR: 'no process', MOCK_START_FAILURES: '5' };
    pool.activate(mockVersion(env, { min: 1 }));
    const startsBy: number[] = [];
    for (const untilMs of [0, 999, 1000, 2999, 3000, 6999, 7000, 14_999, 15_000]) {
      await clock.advance(untilMs - clock.monotonicMs());
      startsBy.push(driver.starts);
    }
    assert.deepEqual(startsBy, [1, 1, 2, 2, 3, 3, 4, 4, 5]);
    await clock.advance(30_000);
    assert.equal(driver.instances.size, 1);
  });

  test('of several that do not start waits no longer than of one', async () => {
    const { clock, driver, pool } = poolBench();
    const env = { MOCK_START_ERROR: 'no process', MOCK_START_FAILURES: '6' };
    pool.activate(mockVersion(env, { min: 3 }));
    await clock.advance(3001);
    assert.equal(driver.instances.size, 3, 'failed at 0 s and 1 s, there at 3 s');
  });

  test('that crashes soon after each start is not restarted without a pause', async () => {
    const { clock, driver, pool } = poolBench();
    pool.activate(mockVersion({ MOCK_EXIT_AFTER_MS: '10' }, { min: 1 }));
    await clock.advance(10_000);
    assert.ok(driver.starts < 20, `${driver.starts} starts in ten seconds`);
  });

  test('ends with its version, a pending retry included', async () => {
    const { clock, driver, pool } = poolBench();
    const version = mockVersion({ MOCK_START_ERROR: 'no process' }, { min: 1 });
    pool.activate(version);
    await clock.advance(0);
    pool.retire(version);
    await clock.advance(100_000);
    assert.equal(driver.starts, 1);
    assert.equal(clock.pending, 0);
  });
});

describe('a crash', () => {
  test('fails the calls in the instance, and those that wait get another', async () => {
    const { clock, driver, pool } = poolBench();
    const version = mockVersion({ MOCK_RUN_MS: '100' }, { max: 1 });
    const victim = callPool(pool, version, { 'crash-after-ms': '10' });
    const waiting = callPool(pool, version);
    await clock.advance(10);
    assert.equal(victim.outcome, 'failed: crashed');
    await clock.advance(100);
    assert.equal(waiting.outcome, '200');
    assert.equal(driver.starts, 2);
  });

  test('of an idle instance starts another with the next call', async () => {
    const { clock, driver, pool } = poolBench();
    const version = mockVersion({ MOCK_EXIT_AFTER_MS: '100' });
    callPool(pool, version);
    await clock.advance(200);
    assert.equal(driver.instances.size, 0);
    const called = callPool(pool, version);
    await clock.advance(0);
    assert.equal(called.outcome, '200');
  });
});

describe('a version that is replaced', () => {
  test('finishes the calls in its instances, and then they end', async () => {
    const { clock, driver, pool } = poolBench();
    const version = mockVersion({ MOCK_RUN_MS: '100' }, { max: 2, min: 1 });
    const called = [callPool(pool, version), callPool(pool, version)];
    await clock.advance(10);
    pool.retire(version);
    await clock.advance(89);
    assert.equal(driver.instances.size, 2);
    await clock.advance(1);
    assert.deepEqual(
      called.map(one => one.outcome),
      ['200', '200'],
    );
    await settle();
    assert.equal(driver.instances.size, 0);
  });

  test('serves the calls that wait for it', async () => {
    const { clock, driver, pool } = poolBench();
    const version = mockVersion({ MOCK_RUN_MS: '100' }, { max: 1 });
    const called = Array.from({ length: 3 }, () => callPool(pool, version));
    await clock.advance(10);
    pool.retire(version);
    await clock.advance(300);
    assert.deepEqual(
      called.map(one => one.outcome),
      ['200', '200', '200'],
    );
    await clock.advance(1000);
    assert.equal(driver.instances.size, 0, 'and keeps no idle instance');
  });

  test('keeps no instance that was just starting', async () => {
    const { clock, driver, pool } = poolBench();
    const version = mockVersion({ MOCK_START_DELAY_MS: '50' }, { min: 1, idleMs: 300_000 });
    pool.activate(version);
    await clock.advance(10);
    pool.retire(version);
    await clock.advance(1000);
    assert.equal(driver.instances.size, 0);
    assert.deepEqual(pool.counts(), []);
  });
});

describe('stopping', () => {
  test('lets calls finish, refuses those that wait and those that come', async () => {
    const { clock, driver, pool } = poolBench();
    const version = mockVersion({ MOCK_RUN_MS: '100' }, { max: 1 });
    const running = callPool(pool, version);
    const waiting = callPool(pool, version);
    await clock.advance(10);
    let stopped = false;
    void pool.stop(1000).then(() => {
      stopped = true;
    });
    const next = callPool(pool, version);
    await settle();
    const refused = 'refused: GATEWAY_STOPPING';
    assert.deepEqual([waiting.outcome, next.outcome], [refused, refused]);
    assert.equal(stopped, false);
    await clock.advance(90);
    assert.equal(running.outcome, '200');
    assert.equal(stopped, true);
    assert.equal(driver.instances.size, 0);
  });

  test('ends what takes longer than the grace time', async () => {
    const { clock, driver, pool } = poolBench();
    const running = callPool(pool, mockVersion({ MOCK_RUN_MS: 'never' }));
    await clock.advance(0);
    const stopped = pool.stop(1000);
    await clock.advance(1000);
    await stopped;
    assert.equal(running.outcome, 'failed: crashed');
    assert.equal(driver.instances.size, 0);
  });

  test('ends an instance that was just starting, and starts no more', async () => {
    const { clock, driver, pool } = poolBench();
    pool.activate(mockVersion({ MOCK_START_DELAY_MS: '50' }, { min: 1 }));
    const called = callPool(pool, mockVersion({ MOCK_START_DELAY_MS: '50' }));
    await clock.advance(10);
    await pool.stop(1000);
    await clock.advance(60_000);
    assert.equal(called.outcome, 'refused: GATEWAY_STOPPING');
    assert.equal(driver.instances.size, 0);
    assert.equal(driver.starts, 2);
    assert.equal(clock.pending, 0);
  });
});
