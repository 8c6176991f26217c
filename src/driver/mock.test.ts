/** Goal: the mock driver passes the suite of drivers, and its env does what its file says. Method: a fake clock. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../clock.ts';
import { CallSignal, isStream } from '../invoke/invoke.ts';
import { FakeClock, settle } from '../testing/fake-clock.ts';
import { type Behaviour, driverContract } from './contract.ts';
import { createMockDriver, mockCall, mockVersion } from './mock.ts';

const envs: Record<Behaviour, Record<string, string>> = {
  echo: { MOCK_ECHO: 'true', MOCK_REPLY_STATUS: '201' },
  slow: { MOCK_RUN_MS: '300', MOCK_REPLY_BODY: 'late' },
  silent: { MOCK_RUN_MS: 'never' },
  stubborn: { MOCK_RUN_MS: 'never', MOCK_IGNORE_ABORT: 'true' },
  endless: { MOCK_STREAM_CHUNKS: 'endless' },
  failing: { MOCK_FAIL: 'no luck' },
  crashing: { MOCK_RUN_MS: 'never', MOCK_CRASH_AFTER_MS: '20' },
  breaking: { MOCK_STREAM_CHUNKS: '1', MOCK_BREAK_OFF: 'true' },
  mistaken: { MOCK_LOAD_ERROR: 'no handler' },
  unstartable: { MOCK_START_ERROR: 'no process' },
};

driverContract(() => ({
  driver: createMockDriver({ clock: systemClock }),
  version: behaviour => mockVersion(envs[behaviour]),
}));

async function started(env: Record<string, string>) {
  const clock = new FakeClock();
  const driver = createMockDriver({ clock });
  const version = mockVersion(env);
  const result = await driver.start(version);
  assert.ok(result.ok);
  return { clock, driver, version, instance: result.instance };
}

test('a start takes the time that it is told', async () => {
  const clock = new FakeClock();
  const driver = createMockDriver({ clock });
  let over = false;
  const start = driver.start(mockVersion({ MOCK_START_DELAY_MS: '100' })).finally(() => {
    over = true;
  });
  await clock.advance(99);
  assert.equal(over, false);
  await clock.advance(1);
  assert.equal((await start).ok, true);
});

test('only as many starts fail as it is told', async () => {
  const driver = createMockDriver({ clock: new FakeClock() });
  const version = mockVersion({ MOCK_LOAD_ERROR: 'no', MOCK_START_FAILURES: '2' });
  const outcomes = [];
  for (let i = 0; i < 3; i++) outcomes.push((await driver.start(version)).ok);
  assert.deepEqual(outcomes, [false, false, true]);
  assert.equal(driver.starts, 3);
});

test('a call takes its time, and a header wins over the env', async () => {
  const { clock, version, instance } = await started({ MOCK_RUN_MS: '100', MOCK_REPLY_BODY: 'a' });
  const done: string[] = [];
  const run = (name: string, headers: string[]) =>
    instance.invoke(mockCall(version, { headers }), new CallSignal(), () => done.push(name));
  const slow = run('slow', []);
  const quick = run('quick', ['mock-run-ms', '10', 'mock-reply-body', 'b']);
  await clock.advance(10);
  assert.deepEqual(done, ['quick']);
  assert.equal(Buffer.from((await quick).body as Uint8Array).toString(), 'b');
  await clock.advance(90);
  assert.deepEqual(done, ['quick', 'slow']);
  assert.equal(Buffer.from((await slow).body as Uint8Array).toString(), 'a');
  assert.equal(clock.pending, 0);
});

test('a stream has so many pieces, so far apart', async () => {
  const env = { MOCK_STREAM_CHUNKS: '3', MOCK_STREAM_DELAY_MS: '50' };
  const { clock, version, instance } = await started(env);
  const { body } = await instance.invoke(mockCall(version), new CallSignal(), () => {});
  assert.ok(isStream(body));
  const pieces: string[] = [];
  void (async () => {
    for await (const chunk of body) pieces.push(Buffer.from(chunk).toString());
  })();
  await clock.advance(50);
  assert.deepEqual(pieces, ['chunk 1\n', 'chunk 2\n']);
  await clock.advance(50);
  assert.equal(pieces.length, 3);
});

test('an instance crashes after its time', async () => {
  const { clock, driver, instance } = await started({ MOCK_EXIT_AFTER_MS: '70' });
  await clock.advance(69);
  assert.equal(instance.alive, true);
  await clock.advance(1);
  assert.deepEqual(await instance.exited, { status: 'signal SIGKILL', reason: 'crashed' });
  await settle();
  assert.equal(driver.instances.size, 0);
});
