/**
 * Goal: the pool's limits hold and every call settles exactly once, whatever happens in whatever order. Method:
 * random sequences of calls, aborts, crashes, failing starts, new versions and passing time on the mock driver; a
 * failure prints the sequence and its seed.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { GatewayError } from '../errors.ts';
import { settle } from '../testing/fake-clock.ts';
import {
  type Bench,
  type Called,
  callPool,
  mockVersion,
  poolBench,
} from '../testing/pool-bench.ts';
import type { Version } from './invoke.ts';

const late = new GatewayError('CALL_DEADLINE_EXCEEDED', 'too slow');
const leave = new GatewayError('CALL_CANCELLED', 'the caller left');

type Step =
  | { do: 'call'; settings: Record<string, string> }
  | { do: 'abort'; which: number; reason: 'late' | 'leave' }
  | { do: 'pass'; ms: number }
  | { do: 'crash'; which: number }
  | { do: 'replace' };

const anyStep: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('call' as const),
      settings: fc.constantFrom<Record<string, string>>(
        {},
        { 'run-ms': '5' },
        { 'run-ms': '100' },
        { 'run-ms': '200', 'ignore-abort': 'true' },
        { 'run-ms': 'never' },
        { 'run-ms': '50', 'crash-after-ms': '20' },
        { fail: 'no luck' },
        { refuse: 'true' },
        { 'stream-chunks': '3', 'stream-delay-ms': '30' },
      ),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('abort' as const),
      which: fc.nat(30),
      reason: fc.constantFrom('late' as const, 'leave' as const),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('pass' as const),
      ms: fc.constantFrom(0, 1, 7, 30, 100, 600, 3000),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('crash' as const), which: fc.nat(5) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('replace' as const) }) },
);

const anyWorld = fc.record({
  concurrency: fc.integer({ min: 1, max: 3 }),
  min: fc.integer({ min: 0, max: 1 }),
  max: fc.integer({ min: 1, max: 3 }),
  startDelayMs: fc.constantFrom('1', '40'),
  failures: fc.constantFrom('0', '0', '2'),
});

type Shape = typeof anyWorld extends fc.Arbitrary<infer T> ? T : never;

/** Was found by chance: a late call returns while the instance that takes its place is starting. */
const returnsWhileReplaced: [shape: Shape, steps: Step[]] = [
  { concurrency: 1, min: 0, max: 1, startDelayMs: '1', failures: '0' },
  [
    { do: 'call', settings: {} },
    { do: 'call', settings: {} },
    { do: 'call', settings: { 'run-ms': 'never' } },
    { do: 'pass', ms: 7 },
    { do: 'call', settings: {} },
    { do: 'abort', which: 2, reason: 'late' },
    { do: 'pass', ms: 1 },
  ],
];

class World {
  readonly bench: Bench = poolBench();
  readonly called: Called[] = [];
  readonly retired = new Set<Version>();
  readonly #make: () => Version;
  version: Version;

  constructor(make: () => Version) {
    this.#make = make;
    this.version = make();
    this.bench.pool.activate(this.version);
  }

  async take(step: Step): Promise<void> {
    const { pool, clock, driver } = this.bench;
    if (step.do === 'call') this.called.push(callPool(pool, this.version, step.settings));
    else if (step.do === 'abort')
      this.called[step.which]?.signal.abort(step.reason === 'late' ? late : leave);
    else if (step.do === 'pass') await this.#pass(clock.monotonicMs() + step.ms);
    else if (step.do === 'crash') void [...driver.instances][step.which]?.kill('crashed');
    else {
      const old = this.version;
      this.version = this.#make();
      pool.activate(this.version);
      pool.retire(old);
      this.retired.add(old);
    }
    await settle();
    this.check();
  }

  /** In small steps, so that a limit that is broken for a moment is seen. */
  async #pass(untilMs: number): Promise<void> {
    const { clock } = this.bench;
    while (clock.monotonicMs() < untilMs) {
      await clock.advance(Math.min(25, untilMs - clock.monotonicMs()));
      this.check();
    }
    await settle();
  }

  check(): void {
    const taking = new Map<Version, number>();
    for (const { version, inFlight, alive, isLate } of this.bench.driver.instances) {
      assert.ok(inFlight <= version.concurrency, `${inFlight} calls in one instance`);
      // One that waits for a late handler takes no call; another may take its place meanwhile.
      if (alive && !isLate && !this.retired.has(version))
        taking.set(version, (taking.get(version) ?? 0) + 1);
    }
    for (const [version, count] of taking)
      assert.ok(count <= version.settings.instances.max, `${count} instances take calls`);
    for (const called of this.called) assert.ok(called.settled <= 1, 'a call settles once');
    const unsettled = this.called.filter(called => called.settled === 0).length;
    let known = 0;
    for (const { waiting } of this.bench.pool.counts()) known += waiting;
    for (const { inFlight } of this.bench.driver.instances) known += inFlight;
    assert.ok(unsettled <= known, `${unsettled} calls have no answer, the pool knows ${known}`);
  }
}

test('limits hold and every call settles exactly once', async () => {
  const steps = fc.array(anyStep, { minLength: 1, maxLength: 40 });
  await fc.assert(
    fc.asyncProperty(anyWorld, steps, async (shape, sequence) => {
      const { startDelayMs, failures, ...parts } = shape;
      const env = {
        MOCK_START_DELAY_MS: startDelayMs,
        ...(failures !== '0' && { MOCK_START_ERROR: 'no', MOCK_START_FAILURES: failures }),
      };
      const world = new World(() => mockVersion(env, { ...parts, idleMs: 1000 }));
      const { clock, pool, driver } = world.bench;
      for (const step of sequence) await world.take(step);
      // Whoever still waits, waits for a call that never answers: those leave.
      await clock.advance(5000);
      for (const called of world.called) if (called.settled === 0) called.signal.abort(leave);
      await settle();
      assert.ok(world.called.every(called => called.settled === 1));
      await clock.advance(5000);
      world.check();
      const { min } = shape;
      const idle = [...driver.instances].filter(instance => instance.inFlight === 0);
      const kept = idle.filter(instance => instance.version === world.version).length;
      assert.ok(kept <= Math.max(min, 0) && kept === idle.length, `${idle.length} idle are kept`);
      const stopped = pool.stop(100);
      await clock.advance(100);
      await stopped;
      assert.equal(driver.instances.size, 0);
      await clock.advance(60_000);
      assert.equal(clock.pending, 0, 'timers are left');
    }),
    { numRuns: 300, examples: [returnsWhileReplaced] },
  );
});
