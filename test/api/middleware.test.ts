/**
 * Goal: what goes in and comes out is held against its schemas, users' middleware stands around every call, and each has
 * its place in the order. Method: real gateways; bodies that fit and do not; modules as files in a directory of a project.
 */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { makeDataDirectory, startTestGateway } from '../../src/testing/index.ts';

const gateway = await startTestGateway({ shared: true });
const { client } = gateway;

const order = {
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  type: 'object',
  properties: {
    id: { type: 'integer', minimum: 1 },
    mail: { type: 'string', format: 'email' },
    lines: { type: 'array', items: { $ref: '#/$defs/line' } },
  },
  required: ['id'],
  additionalProperties: false,
  $defs: { line: { type: 'object', properties: { count: { type: 'integer' } } } },
};

const echo = `
let calls = 0;
export default async (request) => {
  calls++;
  const text = await request.text();
  const path = new URL(request.url).pathname;
  if (path === '/calls') return Response.json({ id: calls });
  if (path === '/bad') return Response.json({ id: 'seven' });
  if (path === '/text') return new Response('not JSON');
  if (path === '/error') return new Response('free text', { status: 500 });
  if (path === '/stream') return new Response(new ReadableStream({ start(c) {
    c.enqueue(new TextEncoder().encode('{"id"')); c.enqueue(new TextEncoder().encode(':1}')); c.close(); } }));
  return new Response(text, { headers: { 'content-type': 'application/json' } });
};`;

describe('schemas', () => {
  test('input that does not fit is refused with its path, and nothing runs', async () => {
    await gateway.put('takes', {
      runtime: 'node',
      source: { files: { 'handler.mjs': echo } },
      schema: { in: order },
    });
    const post = (body: string) => gateway.call('/function/takes', { method: 'POST', body });
    for (const [body, path, message] of [
      ['{"id":0}', 'id', 'must be >= 1'],
      ['{"id":"x"}', 'id', 'must be integer'],
      ['{}', 'id', 'is missing'],
      ['{"id":1,"x":2}', 'x', 'is not expected'],
      ['{"id":1,"mail":"no"}', 'mail', 'must match format "email"'],
      ['{"id":1,"lines":[{},{"count":"x"}]}', 'lines.1.count', 'must be integer'],
      ['[]', '', 'must be object'],
      ['{', '', 'is not JSON'],
      ['', '', 'is empty'],
    ] as const) {
      const response = await post(body);
      const problem = await response.json();
      assert.deepEqual([response.status, problem.code], [422, 'INPUT_INVALID'], body);
      assert.deepEqual(problem.issues, [{ path, message }], body);
      const { failure, instance } = await client.getInvocation(response.headers.get('x-call-id')!);
      assert.deepEqual(
        [failure!.kind, failure!.code, instance],
        ['input', 'INPUT_INVALID', undefined],
      );
    }
    const good = await post('{"id":7,"mail":"a@b.de","lines":[{"count":1}]}');
    assert.equal(good.status, 200);
    const long = `{"id":1,"lines":[${'{"count":1},'.repeat(20_000)}{}]}`;
    assert.equal((await post(long)).status, 200, 'a body that streams is gathered');
    const calls = await gateway.call('/function/takes/calls', { method: 'POST', body: '{"id":1}' });
    assert.deepEqual(await calls.json(), { id: 3 });
  });

  test('no value and no schema keeps the gateway busy, or takes a place for good', async () => {
    const deploy = (name: string, schema: Record<string, unknown>) =>
      gateway.put(name, { script: 'cat', schema: { in: schema } });
    await deploy('nested', { type: 'array', items: { $ref: '#' } });
    await deploy('endless', { $ref: '#' });
    await deploy('pattern', { type: 'string', pattern: '^(a+)+$' });
    await deploy('unique', { type: 'array', uniqueItems: true });
    const issueOf = async (name: string, body: string) => {
      const response = await gateway.call(`/function/${name}`, { method: 'POST', body });
      return response.status === 200 ? 'fits' : (await response.json()).issues[0].message;
    };
    const tooDeep = 'is nested too deeply to be held against the schema';
    assert.equal(await issueOf('nested', '['.repeat(50_000) + ']'.repeat(50_000)), tooDeep);
    assert.equal(await issueOf('nested', '[[],[[]]]'), 'fits');
    assert.equal(await issueOf('endless', '1'), tooDeep);
    assert.equal(await issueOf('pattern', `"${'a'.repeat(100)}!"`), 'must match pattern "^(a+)+$"');
    assert.equal(await issueOf('pattern', '"aaa"'), 'fits');
    const many = Array.from({ length: 100_000 }, (_, i) => ({ a: i, b: [i] }));
    assert.equal(await issueOf('unique', JSON.stringify(many)), 'fits');
    many.push({ b: [7], a: 7 } as never);
    assert.equal(await issueOf('unique', JSON.stringify(many)), 'must NOT have duplicate items');
    await assert.rejects(deploy('look', { pattern: '^(?=a)' }), {
      code: 'SCHEMA_INVALID',
      message: /look-around, back-references and repeats above 1,000 are not available/,
    });
  });

  test('output that does not fit is the function’s failure', async () => {
    await gateway.put('gives', {
      runtime: 'node',
      source: { files: { 'handler.mjs': echo } },
      schema: { out: order },
    });
    for (const [path, message] of [
      ['/bad', 'the answer is not as schema.out says: id must be integer'],
      ['/text', 'the answer is not as schema.out says: it is not JSON'],
    ]) {
      const response = await gateway.call(`/function/gives${path}`);
      assert.equal(response.status, 502);
      assert.equal(response.headers.get('x-fnway-failure'), 'reply-invalid');
      const { failure } = await client.getInvocation(response.headers.get('x-call-id')!);
      assert.deepEqual([failure!.kind, failure!.message], ['function', message]);
    }
    const stream = await gateway.call('/function/gives/stream');
    assert.deepEqual([stream.status, await stream.json()], [200, { id: 1 }]);
    const error = await gateway.call('/function/gives/error');
    assert.deepEqual([error.status, await error.text()], [500, 'free text']);
  });

  test('a schema that is none is refused with where it is wrong', async () => {
    const put = (schema: object) => client.putFunction('bad', { script: 'cat', schema });
    for (const [schema, path, message] of [
      [{ in: { type: 'objekt' } }, 'schema.in', /schema is invalid/],
      [{ out: { $ref: 'https://example.com/x.json' } }, 'schema.out', /can't resolve reference/],
      [{ in: { $ref: '#/$defs/none' } }, 'schema.in', /can't resolve reference/],
      [{ in: { pattern: '(' } }, 'schema.in', /the pattern \( cannot be used/],
      [{ in: { $async: true } }, 'schema.in', /\$async is no keyword/],
      [{ in: { description: 'x'.repeat(70_000) } }, 'schema.in', /65536 are allowed/],
    ] as const)
      await assert.rejects(
        put(schema),
        (error: {
          code: string;
          message: string;
          problem: { issues: Array<{ path: string }> };
        }) => {
          assert.deepEqual([error.code, error.problem.issues[0]!.path], ['SCHEMA_INVALID', path]);
          assert.match(error.message, message);
          return true;
        },
      );
    await assert.rejects(put({ in: 7 }), { code: 'DEFINITION_INVALID' });
    await assert.rejects(put({ inn: {} }), { code: 'DEFINITION_INVALID' });
    await assert.rejects(client.getFunction('bad'), { code: 'FUNCTION_NOT_FOUND' });
  });

  test('a changed schema is a new version; true and false are schemas too', async () => {
    const put = (schema: object) => gateway.put('strict', { script: 'cat', schema });
    await put({ in: true });
    const post = () => gateway.call('/function/strict', { method: 'POST', body: '1' });
    assert.equal((await post()).status, 200);
    const { version } = await put({ in: false });
    assert.equal(version, 2);
    assert.equal((await post()).status, 422);
  });

  test('input is refused before a missing secret is', async () => {
    await client.putSecret('GONE', 'value');
    const source = { script: 'cat', schema: { in: order }, secrets: ['GONE'] };
    await gateway.put('both', source);
    await client.removeSecret('GONE');
    const codeOf = async (body: string) =>
      (await (await gateway.call('/function/both', { method: 'POST', body })).json()).code;
    assert.deepEqual(
      [await codeOf('{}'), await codeOf('{"id":1}')],
      ['INPUT_INVALID', 'SECRET_MISSING'],
    );
  });
});

describe('users’ middleware', () => {
  const project = mkdtempSync(join(process.cwd(), '.middleware-test-'));
  const write = (name: string, code: string) => {
    const file = join(project, name);
    writeFileSync(file, code);
    return file;
  };
  const remove = () => rmSync(project, { recursive: true, force: true });
  process.once('exit', remove);

  test('it stands around every call, the first one named outermost; what it throws fails its call', async () => {
    const outer = write(
      'outer.ts',
      `let n: number = 0;
       export default {
         before(call: { path: string; headers: Headers }) {
           if (call.path === '/throw') throw new Error('module broke');
           if (call.path === '/never') return new Promise(() => {});
           const headers = new Headers(call.headers);
           headers.set('x-outer', String(++n));
           return { call: { headers } };
         },
         after: (_call: unknown, reply: { headers: Headers }) => {
           const headers = new Headers(reply.headers);
           headers.append('x-after', 'outer');
           return { headers };
         },
       };`,
    );
    const inner = write(
      'inner.mjs',
      `export default { name: 'inner', async around(call, next) {
         if (call.path === '/own') return { status: 202, body: { from: 'inner', outer: call.headers.get('x-outer') } };
         const reply = await next();
         reply.headers.append('x-after', 'inner');
         return reply;
       } };`,
    );
    const own = await startTestGateway({ settings: { middleware: `${outer}:${inner}` } });
    await own.put('shows', {
      runtime: 'node',
      source: { files: { 'h.mjs': 'export default r => new Response(r.headers.get("x-outer"));' } },
      entry: 'h.mjs',
      timeout: '300ms',
    });
    const first = await own.call('/function/shows');
    assert.deepEqual([await first.text(), first.headers.get('x-after')], ['1', 'inner, outer']);
    const short = await own.call('/function/shows/own');
    assert.deepEqual([short.status, await short.json()], [202, { from: 'inner', outer: '2' }]);
    const broken = await own.call('/function/shows/throw');
    const problem = await broken.json();
    assert.deepEqual([broken.status, problem.code], [500, 'MIDDLEWARE_FAILED']);
    assert.match(problem.detail, /before of the middleware .*outer\.ts: it threw module broke/);
    const { failure } = await own.client.getInvocation(broken.headers.get('x-call-id')!);
    assert.equal(failure!.kind, 'system');
    assert.equal((await own.call('/function/shows/never')).status, 504);
    assert.equal(await (await own.call('/function/shows')).text(), '3', 'others go on');
    await own.stop();
  });

  test('one that cannot be used, or lies outside, stops the start', async () => {
    const bad = write('bad.mjs', 'export default { befor() {} };');
    for (const [middleware, message] of [
      [bad, /none of before|befor is unknown/],
      [join(project, 'none.mjs'), /it does not load/],
      ['/etc/passwd', /lies outside the working directory/],
      ['../x.mjs', /lies outside the working directory/],
    ] as const)
      await assert.rejects(startTestGateway({ settings: { middleware } }), {
        code: 'MIDDLEWARE_INVALID',
        message,
      });
    remove();
  });
});

test('schemas of a manifest may be files beside it', async () => {
  const directory = makeDataDirectory();
  mkdirSync(join(directory, 'schemas'));
  writeFileSync(join(directory, 'schemas/in.json'), JSON.stringify(order));
  writeFileSync(
    join(directory, 'fnway.yaml'),
    'functions:\n  echo: { script: cat, auth: none, schema: { in: ./schemas/in.json, out: { type: object } } }\n',
  );
  const { loadManifest } = await import('../../src/cli/manifest.ts');
  const { readSources } = await import('../../src/cli/sources.ts');
  const [desired] = await readSources(await loadManifest(directory));
  assert.deepEqual(desired!.definition.schema, { in: order, out: { type: 'object' } });
  assert.deepEqual(desired!.spec.schema, { in: order, out: { type: 'object' } });
  for (const [file, message] of [
    ['./none.json', /schema\.in: \.\/none\.json cannot be read/],
    ['../out.json', /lies outside the directory of the manifest/],
    ['./fnway.yaml', /is not valid JSON/],
  ] as const) {
    const text = `functions:\n  echo: { script: cat, schema: { in: ${file} } }\n`;
    writeFileSync(join(directory, 'fnway.yaml'), text);
    await assert.rejects(async () => readSources(await loadManifest(directory)), {
      code: 'MANIFEST_INVALID',
      message,
    });
  }
  rmSync(directory, { recursive: true });
});
