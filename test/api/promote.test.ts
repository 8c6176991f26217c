/**
 * Goal: which version answers can be chosen among those that are ready, without a call dropped, and stays chosen; what
 * cannot answer is never chosen. Method: versions that say who they are, callers in a loop, parallel changes, a restart.
 */
import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { javascript, startTestGateway } from '../../src/testing/index.ts';

const gateway = await startTestGateway({ shared: true });
const { call, put, client } = gateway;

const says = (text: string, settings = {}) =>
  javascript(`export default () => new Response('${text}');`, settings);
const answerOf = async (name: string) => (await call(`/function/${name}`)).text();
const refused = (code: string, message: RegExp) => ({ code, message });

test('an earlier version answers again, and a later one after it; both stay callable by number', async () => {
  await put('back', says('v1'));
  await put('back', says('v2'));
  for (const number of [1, 2, 2, 1]) {
    const view = await client.promoteVersion('back', number);
    assert.equal(view.activeVersion, number);
    assert.equal(view.latestVersion.number, 2);
    assert.equal(await answerOf('back'), `v${number}`);
    assert.equal(await answerOf('back@1'), 'v1');
    assert.equal(await answerOf('back@2'), 'v2');
  }
  assert.equal((await client.listVersions('back')).items.length, 2, 'no version was made');
});

test('settings are the function’s: they are not rolled back', async () => {
  await put('set', says('v1', { auth: 'none', labels: { a: '1' } }));
  await put('set', says('v2', { auth: 'token', labels: { a: '2' } }));
  const view = await client.promoteVersion('set', 1);
  assert.deepEqual([view.auth, view.labels], ['token', { a: '2' }]);
  const { token } = await client.getToken('set');
  const headers = { authorization: `Bearer ${token}` };
  assert.equal(await (await call('/function/set', { headers })).text(), 'v1');
});

test('what is not there, or not ready, is refused, and what answers goes on', async () => {
  await put('kept', says('v1'));
  const broken = javascript('export const broken = ;', { auth: 'none' });
  await client.putFunction('kept', broken, { wait: '30s' });
  await assert.rejects(
    client.promoteVersion('kept', 3),
    refused('VERSION_NOT_FOUND', /kept has no version 3/),
  );
  await assert.rejects(
    client.promoteVersion('kept', 2),
    refused('VERSION_NOT_READY', /version 2 of kept is failed/),
  );
  await assert.rejects(client.promoteVersion('nobody', 1), { code: 'FUNCTION_NOT_FOUND' });
  for (const number of ['0', '-1', '1.5', 'x', '9999999999']) {
    const path = `/v1/namespaces/default/functions/kept/versions/${number}/promote`;
    const headers = { authorization: `Bearer ${gateway.adminToken}` };
    const { status } = await call(path, { method: 'POST', headers });
    assert.equal(status, 400, number);
  }
  const { activeVersion } = await client.getFunction('kept');
  assert.deepEqual([activeVersion, await answerOf('kept')], [1, 'v1']);
});

test('a version that does not load any more is refused, and what answers goes on', async () => {
  const marker = join(gateway.data, 'code', 'promote-marker');
  const once = `import { existsSync } from 'node:fs';
if (existsSync(${JSON.stringify(marker)})) throw new Error('the world has changed');
export default () => new Response('v1');`;
  await put('loads', javascript(once, { instances: { idle: '1s' } }));
  await put('loads', says('v2', { instances: { idle: '1s' } }));
  writeFileSync(marker, '');
  // Its instance went when version 2 took over: it has to load anew.
  await assert.rejects(
    client.promoteVersion('loads', 1),
    refused('LOAD_FAILED', /version 1 of loads does not load any more: .*world has changed/),
  );
  assert.deepEqual(
    [(await client.getFunction('loads')).activeVersion, await answerOf('loads')],
    [2, 'v2'],
  );
});

test('what is deployed after a rollback takes over, also the content that was rolled back', async () => {
  await put('again', says('v1'));
  await put('again', says('v2'));
  await client.promoteVersion('again', 1);
  const back = await client.putFunction('again', says('v2', { auth: 'none' }), { wait: '30s' });
  assert.deepEqual([back.outcome, back.version, back.function.activeVersion], ['updated', 3, 3]);
  const same = await client.putFunction('again', says('v2', { auth: 'none' }), { wait: '30s' });
  assert.equal(same.outcome, 'unchanged');
  assert.equal(await answerOf('again'), 'v2');
});

test('a build that was deployed before a version was chosen does not overrule the choice', async () => {
  const marker = join(gateway.data, 'code', 'promote-slow');
  const slow = `import { existsSync } from 'node:fs';
while (!existsSync(${JSON.stringify(marker)})) await new Promise(r => setTimeout(r, 5));
export default () => new Response('slow');`;
  for (const chosen of [1, 2]) {
    rmSync(marker, { force: true });
    const name = `chosen-${chosen}`;
    await put(name, says('v1'));
    await put(name, says('v2'));
    await client.putFunction(name, javascript(`${slow} // ${chosen}`, { auth: 'none' }));
    await client.promoteVersion(name, chosen);
    writeFileSync(marker, '');
    const { state } = await client.getVersion(name, 3, { wait: '30s' });
    assert.equal(state, 'ready');
    assert.equal((await client.getFunction(name)).activeVersion, chosen);
    assert.equal(await answerOf(name), `v${chosen}`);
    await client.promoteVersion(name, 3);
    assert.equal(await answerOf(name), 'slow');
  }
});

test('no call is dropped while versions are promoted back and forth', async () => {
  await put('forth', says('v1'));
  await put('forth', says('v2'));
  let ends = false;
  const seen: string[] = [];
  const callers = Array.from({ length: 8 }, async () => {
    while (!ends) {
      const response = await call('/function/forth');
      seen.push(`${response.status} ${await response.text()}`);
    }
  });
  for (let i = 0; i < 10; i++) {
    const number = (i % 2) + 1;
    await client.promoteVersion('forth', number);
    assert.equal(await answerOf('forth'), `v${number}`);
  }
  ends = true;
  await Promise.all(callers);
  const odd = seen.filter(answer => answer !== '200 v1' && answer !== '200 v2');
  assert.deepEqual(odd, []);
  assert.ok(seen.length > 20, `only ${seen.length} calls`);
});

test('promotions, deploys and rotations at once end in one state that is what answers', async () => {
  await put('many', says('v1'));
  await put('many', says('v2'));
  const changes = Array.from({ length: 12 }, (_, i) =>
    i % 4 === 3 ? client.rotateToken('many') : client.promoteVersion('many', (i % 2) + 1),
  );
  changes.push(put('many', says('v3')) as Promise<never>);
  // A build that ends in the middle of a promotion may be what the store takes first.
  for (const result of await Promise.allSettled(changes))
    if (result.status === 'rejected') assert.equal(result.reason.code, 'REVISION_CONFLICT');
  const { activeVersion } = await client.getFunction('many');
  assert.equal(await answerOf('many'), `v${activeVersion}`);
});
