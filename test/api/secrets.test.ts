/**
 * Goal: a function gets the secrets that it asks for, in the form that it asks for, and they are told nowhere else: not by
 * the gateway, its files, its logs, nor by what functions print and throw. Method: a real gateway, functions that give
 * away all they have, and a search through every file for the values.
 */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { FunctionDefinition } from '../../client/api.ts';
import { makeDataDirectory, startTestGateway } from '../../src/testing/index.ts';
import { waitFor } from '../../src/testing/wait-for.ts';

const gateway = await startTestGateway({ shared: true });
const { client } = gateway;

const node = `
import { readFileSync, statSync } from 'node:fs';
export default (request, context) => Response.json({
  env: process.env.API_KEY,
  context: { ...context.secrets },
  file: readFileSync(process.env.CERT_FILE, 'utf8'),
  mode: statSync(process.env.CERT_FILE).mode & 0o777,
  own: statSync(process.env.CERT_FILE).uid === process.getuid(),
});`;

const python = `
import os
def handle(event, context):
    with open(os.environ["CERT_FILE"]) as file:
        text = file.read()
    info = os.stat(os.environ["CERT_FILE"])
    return {"statusCode": 200, "body": {"env": os.environ.get("API_KEY"), "context": dict(context.secrets),
        "file": text, "mode": info.st_mode & 0o777, "own": info.st_uid == os.getuid()}}
`;

const shell = 'printf "%s|%s" "$API_KEY" "$(cat "$CERT_FILE")"';
const secrets: FunctionDefinition['secrets'] = ['API_KEY', { name: 'CERT', as: 'file' }];

await client.putSecret('API_KEY', 'key-one');
await client.putSecret('CERT', '-----BEGIN\ncert-one\n-----END');
await Promise.all([
  gateway.put('node', { runtime: 'node', source: { files: { 'handler.mjs': node } }, secrets }),
  gateway.put('python', {
    runtime: 'python',
    source: { files: { 'handler.py': python } },
    secrets,
  }),
  gateway.put('shell', { script: shell, secrets }),
]);

const ask = async (name: string) => (await gateway.call(`/function/${name}`)).json();

describe('a function gets what it asks for', () => {
  for (const name of ['node', 'python']) {
    test(`${name}: variables, files and the context`, async () => {
      const cert = '-----BEGIN\ncert-one\n-----END';
      assert.deepEqual(await ask(name), {
        env: 'key-one',
        context: { API_KEY: 'key-one', CERT: cert },
        file: cert,
        mode: 0o600,
        own: true,
      });
    });
  }

  test('shell: variables and files', async () => {
    const response = await gateway.call('/function/shell');
    assert.equal(await response.text(), 'key-one|-----BEGIN\ncert-one\n-----END');
  });

  test('a new value of a file is there at once, and of a variable with a new instance', async () => {
    await client.putSecret('CERT', 'cert-two');
    const running = await ask('node');
    assert.deepEqual(
      [running.env, running.file, running.context],
      ['key-one', 'cert-two', { API_KEY: 'key-one', CERT: 'cert-two' }],
    );
    await client.putSecret('API_KEY', 'key-two');
    await waitFor(async () => (await ask('node')).env === 'key-two');
    const shell = async () => (await gateway.call('/function/shell')).text();
    await waitFor(async () => (await shell()) === 'key-two|cert-two');
  });

  test('a function that asks for none has none', async () => {
    await gateway.put('none', {
      runtime: 'node',
      source: {
        files: {
          'h.mjs':
            'export default (_, c) => Response.json([process.env.API_KEY ?? null, c.secrets]);',
        },
      },
      entry: 'h.mjs',
    });
    assert.deepEqual(await ask('none'), [null, {}]);
  });
});

describe('what is missing is told before anything runs', () => {
  const definition: FunctionDefinition = { script: 'echo ran >&2; echo ok', secrets: ['GONE'] };

  test('a definition is refused, with each secret that is not there', async () => {
    const refused = client.putFunction('needs', { ...definition, secrets: ['API_KEY', 'GONE'] });
    await assert.rejects(refused, (error: { code: string; problem: { issues: unknown } }) => {
      assert.equal(error.code, 'SECRET_MISSING');
      const message = 'the namespace default has no secret of this name';
      assert.deepEqual(error.problem.issues, [{ path: 'secrets.1', message }]);
      return true;
    });
    await assert.rejects(client.getFunction('needs'), { code: 'FUNCTION_NOT_FOUND' });
    const inTeam = client
      .inNamespace('team')
      .putFunction('needs', { ...definition, secrets: ['API_KEY'] });
    await assert.rejects(inTeam, { code: 'SECRET_MISSING' });
  });

  test('a call of a function whose secret was removed is an input error', async () => {
    await client.putSecret('GONE', 'not-for-long');
    await gateway.put('needs', definition);
    await client.removeSecret('GONE');
    const response = await gateway.call('/function/needs');
    assert.equal(response.status, 422);
    assert.equal((await response.json()).code, 'SECRET_MISSING');
    const { failure } = await client.getInvocation(response.headers.get('x-call-id')!);
    assert.deepEqual([failure!.kind, failure!.code], ['input', 'SECRET_MISSING']);
    assert.deepEqual(await client.readLogs('needs'), []);
    await client.putSecret('GONE', 'back');
    assert.equal((await gateway.call('/function/needs')).status, 200);
  });
});

test('bad names, values and uses are refused', async () => {
  const put = (name: string, body: unknown) =>
    gateway.control(`/v1/namespaces/default/secrets/${name}`, {
      method: 'PUT',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
  for (const [name, body] of [
    ['a-b', { value: 'x' }],
    ['1A', { value: 'x' }],
    ['FNWAY_TOKEN', { value: 'x' }],
    ['A%2Fb', { value: 'x' }],
    ['OK', { value: '' }],
    ['OK', { value: 'a\0b' }],
    ['OK', { value: 'x'.repeat(65_537) }],
    ['OK', { value: 1 }],
    ['OK', {}],
  ] as const) {
    const response = await put(name, body);
    assert.deepEqual([response.status, (await response.json()).code], [422, 'DEFINITION_INVALID']);
  }
  await assert.rejects(client.removeSecret('NOBODY'), { code: 'SECRET_NOT_FOUND', status: 404 });
  for (const uses of [['a-b'], [{ name: 'API_KEY', as: 'memory' }], ['API_KEY', 'API_KEY']])
    await assert.rejects(client.putFunction('bad', { script: 'true', secrets: uses as string[] }), {
      code: 'DEFINITION_INVALID',
    });
  await assert.rejects(
    client.putFunction('bad', { script: 'true', env: { API_KEY: 'x' }, secrets: ['API_KEY'] }),
    { code: 'DEFINITION_INVALID', message: /env has a variable API_KEY too/ },
  );
});

test('a value cannot be read back, and is hidden in all that functions say', async () => {
  const value = 'canary "of" a/secret+';
  await client.putSecret('CANARY', value);
  const code = `
    console.log('loading', process.env.CANARY);
    export default async (request) => {
      console.log(JSON.stringify({ message: 'has ' + process.env.CANARY }));
      console.error(encodeURIComponent(process.env.CANARY));
      if (request.url.endsWith('/throw')) throw new Error('no good: ' + process.env.CANARY);
      if (request.url.endsWith('/exit')) { console.error(process.env.CANARY); process.exit(1); }
      return new Response('ok');
    };`;
  await gateway.put('tells', {
    runtime: 'node',
    source: { files: { 'handler.mjs': code } },
    secrets: ['CANARY'],
  });
  const answers: string[] = [];
  for (const path of ['', '/throw', '/exit']) {
    const response = await gateway.call(`/function/tells${path}`);
    answers.push(await response.text());
    answers.push(JSON.stringify(await client.getInvocation(response.headers.get('x-call-id')!)));
  }
  assert.match(answers[2]!, /no good: \*\*\*/);
  const lines = await client.readLogs('tells', { lines: 1000 });
  assert.ok(lines.some(({ text }) => text === 'loading ***'));
  assert.ok(lines.some(({ message }) => message === 'has ***'));
  const failing = code.replace(
    'export default',
    'throw new Error(process.env.CANARY);export default',
  );
  await client.putFunction(
    'tells',
    { runtime: 'node', source: { files: { 'handler.mjs': failing } }, secrets: ['CANARY'] },
    { wait: '30s' },
  );
  const said = [
    ...answers,
    JSON.stringify(lines),
    JSON.stringify(await client.listVersions('tells')),
    JSON.stringify(await client.getVersion('tells', 2)),
    JSON.stringify(await client.listSecrets()),
    await (await gateway.control('/metrics')).text(),
  ].join('\n');
  for (const form of [value, encodeURIComponent(value), JSON.stringify(value).slice(1, -1)])
    assert.equal(said.includes(form), false, form);
});

test('no file of the data directory and no log holds a value; files of secrets go with the gateway', async () => {
  const data = makeDataDirectory();
  const logged: string[] = [];
  const note = (message: string, fields?: object) =>
    logged.push(`${message} ${JSON.stringify(fields)}`);
  const own = await startTestGateway({
    data,
    overrides: { log: { debug: note, info: note, warn: note, error: note } },
  });
  const value = 'canary-of-every-file';
  await own.client.putSecret('CANARY', value);
  await own.put('tells', {
    runtime: 'node',
    source: {
      files: {
        'handler.mjs': `import { readFileSync } from 'node:fs';
          export default () => {
            console.log(process.env.CANARY_FILE, readFileSync(process.env.CANARY_FILE, 'utf8'));
            throw new Error(readFileSync(process.env.CANARY_FILE, 'utf8'));
          };`,
      },
    },
    secrets: [{ name: 'CANARY', as: 'file' }],
    record: 'bodies',
  });
  assert.equal((await own.call('/function/tells')).status, 502);
  const [line] = await own.client.readLogs('tells');
  const file = line!.text.split(' ')[0]!;
  assert.equal(line!.text, `${file} ***`);
  assert.equal(statSync(file).mode & 0o777, 0o600);
  const findings = () =>
    readdirSync(data, { recursive: true, withFileTypes: true })
      .filter(entry => entry.isFile())
      .map(entry => join(entry.parentPath, entry.name))
      .filter(path => readFileSync(path).includes(value));
  assert.deepEqual(findings(), []);
  await own.client.removeSecret('CANARY');
  assert.equal(existsSync(file), false, 'what is removed is nobody’s any more');
  await own.client.putSecret('CANARY', value);
  assert.equal((await own.call('/function/tells')).status, 502);
  await own.client.removeFunction('tells');
  await waitFor(() => !existsSync(file));
  await own.stop();
  assert.deepEqual(findings(), []);
  assert.equal(existsSync(join(file, '../..')), false);
  assert.equal(logged.join('\n').includes(value), false);
  rmSync(data, { recursive: true });
});

test('a secret is hidden before a long text is cut, so that no half of it is left', async () => {
  const value = 'k'.repeat(100);
  await client.putSecret('LONG', value);
  await gateway.put('cut', {
    script: 'printf %s "$LONG" >&2; printf "%01950d" 0 >&2; exit 1',
    secrets: ['LONG'],
  });
  const { log } = await (await gateway.call('/function/cut')).json();
  assert.match(log.join(), /0{1900}/);
  assert.equal(log.join().includes('kkk'), false);
});

test('a new value comes to functions and scripts that are called all the while, and no call is lost', async () => {
  await client.putSecret('TURN', 'value-0');
  const files = { 'handler.mjs': 'export default () => new Response(process.env.TURN);' };
  await gateway.put('turn', { runtime: 'node', source: { files }, secrets: ['TURN'] });
  await gateway.put('turn-script', { script: 'printf %s "$TURN"', secrets: ['TURN'] });
  const textOf = async (name: string) => {
    const response = await gateway.call(`/function/${name}`);
    assert.equal(response.status, 200);
    return response.text();
  };
  let calling = true;
  const caller = async () => {
    while (calling) assert.match(await textOf('turn'), /^value-\d$/);
  };
  const callers = Array.from({ length: 4 }, caller);
  for (const value of ['value-1', 'value-2', 'value-3']) {
    await client.putSecret('TURN', value);
    for (const name of ['turn', 'turn-script'])
      await waitFor(async () => (await textOf(name)) === value, { what: `${value} in ${name}` });
  }
  calling = false;
  await Promise.all(callers);
});

test('a secret of the largest size is hidden, and harms nothing', async () => {
  const value = Array.from({ length: 1000 }, (_, i) => `${i} ${'k'.repeat(55)}`).join('\n');
  await client.putSecret('LARGE', value);
  await gateway.put('large', {
    script: 'head -n 2 "$LARGE_FILE" >&2; echo said >&2; echo done',
    secrets: [{ name: 'LARGE', as: 'file' }],
  });
  assert.equal(await (await gateway.call('/function/large')).text(), 'done\n');
  const lines = await waitFor(async () => {
    const found = await client.readLogs('large');
    return found.some(({ text }) => text === 'said') && found;
  });
  assert.deepEqual(
    lines.map(({ text }) => text),
    ['***', '***', 'said'],
  );
});

test('words of the gateway stay readable though a secret has their letters', async () => {
  await client.putSecret('WORD', 'threw');
  await client.putSecret('KIND', 'function');
  const files = { 'handler.mjs': 'export default () => { throw new Error("it threw"); };' };
  await gateway.put('words', { runtime: 'node', source: { files }, secrets: ['WORD', 'KIND'] });
  const response = await gateway.call('/function/words');
  assert.equal(response.headers.get('x-fnway-failure'), 'threw');
  const { status, failure } = await client.getInvocation(response.headers.get('x-call-id')!);
  assert.deepEqual(
    [status, failure!.kind, failure!.code, failure!.reason, failure!.message],
    [502, 'function', 'FUNCTION_FAILED', 'threw', 'it ***'],
  );
});

test('secrets survive a restart', async () => {
  const data = makeDataDirectory();
  const first = await startTestGateway({ data });
  await first.client.putSecret('API_KEY', 'kept');
  await first.put('shows', { script: 'printf %s "$API_KEY"', secrets: ['API_KEY'] });
  await first.stop();
  const second = await startTestGateway({ data });
  assert.equal(await (await second.call('/function/shows')).text(), 'kept');
  assert.deepEqual(
    (await second.client.listSecrets()).items.map(({ name }) => name),
    ['API_KEY'],
  );
  await second.stop();
  rmSync(data, { recursive: true });
});
