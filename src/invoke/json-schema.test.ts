/**
 * Goal: what a compiled schema says of a value, where the library's own check was replaced or its message is told in other
 * words. Method: plain values, and random texts with characters of one and two units.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { compileSchema } from './json-schema.ts';

const texts = fc.string({
  unit: fc.constantFrom('a', '\ud83d', '\ude00', '😀', '\u0301'),
  maxLength: 12,
});

test('the length of a text is that of its code points', async () => {
  const limits = Array.from({ length: 14 }, (_, limit) => limit);
  const [longest, shortest] = await Promise.all([
    Promise.all(limits.map(maxLength => compileSchema({ maxLength }, 'schema.in'))),
    Promise.all(limits.map(minLength => compileSchema({ minLength }, 'schema.in'))),
  ]);
  fc.assert(
    fc.property(texts, fc.constantFrom(...limits), (text, limit) => {
      const { length } = [...text];
      assert.equal(longest[limit]!(text) === undefined, length <= limit);
      assert.equal(shortest[limit]!(text) === undefined, length >= limit);
    }),
    { numRuns: 2000 },
  );
});

test('what is wrong is told with its path', async () => {
  const check = await compileSchema(
    {
      type: 'object',
      required: ['id'],
      additionalProperties: false,
      properties: {
        id: { type: 'integer' },
        names: { type: 'array', items: { type: 'string', minLength: 2, maxLength: 3 } },
      },
    },
    'schema.in',
  );
  assert.equal(check({ id: 1, names: ['ab', '😀😀😀'] }), undefined);
  assert.equal(check({ id: 1, names: [7] })?.path, 'names.0');
  assert.deepEqual(check({}), { path: 'id', message: 'is missing' });
  assert.deepEqual(check({ id: 1, other: 1 }), { path: 'other', message: 'is not expected' });
  assert.deepEqual(check({ id: 1, names: ['ab', '😀'] }), {
    path: 'names.1',
    message: 'must NOT have fewer than 2 characters',
  });
  assert.deepEqual(check({ id: 1, names: ['abcd'] }), {
    path: 'names.0',
    message: 'must NOT have more than 3 characters',
  });
});

test('a length that is none is no schema', async () => {
  for (const maxLength of [-1, 1.5, 'many'])
    await assert.rejects(compileSchema({ maxLength }, 'schema.in'), { code: 'SCHEMA_INVALID' });
});
