/** Goal: calls are split in proportion, and the same text always goes to the same place. Method: counting. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Splitter, trafficProblem, trafficSchema } from './traffic.ts';

/** Percents that add up to 100. */
const split = fc
  .array(fc.integer({ min: 0, max: 100 }), { maxLength: 4 })
  .map(cuts => [0, ...cuts.sort((a, b) => a - b), 100])
  .map(bounds => bounds.slice(1).map((bound, i) => bound - bounds[i]!));

test('any number of calls is split in proportion', () => {
  fc.assert(
    fc.property(split, fc.integer({ min: 1, max: 2000 }), (percents, calls) => {
      const splitter = new Splitter(percents);
      const counts = percents.map(() => 0);
      for (let i = 0; i < calls; i++) counts[splitter.next()]!++;
      for (const [i, count] of counts.entries())
        assert.ok(Math.abs(count - (calls * percents[i]!) / 100) <= 6, `${count} of ${calls}`);
    }),
  );
});

test('a share of nothing gets nothing', () => {
  const splitter = new Splitter([0, 100, 0]);
  for (let i = 0; i < 1000; i++) assert.equal(splitter.next(), 1);
  for (let i = 0; i < 1000; i++) assert.equal(splitter.of(`user-${i}`), 1);
});

test('texts are spread in proportion, stay where they are, and move only with the shares', () => {
  const [few, more] = [new Splitter([90, 10]), new Splitter([80, 20])];
  let second = 0;
  for (let i = 0; i < 5000; i++) {
    const place = few.of(`user-${i}`);
    assert.equal(few.of(`user-${i}`), place);
    second += place;
    if (place === 1) assert.equal(more.of(`user-${i}`), 1, 'who had the new version keeps it');
  }
  assert.ok(Math.abs(second - 500) < 100, `${second} of 5000`);
});

test('a split adds up to 100, among versions that have a share', () => {
  const parsed = trafficSchema.parse({ shares: { 4: 10, 3: 90, 2: 0 }, stickyHeader: 'X-User' });
  assert.deepEqual(parsed, {
    shares: [
      { version: 3, percent: 90 },
      { version: 4, percent: 10 },
    ],
    stickyHeader: 'x-user',
  });
  assert.equal(trafficProblem(parsed), undefined);
  assert.match(
    trafficProblem({ shares: [{ version: 1, percent: 95 }] })!,
    /add up to 95, not to 100/,
  );
  assert.match(trafficProblem({ shares: [] })!, /add up to 0/);
  const many = Array.from({ length: 11 }, (_, i) => ({ version: i + 1, percent: i < 10 ? 9 : 10 }));
  assert.match(trafficProblem({ shares: many })!, /11 versions; 10 are the most/);
  for (const bad of [{ shares: { 0: 100 } }, { shares: { x: 100 } }, { shares: { 1: 50.5 } }, {}])
    assert.equal(trafficSchema.safeParse(bad).success, false);
});
