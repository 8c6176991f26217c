/**
 * Goal: every call leaves a record that says what its caller saw, and can be found by each of its properties. Method: a
 * real gateway and real functions; calls of every outcome; the records read over HTTP.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { InvocationView } from '../../client/api.ts';
import { makeDataDirectory, startTestGateway } from '../../src/testing/test-gateway.ts';
import { waitFor } from '../../src/testing/wait-for.ts';

const code = `
let n = 0;
export default async (request) => {
  const { pathname, searchParams } = new URL(request.url);
  if (pathname === '/throw') throw new TypeError('it broke');
  if (pathname === '/exit') process.exit(3);
  if (pathname === '/never') await new Promise(() => {});
  if (pathname === '/stream') return new Response(new ReadableStream({
    async pull(c) { c.enqueue(new TextEncoder().encode('x')); if (++n % 5 === 0) c.close(); } }));
  if (pathname === '/broken') return new Response(new ReadableStream({
    async pull(c) { if (n++ === 0) c.enqueue(new TextEncoder().encode('x')); else c.error(new Error('torn')); } }));
  return new Response('hi', { status: Number(searchParams.get('status') ?? 200) });
};`;

const gateway = await startTestGateway({ shared: true });
await gateway.put('hello', {
  runtime: 'node',
  source: { files: { 'handler.mjs': code } },
  timeout: '400ms',
});
const { client } = gateway;

async function call(path: string, init?: RequestInit): Promise<InvocationView> {
  const response = await gateway.call(`/function/hello${path}`, init);
  await response.text().catch(() => {});
  return client.getInvocation(response.headers.get('x-call-id')!);
}

describe('a record says what became of a call', () => {
  test('that was answered, with whatever status', async () => {
    const record = await call('/a?status=418', { method: 'PUT', body: 'x' });
    const { id, startedAt, durationMs, instance, ...rest } = record;
    assert.match(id, /^inv_[0-9a-z]{26}$/);
    assert.match(instance!, /^ins_[0-9a-z]{26}$/);
    assert.ok(Math.abs(Date.parse(startedAt) - Date.now()) < 60_000);
    assert.ok(durationMs! > 0 && durationMs! < 400);
    assert.deepEqual(rest, {
      namespace: 'default',
      function: 'hello',
      version: 1,
      state: 'succeeded',
      status: 418,
      origin: 'http',
      caller: 'anonymous',
      attempt: 1,
      method: 'PUT',
      path: '/a?status=418',
    });
  });

  test('that threw, crashed or took too long: the function’s failure', async () => {
    const thrown = await call('/throw');
    assert.deepEqual([thrown.state, thrown.status], ['failed', 502]);
    const { stack, ...failure } = thrown.failure!;
    assert.match(stack!, /it broke/);
    assert.deepEqual(failure, {
      kind: 'function',
      code: 'FUNCTION_FAILED',
      reason: 'threw',
      message: 'it broke',
      type: 'TypeError',
      file: 'handler.mjs',
      line: 5,
    });
    const exited = await call('/exit');
    assert.deepEqual([exited.failure!.reason, exited.failure!.exit], ['crashed', 'status 3']);
    const late = await call('/never');
    assert.deepEqual(
      [late.status, late.failure!.kind, late.failure!.code, late.failure!.reason],
      [504, 'function', 'CALL_DEADLINE_EXCEEDED', 'timeout'],
    );
  });

  test('whose caller left: cancelled', async () => {
    const leave = new AbortController();
    const before = Date.now();
    const gone = gateway.call('/function/hello/never?left', { signal: leave.signal });
    await waitFor(async () => (await client.getFunction('hello')).running!.busy > 0);
    leave.abort();
    await assert.rejects(gone);
    const found = await waitFor(async () => {
      const { items } = await client.listInvocations({ state: 'cancelled' });
      return items.find(item => item.path === '/never?left');
    });
    assert.deepEqual([found.status, found.failure!.code], [499, 'CALL_CANCELLED']);
    assert.ok(Date.parse(found.startedAt) >= before - 1);
  });

  test('that streamed, to its end or not', async () => {
    const whole = await call('/stream');
    assert.deepEqual([whole.state, whole.status], ['succeeded', 200]);
    const response = await gateway.call('/function/hello/broken');
    const id = response.headers.get('x-call-id')!;
    await assert.rejects(response.text());
    const record = await waitFor(() => client.getInvocation(id).catch(() => undefined));
    assert.deepEqual([record.state, record.failure!.kind], ['failed', 'function']);
    assert.match(record.failure!.message, /torn/);
  });

  test('that was refused for what the caller sent: input', async () => {
    await gateway.put('whole', {
      runtime: 'node',
      source: { files: { 'handler.mjs': 'export const handle = () => 1;' } },
    });
    const length = String(17 * 1024 ** 2);
    const answer = await gateway.raw(
      `POST /function/whole HTTP/1.1\r\nHost: x\r\nContent-Length: ${length}\r\nConnection: close\r\n\r\n`,
    );
    assert.match(answer, /^HTTP\/1.1 413 /);
    const { items } = await client.listInvocations({ function: 'whole', kind: 'input' });
    assert.deepEqual(
      items.map(({ status, failure }) => [status, failure!.code]),
      [[413, 'BODY_TOO_LARGE']],
    );
  });

  test('who called, and what they named it', async () => {
    await gateway.put('guarded', { auth: 'token', script: 'cat' });
    const { token } = await client.getToken('guarded');
    for (const [sent, caller] of [
      [token, 'function-token'],
      [gateway.adminToken, 'admin'],
    ]) {
      const response = await gateway.call('/function/guarded', {
        headers: { authorization: `Bearer ${sent}`, 'x-call-id': `order-of-${caller}` },
      });
      assert.equal(response.headers.get('x-call-id'), `order-of-${caller}`);
      const { items } = await client.listInvocations({ function: 'guarded', limit: 1 });
      assert.deepEqual([items[0]!.caller, items[0]!.label], [caller, `order-of-${caller}`]);
    }
    // Who may not call makes no invocation.
    await gateway.call('/function/guarded');
    assert.equal((await client.listInvocations({ function: 'guarded' })).items.length, 2);
  });
});

test('records are found by each property, in pages, newest first', async () => {
  await gateway.put('many', {
    runtime: 'node',
    source: { files: { 'handler.mjs': code } },
  });
  await gateway.put('many', {
    runtime: 'node',
    source: { files: { 'handler.mjs': `${code}\n` } },
  });
  const ids: string[] = [];
  for (let i = 0; i < 25; i++) {
    const version = i % 5 === 0 ? '@1' : '';
    const response = await gateway.call(`/function/many${version}/?status=${i % 2 ? 200 : 404}`);
    ids.push(response.headers.get('x-call-id')!);
  }
  // Of the same millisecond, chance orders them: by their ids they are in one order everywhere.
  ids.sort().reverse();
  const find = async (options: object) =>
    (await client.listInvocations({ function: 'many', ...options })).items;
  assert.deepEqual(
    (await find({})).map(({ id }) => id),
    ids,
  );
  assert.equal((await find({ status: '404' })).length, 13);
  assert.equal((await find({ status: '4xx' })).length, 13);
  assert.equal((await find({ status: '500' })).length, 0);
  assert.equal((await find({ version: 1 })).length, 5);
  assert.equal((await find({ origin: 'replay' })).length, 0);
  assert.equal((await find({ state: 'succeeded' })).length, 25);
  assert.equal((await find({ since: '1h' })).length, 25);
  assert.equal((await find({ until: '1h' })).length, 0);
  assert.equal((await find({ since: new Date(Date.now() + 60_000).toISOString() })).length, 0);
  assert.deepEqual(
    (await find({ prefix: ids[3] })).map(({ id }) => id),
    [ids[3]],
  );
  const pages = [];
  let cursor: string | undefined;
  do {
    const page = await client.listInvocations({
      function: 'many',
      limit: 10,
      ...(cursor !== undefined && { cursor }),
    });
    pages.push(page.items.map(({ id }) => id));
    cursor = page.next;
  } while (cursor !== undefined);
  assert.deepEqual(pages, [ids.slice(0, 10), ids.slice(10, 20), ids.slice(20)]);
});

test('bad questions get answers that say what is wrong', async () => {
  const base = '/v1/namespaces/default/invocations';
  for (const [path, status, code] of [
    [`${base}?status=6xx`, 400, 'QUERY_INVALID'],
    [`${base}?since=yesterday`, 400, 'QUERY_INVALID'],
    [`${base}?limit=0`, 400, 'QUERY_INVALID'],
    [`${base}?kinds=x`, 400, 'QUERY_INVALID'],
    [`${base}?function=nobody`, 404, 'FUNCTION_NOT_FOUND'],
    [`${base}/inv_0123456789abcdefghjkmnpqrs`, 404, 'INVOCATION_NOT_FOUND'],
    [`${base}/nothing`, 404, 'INVOCATION_NOT_FOUND'],
    [`${base}?cursor=nothing`, 200, undefined],
  ] as const) {
    const response = await gateway.control(path);
    assert.deepEqual([response.status, (await response.json()).code], [status, code], path);
  }
  const { id } = await call('/');
  const elsewhere = await gateway.control(`/v1/namespaces/team/invocations/${id}`);
  assert.equal(elsewhere.status, 404, 'another namespace does not see it');
  assert.equal((await gateway.call(`${base}/${id}`)).status, 401);
});

test('records and lines survive a restart, and none are kept where they are not wanted', async () => {
  const data = makeDataDirectory();
  const first = await startTestGateway({ data });
  await first.put('hello', { script: 'echo to the log >&2' });
  const response = await first.call('/function/hello');
  const id = response.headers.get('x-call-id')!;
  await first.stop();
  const second = await startTestGateway({ data });
  assert.equal((await second.client.getInvocation(id)).status, 200);
  const lines = await second.client.readLogs('hello', { call: id });
  assert.deepEqual(
    lines.map(({ text }) => text),
    ['to the log'],
  );
  await second.stop();
  const silent = await startTestGateway({ data, settings: { records: 'false' } });
  const unrecorded = await silent.call('/function/hello');
  const found = silent.client.getInvocation(unrecorded.headers.get('x-call-id')!);
  await assert.rejects(found, { code: 'INVOCATION_NOT_FOUND' });
  await silent.stop();
});

describe('record: bodies', () => {
  const echo = `export default async (request) => new Response(
    new URL(request.url).pathname === '/long' ? 'x'.repeat(2 ** 20 + 1) : await request.arrayBuffer(),
    { status: 201, headers: { 'x-version': 'VERSION' } });`;
  const deploy = (version: string, record: 'bodies' | 'calls' = 'bodies') =>
    gateway.put('kept', {
      runtime: 'node',
      source: { files: { 'handler.mjs': echo.replace('VERSION', version) } },
      record,
    });

  test('what went in and came out is kept, and called again with', async () => {
    await deploy('one');
    const response = await gateway.call('/function/kept/p?q=1', {
      method: 'POST',
      body: '{"a":"ü"}',
      headers: { 'content-type': 'application/json' },
    });
    const id = response.headers.get('x-call-id')!;
    const kept = await client.getBodies(id);
    assert.deepEqual(
      [
        kept.request.method,
        kept.request.path,
        kept.request.body,
        kept.reply.status,
        kept.reply.body,
      ],
      ['POST', '/p?q=1', '{"a":"ü"}', 201, '{"a":"ü"}'],
    );
    assert.ok(
      kept.request.headers.some(([k, v]) => k === 'content-type' && v === 'application/json'),
    );
    await deploy('two');
    const again = await client.replayInvocation(id);
    assert.deepEqual([again.version, again.reply.body], [2, '{"a":"ü"}']);
    assert.deepEqual(
      again.reply.headers.find(([key]) => key === 'x-version'),
      ['x-version', 'two'],
    );
    const pinned = await client.replayInvocation(id, { version: 1 });
    assert.deepEqual(
      pinned.reply.headers.find(([key]) => key === 'x-version'),
      ['x-version', 'one'],
    );
    const record = await client.getInvocation(again.id);
    assert.deepEqual([record.origin, record.parent, record.caller], ['replay', id, 'admin']);
    await assert.rejects(client.replayInvocation(id, { version: 9 }), {
      code: 'VERSION_NOT_FOUND',
    });
  });

  test('bytes stay bytes, bodies that stream are kept too, and too long ones are not', async () => {
    const bytes = Uint8Array.from({ length: 300_000 }, (_, i) => i & 255);
    const response = await gateway.call('/function/kept', { method: 'POST', body: bytes });
    await response.arrayBuffer();
    const kept = await waitFor(() =>
      client.getBodies(response.headers.get('x-call-id')!).catch(() => undefined),
    );
    assert.deepEqual(Buffer.from(kept.reply.base64!, 'base64'), Buffer.from(bytes));
    assert.deepEqual(Buffer.from(kept.request.base64!, 'base64'), Buffer.from(bytes));
    const long = await gateway.call('/function/kept/long');
    await long.arrayBuffer();
    const found = client.getBodies(long.headers.get('x-call-id')!);
    await assert.rejects(found, { code: 'BODIES_NOT_KEPT' });
  });

  test('not asked for, nothing is kept; a change takes effect without a new version', async () => {
    const before = await client.getFunction('kept');
    await deploy('two', 'calls');
    const response = await gateway.call('/function/kept', { method: 'POST', body: 'x' });
    const found = client.getBodies(response.headers.get('x-call-id')!);
    await assert.rejects(found, { code: 'BODIES_NOT_KEPT', status: 409 });
    const after = await client.getFunction('kept');
    assert.deepEqual(after.latestVersion.number, before.latestVersion.number);
    assert.deepEqual([before.record, after.record], ['bodies', 'calls']);
  });
});
