/**
 * Goal: the gateway and the token that a command uses are those that its user means, and a refusal
 * says which. Method: data directories of a test, and a node:http server that is healthy.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import type { Problem } from '../../client/errors.ts';
import { explainRefusal, findAccess, leaveAddress, takeAddress } from './access.ts';

const directory = mkdtempSync(path.join(tmpdir(), 'fnway-access-'));
const tokenPath = path.join(directory, 'admin.token');
const env = { FNWAY_DATA: directory };
const server = createServer((_request, response) => response.end('ok\n'));
let url = '';
before(async () => {
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  writeFileSync(tokenPath, 'from-file\n');
});
after(() => {
  server.closeAllConnections();
  server.close();
  rmSync(directory, { recursive: true });
});

test('an address left is used while a gateway answers there, and nothing else was named', async () => {
  await leaveAddress(directory, url);
  assert.equal(statSync(path.join(directory, 'address')).mode & 0o777, 0o600);
  assert.equal((await findAccess({}, env)).url, url);
  assert.equal((await findAccess({ url: 'http://other:1' }, env)).url, 'http://other:1');
  const named = { ...env, FNWAY_URL: 'http://127.0.0.1:3' };
  assert.equal((await findAccess({}, named)).url, 'http://127.0.0.1:3');
  // Nothing listens on port 2: what was killed took nothing back.
  await leaveAddress(directory, 'http://127.0.0.1:2');
  assert.equal((await findAccess({}, env)).url, 'http://127.0.0.1:8080');
  takeAddress(directory);
  assert.equal((await findAccess({}, env)).url, 'http://127.0.0.1:8080');
});

test('an address that is not of this machine is not used: it would be sent the token', async () => {
  // Answers, but is not written as one of this machine.
  const foreign = url.replace('127.0.0.1', '[::ffff:127.0.0.1]');
  assert.equal((await fetch(`${foreign}/healthz`)).ok, true);
  await leaveAddress(directory, foreign);
  assert.equal((await findAccess({}, env)).url, 'http://127.0.0.1:8080');
  takeAddress(directory);
});

test('one that listens on all addresses is reached on this machine', async () => {
  await leaveAddress(directory, url.replace('127.0.0.1', '0.0.0.0'));
  assert.equal((await findAccess({}, env)).url, url);
  takeAddress(directory);
});

test('a token that cannot be one is refused without being shown', async () => {
  for (const token of ['a\nb', 'a b', 'ä']) {
    await assert.rejects(findAccess({ token: `secret${token}` }, env), error => {
      assert.equal((error as { code?: string }).code, 'COMMAND_INVALID');
      assert.match((error as Error).message, /--token/);
      assert.doesNotMatch((error as Error).message, /secret/);
      return true;
    });
  }
});

test('a refusal names the gateway, where the token came from, and what to set', async () => {
  const problem = { code: 'UNAUTHENTICATED', detail: 'it needs a token' } as Problem;
  const told = async (given: object, more: Record<string, string>) => {
    const { detail, remedy } = explainRefusal(problem, await findAccess(given, more));
    return `${detail} ${remedy}`;
  };
  const at = { url };
  assert.match(await told({ ...at, token: 'x' }, env), /from --token\. Correct --token/);
  assert.match(await told(at, { ...env, FNWAY_TOKEN: 'x' }), /Correct FNWAY_TOKEN: it is/);
  const fromFile = await told(at, env);
  assert.ok(fromFile.includes(`The gateway at ${url} refused`), fromFile);
  assert.ok(fromFile.includes(`came from ${tokenPath}. Name the gateway of that file`), fromFile);
  const none = await told(at, { FNWAY_DATA: path.join(directory, 'none') });
  assert.match(none, /none is in --token, FNWAY_TOKEN or \S+none\/admin\.token\. Set FNWAY_TOKEN/);
  assert.match(await told({ url: 'http://far:1' }, env), /none is in --token or FNWAY_TOKEN\./);
});
