/**
 * Goal: no call suffers from a change of its function, and changes that come at once end in one of the states asked
 * for. Method: callers in a loop while versions are deployed; puts, creations and removals of one name in parallel.
 */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { javascript, startTestGateway, waitFor } from '../../src/testing/index.ts';

const gateway = await startTestGateway({ shared: true });
const { call, put, client } = gateway;

/** A function that answers the text. */
const says = (text: string) => javascript(`export default () => new Response('${text}');`);
const textOf = async (path: string) => (await call(path)).text();

test('no call is dropped while a function is updated', async () => {
  await put('busy', says('v1'));
  let ends = false;
  const seen: string[] = [];
  const callers = Array.from({ length: 8 }, async () => {
    while (!ends) {
      const response = await call('/function/busy');
      seen.push(`${response.status} ${await response.text()}`);
    }
  });
  for (let i = 2; i <= 6; i++) {
    await put('busy', says(`v${i}`));
    // What was deployed answers from now on, and nothing older.
    assert.equal(await textOf('/function/busy'), `v${i}`);
  }
  ends = true;
  await Promise.all(callers);
  const expected = Array.from({ length: 6 }, (_, i) => `200 v${i + 1}`);
  assert.deepEqual(
    [...new Set(seen)].filter(answer => !expected.includes(answer)),
    [],
  );
  assert.ok(seen.length > 50, `only ${seen.length} calls`);
});

test('a version whose build ends after a newer one’s is not kept running', async () => {
  const marker = join(gateway.data, 'code', 'superseded');
  const waits = `import { existsSync } from 'node:fs';
while (!existsSync(${JSON.stringify(marker)})) await new Promise(r => setTimeout(r, 5));
export default () => new Response('slow');`;
  const kept = { instances: { min: 1 } };
  await put('passed', { ...says('first'), ...kept });
  await client.putFunction('passed', { ...javascript(waits, { auth: 'none' }), ...kept });
  await put('passed', { ...says('newest'), ...kept });
  writeFileSync(marker, '');
  const stateOf = async () => (await client.getVersion('passed', 2)).state;
  await waitFor(async () => (await stateOf()) !== 'building');
  const instances = async () =>
    (await (await call('/metrics')).text())
      .split('\n')
      .filter(line => line.startsWith('fnway_instances{') && line.includes('"passed"'))
      .filter(line => !line.endsWith(' 0'));
  await waitFor(async () => (await instances()).every(line => line.includes('version="3"')));
  assert.equal(await textOf('/function/passed'), 'newest');
});

test('calls of a script harm no deploy of it', async () => {
  await put('shell', { script: 'printf v0' });
  let ends = false;
  const caller = (async () => {
    while (!ends) assert.equal((await call('/function/shell')).status, 200);
  })();
  // A check of the shell, and a compiler and an instance of Node: as the same user as the calls.
  for (let i = 1; i <= 8; i++) {
    await put('shell', { script: `printf v${i}` });
    assert.equal(await textOf('/function/shell'), `v${i}`);
  }
  await put('shell', {
    runtime: 'node',
    source: { files: { 'handler.ts': 'export default (): Response => new Response("node");' } },
  });
  assert.equal(await textOf('/function/shell'), 'node');
  ends = true;
  await caller;
});

test('a call that began in an old version ends in it', async () => {
  const marker = join(gateway.data, 'code', 'marker');
  const slow = (text: string) =>
    javascript(`import { existsSync } from 'node:fs';
export default async request => {
  while (request.url.endsWith('/held') && !existsSync(${JSON.stringify(marker)}))
    await new Promise(resolve => setTimeout(resolve, 5));
  return new Response('${text}');
};`);
  await put('stays', slow('old'));
  const held = call('/function/stays/held');
  await waitFor(async () => (await client.getFunction('stays')).running!.busy === 1);
  await put('stays', slow('new'));
  assert.equal(await textOf('/function/stays'), 'new');
  writeFileSync(marker, '');
  assert.equal(await (await held).text(), 'old');
});

test('concurrent puts of one function make one version each, in order', async () => {
  const puts = await Promise.all(
    Array.from({ length: 8 }, (_, i) =>
      client.putFunction('raced', { script: `printf ${i}`, auth: 'none' }, { wait: '30s' }),
    ),
  );
  assert.deepEqual(puts.map(result => result.version).sort(), [1, 2, 3, 4, 5, 6, 7, 8]);
  assert.equal(puts.filter(result => result.outcome === 'created').length, 1);
  const { items } = await client.listVersions('raced');
  assert.ok(items.every(item => item.state === 'ready'));
  await waitFor(async () => (await client.getFunction('raced')).activeVersion === 8);
  assert.equal(await textOf('/function/raced'), items[0]!.script!.slice(-1));
});

test('of concurrent creations one wins', async () => {
  const statuses = await Promise.all(
    Array.from({ length: 6 }, (_, i) =>
      client.createFunction('first', { script: `printf ${i}`, auth: 'none' }).then(
        () => 201,
        error => error.status,
      ),
    ),
  );
  assert.deepEqual(statuses.sort(), [201, 409, 409, 409, 409, 409]);
});

test('puts, removals and calls of one name at once end in one of the states asked for', async () => {
  const work = Array.from({ length: 12 }, async (_, i) => {
    if (i % 3 === 2) return client.removeFunction('torn');
    return client.putFunction('torn', { script: `printf ${i}`, auth: 'none' }, { wait: '30s' });
  });
  for (const result of await Promise.allSettled(work)) {
    if (result.status === 'rejected')
      assert.match(String(result.reason.code), /FUNCTION_NOT_FOUND|REVISION_CONFLICT/);
  }
  await put('torn', { script: 'printf whole' });
  assert.equal(await textOf('/function/torn'), 'whole');
});
