/**
 * Goal: mistyped words find their candidate, unrelated ones find none. Method: a table and
 * properties.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { editDistance, suggest } from './suggest.ts';

const keys = ['runtime', 'source', 'entry', 'env', 'timeout', 'memory', 'concurrency', 'auth'];

for (const [word, expected] of [
  ['runtme', 'runtime'],
  ['runtiem', 'runtime'],
  ['Runtime', 'runtime'],
  ['sorce', 'source'],
  ['evn', 'env'],
  ['timeouts', 'timeout'],
  ['concurency', 'concurrency'],
  ['x', undefined],
  ['', undefined],
  ['replicas', undefined],
  ['y'.repeat(10_000), undefined],
] as const) {
  test(`${JSON.stringify(word.slice(0, 20))} suggests ${expected}`, () => {
    assert.equal(suggest(word, keys), expected);
  });
}

test('no candidates, no suggestion', () => {
  assert.equal(suggest('anything', []), undefined);
});

test('the nearest of several is taken', () => {
  assert.equal(suggest('greet1', ['greet22', 'greet2', 'greetings']), 'greet2');
});

test('the distance is a metric as far as users notice', () => {
  const word = fc.string({ maxLength: 12 });
  fc.assert(
    fc.property(word, word, (a, b) => {
      assert.equal(editDistance(a, a), 0);
      assert.equal(editDistance(a, b), editDistance(b, a));
      assert.ok(editDistance(a, b) <= Math.max(a.length, b.length));
      assert.ok(editDistance(a, b) >= Math.abs(a.length - b.length));
    }),
  );
});

test('a word that is a candidate suggests itself', () => {
  fc.assert(
    fc.property(fc.string({ minLength: 1, maxLength: 60 }), word => {
      assert.equal(suggest(word, [word]), word);
    }),
  );
});
