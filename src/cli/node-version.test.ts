/** Goal: a Node that is too old is known by its number. Method: versions by hand. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { isOlder, neededNode } from './node-version.ts';

test('numbers are compared one by one, not as text', () => {
  for (const version of ['18.20.4', '20.20.2', '24.9.0', '24.14.9', '9.15.0'])
    assert.ok(isOlder(version, '24.15'), version);
  for (const version of ['24.15.0', '24.15.0-rc.1', '24.100.0', '25.0.0', '100.0.0'])
    assert.ok(!isOlder(version, '24.15'), version);
});

test('the package asks for the same', () => {
  const manifest = new URL('../../package.json', import.meta.url);
  const { engines } = JSON.parse(readFileSync(manifest, 'utf8'));
  assert.equal(engines.node, `>=${neededNode}`);
});
