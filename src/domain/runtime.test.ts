/** Goal: a runtime is found by what people call it. Method: tables of runtimes and names. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { findRuntime, runtimeSchema } from './runtime.ts';

const minimal = { name: 'mine', protocol: 'stdio', command: ['/bin/cat'], entries: ['a'] };

test('a runtime is found by its name first, else by the last that has the alias', () => {
  const runtimes = [
    { name: 'a', aliases: ['x', 'b', 'Old'] },
    { name: 'b', aliases: ['x'] },
  ];
  const found = (name: string) => findRuntime(runtimes, name)?.name;
  assert.deepEqual(['a', 'b', 'x', 'Old', 'old'].map(found), ['a', 'b', 'b', 'a', undefined]);
});

test('aliases may have capitals, and are none where a runtime.yaml names none', () => {
  assert.deepEqual(runtimeSchema.parse(minimal).aliases, []);
  assert.deepEqual(runtimeSchema.parse({ ...minimal, aliases: ['Mine-1'] }).aliases, ['Mine-1']);
  assert.equal(runtimeSchema.safeParse({ ...minimal, aliases: ['a b'] }).success, false);
});
