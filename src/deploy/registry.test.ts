/** Goal: users stay within their range and are given again as late as possible. Method: a registry of rows by hand. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createSealer } from '../auth/seal.ts';
import { createMemoryStore } from '../store/memory.ts';
import { Registry } from './registry.ts';

function registry(): Registry {
  return new Registry({
    store: createMemoryStore(),
    sealer: createSealer(new Uint8Array(32)),
    runtimes: new Map(),
    codeDirectory: '/nowhere',
    uidFirst: 1000,
  });
}

function row(identity: number) {
  return {
    id: `fn_${identity}`,
    namespace: 'default',
    name: `f${identity}`,
    settings: {
      auth: 'none' as const,
      instances: { min: 0, max: 1, idleMs: 1 },
      labels: {},
      description: '',
    },
    sealedToken: new Uint8Array(),
    identity,
    createdMs: 0,
    updatedMs: 0,
    revision: 1,
  };
}

test('every user of the range is given once, and none beyond it', () => {
  const functions = registry();
  const given: number[] = [];
  for (let i = 0; i < 3; i++) {
    const identity = functions.freeIdentity(3)!;
    given.push(identity);
    functions.add(row(identity));
  }
  assert.deepEqual(given, [0, 1, 2]);
  assert.equal(functions.freeIdentity(3), undefined);
});

test('a removed function frees its user for the last of the next ones', () => {
  const functions = registry();
  const first = functions.add(row(functions.freeIdentity(3)!));
  assert.equal(functions.has(first.row.id), true);
  functions.remove(first);
  assert.equal(functions.has(first.row.id), false);
  assert.equal(functions.freeIdentity(3), 1);
  assert.equal(functions.freeIdentity(3), 2);
  assert.equal(functions.freeIdentity(3), 0);
});
