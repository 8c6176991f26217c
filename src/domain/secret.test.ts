/** Goal: names are what an environment can hold, and no form of a value escapes its mask. Method: examples. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formsOf, secretNameSchema, secretUseSchema } from './secret.ts';

test('names are those of variables, and not the gateway’s own', () => {
  for (const name of ['A', '_a1', 'API_KEY', 'x'.repeat(128)])
    assert.equal(secretNameSchema.safeParse(name).success, true, name);
  for (const name of ['', '1A', 'a-b', 'a b', 'ä', 'FNWAY_X', 'x'.repeat(129), '../x'])
    assert.equal(secretNameSchema.safeParse(name).success, false, name);
});

test('a use is a name, or a name with its place', () => {
  assert.deepEqual(secretUseSchema.parse('K'), { name: 'K', as: 'env' });
  assert.deepEqual(secretUseSchema.parse({ name: 'K', as: 'file' }), { name: 'K', as: 'file' });
  assert.equal(secretUseSchema.safeParse({ name: 'K', as: 'memory' }).success, false);
});

test('a value is found whole, by its lines, in JSON and in addresses; what is short is none', () => {
  const forms = formsOf('-----BEGIN\nab+c/d"e\nxy\n-----END\n');
  for (const form of ['-----BEGIN', 'ab+c/d"e', 'ab+c/d\\"e', 'ab%2Bc%2Fd%22e', '-----END'])
    assert.ok(forms.includes(form), form);
  assert.equal(forms.includes('xy'), false);
  assert.deepEqual(
    forms,
    [...forms].sort((a, b) => b.length - a.length),
  );
  assert.deepEqual(formsOf('abc'), []);
});
