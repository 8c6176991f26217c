/** Goal: the place of a JSON mistake is right. Method: a table, and agreement with JSON.parse on random texts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { firstJsonError } from './json-error.ts';

const table: Array<[string, number, number]> = [
  ['{\n "runtime": node\n}', 2, 13],
  ['{"a": 1,}', 1, 9],
  ['{"a" 1}', 1, 6],
  ['[1, 2', 1, 6],
  ['', 1, 1],
  ['{"a": "x\n"}', 1, 7],
  ['{} {}', 1, 4],
  ['01', 1, 1],
];

for (const [text, line, column] of table) {
  test(`${JSON.stringify(text)} is wrong at line ${line}, column ${column}`, () => {
    const error = firstJsonError(text);
    assert.deepEqual([error?.line, error?.column], [line, column], error?.message);
  });
}

test('it agrees with JSON.parse on what is JSON', () => {
  const mutated = fc
    .tuple(fc.json(), fc.nat(), fc.string({ maxLength: 2 }))
    .map(([text, at, piece]) => {
      const i = at % (text.length + 1);
      return text.slice(0, i) + piece + text.slice(i + 1);
    });
  fc.assert(
    fc.property(fc.oneof(fc.json(), fc.string(), mutated), text => {
      let valid = true;
      try {
        JSON.parse(text);
      } catch {
        valid = false;
      }
      assert.equal(firstJsonError(text) === undefined, valid, text);
    }),
    { numRuns: 500 },
  );
});
