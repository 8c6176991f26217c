/**
 * Goal: of a function's versions the newest are kept and the one that answers, the others go with their files, their
 * sources and their numbers; none goes while a call is in it. Method: a gateway that keeps three.
 */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { javascript, problemOf, startTestGateway, waitFor } from '../../src/testing/index.ts';

const gateway = await startTestGateway({ shared: true, settings: { versionsKeptMax: '3' } });
const { call, put, client } = gateway;

const says = (text: string) => javascript(`export default () => new Response('${text}');`);
const numbersOf = async (name: string) =>
  (await client.listVersions(name)).items.map(({ number }) => number);
const keeps = (name: string, numbers: number[]) =>
  waitFor(async () => String(await numbersOf(name)) === String(numbers));

/** Versions with files, as the gateway's directory has them. */
async function filesOf(name: string): Promise<string[]> {
  const { id } = await client.getFunction(name);
  const names = readdirSync(join(gateway.data, 'code', id));
  return names.filter(entry => /^\d/.test(entry)).sort();
}

test('the newest are kept; the others are gone, with all that is theirs', async () => {
  for (let i = 1; i <= 6; i++) await put('many', says(`many ${i}`));
  await keeps('many', [6, 5, 4]);
  await waitFor(async () => (await filesOf('many')).length === 6);
  assert.deepEqual(await filesOf('many'), ['4', '4.json', '5', '5.json', '6', '6.json']);
  await problemOf(await call('/function/many@3'), { status: 404, code: 'VERSION_NOT_FOUND' });
  assert.equal(await (await call('/function/many@4')).text(), 'many 4');
  await assert.rejects(client.promoteVersion('many', 3), { code: 'VERSION_NOT_FOUND' });
  const digests = (await client.listVersions('many')).items.map(({ source }) => source!);
  for (const digest of digests) assert.ok(await client.getSource(digest));
  // A number is never used again, and what was removed may be deployed again.
  await put('many', says('many 1'));
  assert.equal(await (await call('/function/many@7')).text(), 'many 1');
});

test('sources that no version names any more are removed', async () => {
  await put('sourced', says('sourced 1'));
  const digest = (await client.getFunction('sourced')).latestVersion.source!;
  for (let i = 2; i <= 4; i++) await put('sourced', says(`sourced ${i}`));
  await waitFor(async () => (await client.getSource(digest)) === undefined);
});

test('the version that answers is kept, however old', async () => {
  await put('old', says('old 1'));
  for (let i = 2; i <= 5; i++)
    await client.putFunction('old', javascript(`export const broken${i} = ;`, { auth: 'none' }), {
      wait: '30s',
    });
  await keeps('old', [5, 4, 3, 1]);
  assert.equal(await (await call('/function/old')).text(), 'old 1');
});

test('a version with a call in it stays until a later deploy', async () => {
  const marker = join(gateway.data, 'code', 'retention-marker');
  const held = `import { existsSync } from 'node:fs';
export default async () => {
  while (!existsSync(${JSON.stringify(marker)})) await new Promise(r => setTimeout(r, 5));
  return new Response('held');
};`;
  await put('held', javascript(held));
  const answer = call('/function/held@1');
  const busy = 'fnway_instances{namespace="default",function="held",version="1",state="busy"} 1';
  await waitFor(async () => (await (await call('/metrics')).text()).includes(busy));
  for (let i = 2; i <= 5; i++) await put('held', says(`held ${i}`));
  await keeps('held', [5, 4, 3, 1]);
  writeFileSync(marker, '');
  assert.equal(await (await answer).text(), 'held');
  // As a gateway leaves it that is killed between its store and its files.
  const { id } = await client.getFunction('held');
  const left = join(gateway.data, 'code', id, '2');
  await waitFor(() => !existsSync(left));
  mkdirSync(left);
  await put('held', says('held 6'));
  await keeps('held', [6, 5, 4]);
  await waitFor(() => !existsSync(left));
});
