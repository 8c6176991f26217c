/**
 * Goal: the commands about calls and secrets print what the gateway has, and take values from where nobody sees them.
 * Method: the real command against a real gateway.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { startTestGateway } from '../../src/testing/index.ts';

const gateway = await startTestGateway({ shared: true });
const directory = mkdtempSync(join(tmpdir(), 'fnway-commands-'));
after(() => rmSync(directory, { recursive: true }));

const program = join(import.meta.dirname, '../../src/cli/cli.ts');

async function fnway(words: string[], input = ''): Promise<{ code: number; text: string }> {
  const env = {
    PATH: process.env.PATH,
    FNWAY_URL: gateway.url,
    FNWAY_TOKEN: gateway.adminToken,
    NO_COLOR: '1',
  };
  const child = spawn(process.execPath, [program, ...words], { env, cwd: directory });
  child.stdin.end(input);
  let text = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', chunk => {
      text += chunk;
    });
  const code = await new Promise<number>(resolve => child.once('close', resolve));
  return { code, text };
}

const handler = (greeting: string) => `export default async request => {
  console.log('called');
  if (request.url.endsWith('/throw')) throw new Error('it broke');
  return Response.json({ greeting: '${greeting}', body: await request.text() });
};`;

test('secrets are set from standard input, listed and removed, and never shown', async () => {
  const set = await fnway(['secrets', 'set', 'API_KEY'], 'hunter2-hunter2\n');
  assert.deepEqual([set.code, set.text], [0, '✓ API_KEY  set\n']);
  const listed = await fnway(['secrets', 'list']);
  assert.match(listed.text, /NAME +SET\nAPI_KEY {2}\d{4}-/);
  assert.equal(listed.text.includes('hunter2'), false);
  const { code } = await fnway([
    'deploy',
    'keyed',
    '--script',
    'printf %s "$API_KEY"',
    '--secret',
    'API_KEY',
    '--auth',
    'none',
  ]);
  assert.equal(code, 0);
  assert.equal(await (await gateway.call('/function/keyed')).text(), 'hunter2-hunter2');
  assert.equal((await fnway(['secrets', 'set', 'a-b'], 'x')).code, 2);
  assert.equal((await fnway(['secrets', 'set', 'EMPTY'], '\n')).code, 2);
  assert.equal((await fnway(['secrets', 'remove', 'API_KEY'])).code, 0);
  assert.equal((await fnway(['secrets', 'remove', 'API_KEY'])).code, 3);
});

test('calls are listed and shown with their failure and their lines', async () => {
  const source = { files: { 'handler.mjs': handler('hi') } };
  await gateway.put('hello', { runtime: 'node', source, record: 'bodies' });
  await gateway.call('/function/hello');
  const failed = await gateway.call('/function/hello/throw');
  const id = failed.headers.get('x-call-id')!;
  const listed = await fnway(['invocations', 'list', 'hello']);
  assert.match(listed.text, /^ID +STARTED +FUNCTION/);
  assert.equal(listed.text.trim().split('\n').length, 3);
  const only = await fnway(['invocations', 'list', '--state', 'failed', '--since', '1h', '--json']);
  assert.deepEqual(
    JSON.parse(only.text).map((item: { id: string }) => item.id),
    [id],
  );
  const shown = await fnway(['invocations', 'show', id]);
  assert.match(
    shown.text,
    /failure +function threw: it broke\n +at +handler\.mjs:3\n[\s\S]*lines\n.* called\n/,
  );
  assert.equal((await fnway(['invocations', 'show', 'inv_0123456789abcdefghjkmnpqrs'])).code, 3);
  const lines = await fnway(['logs', 'hello', '--call', id]);
  assert.match(lines.text, /v1 call [0-9a-z]{6} called\n/);
});

test('a call is made again on another version, or on code of this machine, and the difference shown', async () => {
  const response = await gateway.call('/function/hello', { method: 'POST', body: 'x' });
  const id = response.headers.get('x-call-id')!;
  const same = await fnway(['invocations', 'replay', id]);
  assert.match(same.text, /again, on version 1: inv_[0-9a-z]{26}\n✓ the same answer\n/);
  writeFileSync(join(directory, 'handler.mjs'), handler('hello'));
  const local = await fnway(['invocations', 'replay', id, '--local', '.']);
  assert.equal(local.code, 0, local.text);
  assert.match(
    local.text,
    /again, on the code in \.\n[\s\S]*- {3}"greeting": "hi",\n\+ {3}"greeting": "hello",\n/,
  );
});

test('code of this machine runs with the settings of the version that was called', async () => {
  const files = { 'handler.mjs': 'export default () => new Response(process.env.WHO);' };
  const version = (WHO: string) =>
    gateway.put('who', { runtime: 'node', source: { files }, env: { WHO }, record: 'bodies' });
  await version('first');
  const response = await gateway.call('/function/who');
  await version('second');
  mkdirSync(join(directory, 'who'));
  writeFileSync(join(directory, 'who/handler.mjs'), files['handler.mjs']);
  const id = response.headers.get('x-call-id')!;
  const local = await fnway(['invocations', 'replay', id, '--local', 'who']);
  assert.match(local.text, /✓ the same answer\n/);
});

test('how it failed is compared too, what was given up can be called again, and local lines are shown', async () => {
  mkdirSync(join(directory, 'fails'));
  const file = join(directory, 'fails/handler.mjs');
  const deploy = (body: string) => {
    writeFileSync(file, `export default async () => { ${body} };`);
    return gateway.put('fails', {
      ...{ runtime: 'node', record: 'bodies', timeout: '500ms' },
      source: { files: { 'handler.mjs': readFileSync(file, 'utf8') } },
    });
  };
  const replay = async (...more: string[]) =>
    (await fnway(['invocations', 'replay', ...more])).text;
  await deploy("console.log('seen'); throw new TypeError('no such order');");
  const threw = (await gateway.call('/function/fails')).headers.get('x-call-id')!;
  const same = await replay(threw, '--local', 'fails');
  assert.match(same, /✓ the same answer\nlines\n.* seen\n/);
  await deploy("throw new TypeError('entirely different');");
  const other = await replay(threw, '--version', '2');
  assert.match(
    other,
    /on version 2: [\s\S]*- failure .*no such order\n\+ failure .*entirely different\n/,
  );
  await deploy('await new Promise(() => {});');
  const late = await gateway.call('/function/fails', { method: 'POST', body: 'again' });
  assert.equal(late.status, 504);
  await deploy("return new Response('in time');");
  const again = await replay(late.headers.get('x-call-id')!);
  assert.match(again, /- status 504\n\+ status 200\n- failure .*timeout[\s\S]*\+ in time\n/);
});

test('of a split it is told which versions answer, and that a new one gets no calls', async () => {
  mkdirSync(join(directory, 'split'));
  const deploy = async (text: string) => {
    writeFileSync(join(directory, 'split/handler.sh'), `echo ${text}\n`);
    return (await fnway(['deploy', 'split', '--runtime', 'shell', '--source', 'split'])).text;
  };
  for (const text of ['one', 'two']) assert.doesNotMatch(await deploy(text), /no calls/);
  await fnway(['traffic', 'split', '1=90', '2=10']);
  assert.match(
    await deploy('three'),
    /Version 3 gets no calls: they are split \(fnway traffic split\)\./,
  );
  const listed = (await fnway(['list'])).text;
  assert.match(listed, /split +shell +1\+2 \(newest 3\)/);
  assert.match((await fnway(['describe', 'split'])).text, /answers +v1 90 %, v2 10 %\n/);
  const versions = (await fnway(['versions', 'split'])).text;
  assert.match(versions, /\n {2,}3 .*\n10 % +2 .*\n90 % +1 /);
});

test('a word that is a command’s own option is given to it', async () => {
  const { code, text } = await fnway(['logs', 'split', '--version', '2']);
  assert.equal(code, 0);
  assert.match(text, /split has written nothing like that/);
});

test('what would name all where one was meant is refused', async () => {
  const empty = await fnway(['invocations', 'show', '']);
  assert.equal(empty.code, 2);
  assert.match(empty.text, /<id> is empty\./);
  for (const verb of ['redrive', 'purge']) {
    const all = await fnway(['topics', 'dead-letters', verb]);
    assert.equal(all.code, 2);
    assert.match(all.text, /Which\? Give ids, --subscription, --function, --cause or --all\./);
  }
});

test('what a manifest no longer declares is told, of every kind, and removed by name', async () => {
  const manifest = (text: string) => writeFileSync(join(directory, 'fnway.yaml'), text);
  const declared = 'functions:\n  ticked: { script: "cat" }\n';
  manifest(`${declared}schedules:\n  tick: { function: ticked, every: 1h }\n`);
  assert.equal((await fnway(['apply'])).code, 0);
  manifest(declared);
  assert.match((await fnway(['plan'])).text, /^Not declared here, and kept: .*schedule tick$/m);
  assert.match((await fnway(['remove', 'ticked'])).text, /used by schedule tick/);
  const removed = await fnway(['schedules', 'remove', 'tick']);
  assert.deepEqual([removed.code, removed.text], [0, 'tick  removed\n']);
  assert.equal((await fnway(['remove', 'ticked'])).code, 0);
});
