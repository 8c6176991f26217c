/**
 * Goal: plan, apply and destroy do what CI needs: they tell what somebody has changed on the server, change nothing when
 * asked not to, end with a code that says what is, and several at once do no harm. Method: the real command against a real
 * gateway.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { startTestGateway } from '../../src/testing/index.ts';

const gateway = await startTestGateway({ shared: true });
const { client } = gateway;
const directory = mkdtempSync(join(tmpdir(), 'fnway-apply-'));
after(() => rmSync(directory, { recursive: true }));

const program = join(import.meta.dirname, '../../src/cli/cli.ts');

async function fnway(...words: string[]): Promise<{ code: number; text: string }> {
  const env = {
    PATH: process.env.PATH,
    FNWAY_URL: gateway.url,
    FNWAY_TOKEN: gateway.adminToken,
    NO_COLOR: '1',
  };
  const child = spawn(process.execPath, [program, ...words], {
    env,
    cwd: directory,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let text = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => (text += chunk));
  const code = await new Promise<number>(resolve => child.once('close', resolve));
  return { code, text };
}

function manifest(functions: string, project = 'shop'): void {
  writeFileSync(join(directory, 'fnway.yaml'), `project: ${project}\nfunctions:\n${functions}`);
}

test('a dry run shows and changes nothing; a code says whether there is something to change', async () => {
  manifest('  one: { script: "echo 1", auth: none }\n');
  const dry = await fnway('apply', '--dry-run');
  assert.match(dry.text, /\+ one {2}create\n1 to create/);
  assert.equal(dry.code, 0);
  await assert.rejects(client.getFunction('one'), { code: 'FUNCTION_NOT_FOUND' });
  assert.equal((await fnway('plan')).code, 0);
  assert.equal((await fnway('plan', '--exit-code')).code, 6);
  assert.equal((await fnway('apply')).code, 0);
  const { text, code } = await fnway('plan', '--exit-code');
  assert.match(text, /= one {2}unchanged/);
  assert.equal(code, 0);
});

test('a second apply changes nothing, also while calls are split', async () => {
  manifest('  one: { script: "echo 1", auth: none }\n');
  await fnway('apply');
  const before = await client.getFunction('one');
  assert.match((await fnway('apply')).text, /= one {2}unchanged/);
  await client.splitTraffic('one', { shares: { [before.latestVersion.number]: 100 } });
  manifest('  one: { script: "echo 2", auth: none }\n');
  assert.match((await fnway('apply')).text, /~ one {2}updated version \d/);
  assert.match((await fnway('apply')).text, /= one {2}unchanged/);
  assert.equal(await (await gateway.call('/function/one')).text(), '1\n');
  const { number } = (await client.getFunction('one')).latestVersion;
  await client.promoteVersion('one', number);
  assert.match((await fnway('apply')).text, /= one {2}unchanged/);
});

test('what somebody has changed on the server is told, and set back', async () => {
  manifest('  one: { script: "echo 3", auth: none, timeout: 10s }\n');
  await fnway('apply');
  assert.equal((await client.getFunction('one')).drifted, undefined);
  const deployed = await fnway(
    'deploy',
    'one',
    '--script',
    'echo hacked',
    '--auth',
    'none',
    '--timeout',
    '10s',
  );
  assert.equal(deployed.code, 0, deployed.text);
  assert.equal((await client.getFunction('one')).drifted, true);
  const { text } = await fnway('plan');
  assert.match(
    text,
    /~ one {2}update: changed on the server since it was applied\n {4}script changed/,
  );
  const json = JSON.parse((await fnway('plan', '--json')).text);
  assert.deepEqual([json[0].kind, json[0].drifted], ['update', true]);
  await fnway('apply');
  assert.equal((await client.getFunction('one')).drifted, undefined);
  assert.equal(await (await gateway.call('/function/one')).text(), '3\n');
  // A change of the manifest is none on the server.
  manifest('  one: { script: "echo 3", auth: none, timeout: 20s }\n');
  assert.doesNotMatch((await fnway('plan')).text, /changed on the server/);
});

test('two applies at once end well, and make one version', async () => {
  manifest(
    '  both: { script: "echo both", auth: none }\n  one: { script: "echo 4", auth: none }\n',
  );
  const runs = await Promise.all([fnway('apply'), fnway('apply'), fnway('apply')]);
  for (const { code, text } of runs) assert.equal(code, 0, text);
  assert.equal((await client.listVersions('both')).items.length, 1);
  assert.equal(await (await gateway.call('/function/both')).text(), 'both\n');
  assert.equal((await fnway('plan', '--exit-code')).code, 0);
});

test('one that fails does not stop the others, and the summary says what was done', async () => {
  writeFileSync(join(directory, 'bad.mjs'), 'this is no code');
  manifest(
    '  both: { script: "echo again", auth: none }\n  bad: { runtime: node, source: ./bad.mjs }\n  new: { script: "echo new" }\n',
  );
  const { code, text } = await fnway('apply');
  assert.equal(code, 1);
  assert.match(text, /✗ bad +failed/);
  // In the order in which they ended.
  for (const part of ['1 created', '1 updated', '1 failed', '1 kept'])
    assert.ok(text.includes(part), text);
  assert.equal(await (await gateway.call('/function/both')).text(), 'again\n');
  assert.equal(
    (await client.getFunction('one')).name,
    'one',
    'nothing is removed while one has failed',
  );
});

test('a function of another project is refused, and untouched', async () => {
  manifest('  both: { script: "echo mine" }\n', 'other');
  const { code, text } = await fnway('apply');
  assert.equal(code, 2);
  assert.match(text, /both .*refused|belongs to project shop/);
  assert.equal((await client.getFunction('both')).project, 'shop');
  assert.equal((await fnway('plan', '--exit-code')).code, 2);
});

test('two projects that claim a name at once: one has it, and the other is told so', async () => {
  const put = (project: string) =>
    client.putFunction('claimed', { script: 'echo x', project }).then(
      () => project,
      error => {
        assert.equal(error.code, 'FUNCTION_EXISTS');
        return undefined;
      },
    );
  const owners = (await Promise.all(['shop', 'other', 'third'].map(put))).filter(Boolean);
  assert.equal(owners.length, 1);
  assert.equal((await client.getFunction('claimed')).project, owners[0]);
  assert.equal(await put(owners[0]!), owners[0]);
  await client.removeFunction('claimed');
});

test('destroy shows what it would remove, and removes what the project owns', async () => {
  manifest('  both: { script: "echo again", auth: none }\n');
  const dry = await fnway('destroy', '--dry-run');
  assert.equal(dry.code, 0);
  assert.match(dry.text, /- both {2}remove: destroyed/);
  assert.equal((await client.getFunction('both')).name, 'both');
  assert.equal((await fnway('destroy', '--yes')).code, 0);
  assert.deepEqual((await client.listFunctions()).items, []);
});
