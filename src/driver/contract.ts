/**
 * The suite that every driver passes. Goal: the pool cannot tell one from another. Method: each test gets a driver
 * and asks it for versions that behave in a named way; how they come to do so is the driver's matter. Real time
 * passes where a driver has real processes, so tests wait for states and never for time.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PushedBody } from '../body.ts';
import { sleep, systemClock } from '../clock.ts';
import { GatewayError, isGatewayError } from '../errors.ts';
import {
  type Body,
  type Call,
  CallSignal,
  emptyBody,
  isStream,
  type Reply,
  type Version,
} from '../invoke/invoke.ts';
import type { Driver, Instance } from './driver.ts';

/** How a version answers calls, or fails to start. */
const behaviours = [
  /** Status 201, and the request's body, piece by piece. */
  'echo',
  /** Status 200 and `late` after 300 ms. */
  'slow',
  /** No answer, ever; gives up when the caller does. */
  'silent',
  /** No answer, and it does not give up. */
  'stubborn',
  /** A head and `first`, then no end; gives up when the caller does. */
  'endless',
  /** The function's own failure. */
  'failing',
  /** Ends the instance before the head. */
  'crashing',
  /** Ends the instance, or the connection, after the head and `first`. */
  'breaking',
  /** The user's mistake: does not load. */
  'mistaken',
  /** The platform's fault: cannot be started. */
  'unstartable',
] as const;
export type Behaviour = (typeof behaviours)[number];

export interface DriverHarness {
  driver: Driver;
  version(behaviour: Behaviour): Version;
  /** After the test; the driver is closed by then. */
  close?(): Promise<void>;
}

export interface DriverContractOptions {
  /** Tests that cannot hold for this driver, by the beginning of their name, each with its reason. */
  skip?: Array<{ test: string; reason: string }>;
}

interface Bench extends DriverHarness {
  start(behaviour: Behaviour): Promise<Instance>;
  /** Of the instances started. */
  readonly versions: Map<Instance, Version>;
}

interface Running {
  reply: Promise<Reply>;
  signal: CallSignal;
  ended(): number;
}

const testMsMax = 4000;

/** Registers the suite with node:test. `create` is called once a test. */
export function driverContract(
  create: () => Promise<DriverHarness> | DriverHarness,
  options: DriverContractOptions = {},
): void {
  const define = (name: string, body: (bench: Bench) => Promise<void>) => {
    const skip = options.skip?.find(entry => name.startsWith(entry.test))?.reason;
    test(name, { timeout: testMsMax, ...(skip !== undefined && { skip }) }, async t => {
      const harness = await create();
      // Not `finally`: a test that hangs is cleared up after as well.
      t.after(async () => {
        await Promise.race([harness.driver.close(), sleep(systemClock, 1000)]);
        await harness.close?.();
      });
      const versions = new Map<Instance, Version>();
      async function start(behaviour: Behaviour): Promise<Instance> {
        const version = harness.version(behaviour);
        const started = await harness.driver.start(version);
        assert.ok(started.ok, JSON.stringify(started));
        versions.set(started.instance, version);
        return started.instance;
      }
      await body({ ...harness, start, versions });
    });
  };
  defineStarting(define);
  defineAnswering(define);
  defineAborting(define);
  defineEnding(define);
}

type Define = (name: string, body: (bench: Bench) => Promise<void>) => void;

const leave = new GatewayError('CALL_CANCELLED', 'the caller left');

function callOf(version: Version, body: Body): Call {
  return {
    id: 'call_contract',
    version,
    attempt: 1,
    method: 'POST',
    target: '/some/path?and=query',
    headers: ['x-given', 'yes'],
    ownHeaders: ['x-own', 'too'],
    body,
    origin: 'http',
    caller: 'admin',
    label: undefined,
    parent: undefined,
    deadlineMs: Number.POSITIVE_INFINITY,
    gathering: false,
    instance: undefined,
  };
}

function run(bench: Bench, instance: Instance, body: Body = emptyBody): Running {
  const signal = new CallSignal();
  let ended = 0;
  const call = callOf(bench.versions.get(instance)!, body);
  const reply = instance.invoke(call, signal, () => {
    ended++;
  });
  reply.catch(() => {});
  return { reply, signal, ended: () => ended };
}

async function read(body: Body): Promise<string> {
  if (!isStream(body)) return Buffer.from(body).toString();
  const chunks: Uint8Array[] = [];
  for await (const chunk of body) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

async function until(what: string, holds: () => boolean): Promise<void> {
  for (let tries = 0; !holds(); tries++) {
    assert.ok(tries < 500, `${what} did not come`);
    await sleep(systemClock, 10);
  }
}

/** Waits for `done`, and then a little, so that a second one would be seen. */
async function doneOnce(...all: Running[]): Promise<void> {
  await until('done', () => all.every(running => running.ended() > 0));
  await sleep(systemClock, 30);
  assert.deepEqual(
    all.map(running => running.ended()),
    all.map(() => 1),
    'done runs exactly once',
  );
}

function defineStarting(define: Define): void {
  define('an instance that started is alive and has an id of its own', async bench => {
    const [one, two] = [await bench.start('echo'), await bench.start('echo')];
    assert.equal(one.alive && two.alive, true);
    assert.notEqual(one.id, two.id);
  });

  define("the user's mistake is a value", async bench => {
    const started = await bench.driver.start(bench.version('mistaken'));
    assert.equal(started.ok, false);
    assert.equal(started.failure.code, 'LOAD_FAILED');
    assert.notEqual(started.failure.message, '');
  });

  define("the platform's fault is INSTANCE_NOT_STARTED", async bench => {
    await assert.rejects(
      () => bench.driver.start(bench.version('unstartable')),
      error => isGatewayError(error) && error.code === 'INSTANCE_NOT_STARTED',
    );
  });
}

function defineAnswering(define: Define): void {
  define('a call is answered with head and body, and is done', async bench => {
    const instance = await bench.start('echo');
    const running = run(bench, instance, Buffer.from('hello'));
    const reply = await running.reply;
    assert.equal(reply.status, 201);
    assert.equal(reply.failure, undefined);
    assert.equal(await read(reply.body), 'hello');
    await doneOnce(running);
  });

  define('an instance answers call after call', async bench => {
    const instance = await bench.start('echo');
    for (const text of ['one', 'two', 'three']) {
      const running = run(bench, instance, Buffer.from(text));
      assert.equal(await read((await running.reply).body), text);
      await doneOnce(running);
    }
    assert.equal(instance.alive, true);
  });

  define('bodies stream both ways at once', async bench => {
    const instance = await bench.start('echo');
    const request = new PushedBody({ onRead() {}, onCancel() {} });
    request.push(Buffer.from('ping'));
    const running = run(bench, instance, request);
    const { body } = await running.reply;
    assert.ok(isStream(body));
    const reader = body[Symbol.asyncIterator]();
    assert.equal(Buffer.from((await reader.next()).value!).toString(), 'ping');
    assert.equal(running.ended(), 0);
    request.push(Buffer.from('pong'));
    assert.equal(Buffer.from((await reader.next()).value!).toString(), 'pong');
    request.end();
    assert.equal((await reader.next()).done, true);
    await doneOnce(running);
  });

  define('a body of a mebibyte comes back as it was', async bench => {
    const instance = await bench.start('echo');
    const text = '0123456789abcdef'.repeat(65_536);
    const running = run(bench, instance, Buffer.from(text));
    assert.equal(await read((await running.reply).body), text);
    await doneOnce(running);
  });

  define("the function's own failure is a value", async bench => {
    const instance = await bench.start('failing');
    const running = run(bench, instance);
    const reply = await running.reply;
    assert.equal(reply.status, 502);
    assert.notEqual(reply.failure, undefined);
    await doneOnce(running);
    assert.equal(instance.alive, true, 'a failure of the function does not end its instance');
  });
}

function defineAborting(define: Define): void {
  define('aborted before the head, a call rejects with the reason and is done', async bench => {
    const instance = await bench.start('silent');
    const running = run(bench, instance);
    await sleep(systemClock, 50);
    running.signal.abort(leave);
    await assert.rejects(running.reply, leave);
    await doneOnce(running);
  });

  define('aborted before it began, a call rejects with the reason and is done', async bench => {
    const instance = await bench.start('silent');
    const signal = new CallSignal();
    signal.abort(leave);
    let ended = 0;
    const reply = instance.invoke(callOf(bench.version('silent'), emptyBody), signal, () => {
      ended++;
    });
    await assert.rejects(reply, leave);
    await until('done', () => ended === 1);
  });

  define(
    'aborted in mid-body, the body fails with the reason and the call is done',
    async bench => {
      const instance = await bench.start('endless');
      const running = run(bench, instance);
      const { body } = await running.reply;
      assert.ok(isStream(body));
      const reader = body[Symbol.asyncIterator]();
      assert.match(Buffer.from((await reader.next()).value!).toString(), /^(?:first|chunk 1)/);
      running.signal.abort(leave);
      await assert.rejects(async () => {
        while (!(await reader.next()).done);
      }, leave);
      await doneOnce(running);
    },
  );

  define('a reader that gives the body up ends the call', async bench => {
    const instance = await bench.start('endless');
    const running = run(bench, instance);
    const { body } = await running.reply;
    assert.ok(isStream(body));
    for await (const _ of body) break;
    await doneOnce(running);
  });

  define('a request body that breaks off ends the call', async bench => {
    const instance = await bench.start('echo');
    const request = new PushedBody({ onRead() {}, onCancel() {} });
    request.push(Buffer.from('half'));
    const running = run(bench, instance, request);
    const failed = assert.rejects(async () => read((await running.reply).body));
    await sleep(systemClock, 50);
    request.fail(leave);
    await failed;
    await doneOnce(running);
  });

  define('aborting after the answer changes nothing', async bench => {
    const instance = await bench.start('echo');
    const running = run(bench, instance, Buffer.from('x'));
    const reply = await running.reply;
    assert.equal(await read(reply.body), 'x');
    await doneOnce(running);
    running.signal.abort(leave);
    await doneOnce(running);
    assert.equal(instance.alive, true);
  });
}

function defineEnding(define: Define): void {
  define('an instance that crashes fails its calls once each, and has exited', async bench => {
    const instance = await bench.start('crashing');
    const running = run(bench, instance);
    const reply = await running.reply;
    assert.equal(reply.status, 502);
    assert.equal(reply.failure!.reason, 'crashed');
    assert.equal((await instance.exited).reason, 'crashed');
    assert.equal(instance.alive, false);
    await doneOnce(running);
  });

  define('an answer that breaks off fails its body', async bench => {
    const instance = await bench.start('breaking');
    const running = run(bench, instance);
    const reply = await running.reply;
    await assert.rejects(
      () => read(reply.body),
      error => isGatewayError(error),
    );
    await doneOnce(running);
  });

  define('stop finishes the calls in flight', async bench => {
    const instance = await bench.start('slow');
    const running = run(bench, instance);
    await sleep(systemClock, 50);
    const stopped = instance.stop(5000);
    assert.equal(instance.alive, false);
    const reply = await running.reply;
    assert.equal(await read(reply.body), 'late');
    assert.equal((await stopped).reason, 'stopped');
    await doneOnce(running);
  });

  define('stop ends the calls that take longer than its grace', async bench => {
    const instance = await bench.start('stubborn');
    const running = run(bench, instance);
    await sleep(systemClock, 50);
    assert.equal((await instance.stop(100)).reason, 'stopped');
    await Promise.allSettled([running.reply]);
    await doneOnce(running);
  });

  define('stop without grace ends an instance with a stubborn call at once', async bench => {
    const instance = await bench.start('stubborn');
    const running = run(bench, instance);
    await sleep(systemClock, 50);
    running.signal.abort(leave);
    await assert.rejects(running.reply, leave);
    assert.equal((await instance.stop(0)).reason, 'stopped');
    await doneOnce(running);
  });

  define('stopping again gives the same end', async bench => {
    const instance = await bench.start('echo');
    const [one, two] = await Promise.all([instance.stop(1000), instance.stop(0)]);
    assert.deepEqual(one, two);
    assert.deepEqual(await instance.stop(0), one);
    assert.deepEqual(await instance.exited, one);
    assert.equal(instance.alive, false);
  });

  define('a shorter grace counts, whenever it is given', async bench => {
    const instance = await bench.start('stubborn');
    const running = run(bench, instance);
    await sleep(systemClock, 50);
    // Longer than this test may take.
    void instance.stop(600_000);
    assert.equal((await instance.stop(100)).reason, 'stopped');
    await Promise.allSettled([running.reply]);
    await doneOnce(running);
  });

  define('a call into an instance that has ended is refused and done', async bench => {
    const instance = await bench.start('echo');
    await instance.stop(0);
    const running = run(bench, instance);
    await assert.rejects(running.reply, error => isGatewayError(error));
    await doneOnce(running);
  });

  define('close ends everything, calls in flight included, and may be repeated', async bench => {
    const instances = [await bench.start('silent'), await bench.start('stubborn')];
    const running = instances.map(instance => run(bench, instance));
    await sleep(systemClock, 50);
    await bench.driver.close();
    await bench.driver.close();
    await Promise.all(instances.map(instance => instance.exited));
    await Promise.allSettled(running.map(one => one.reply));
    await doneOnce(...running);
  });
}
