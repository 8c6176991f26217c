/**
 * Goal: an async call is accepted once it is on disk, runs with what was sent byte for byte, and can be read back, cancelled
 * and tried again. Method: a real gateway and real functions over HTTP.
 */
import assert from 'node:assert/strict';
import { createHash, createHmac, randomBytes } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import type { InvocationView } from '../../client/api.ts';
import { startTestGateway } from '../../src/testing/test-gateway.ts';
import { waitFor } from '../../src/testing/wait-for.ts';

const gateway = await startTestGateway({
  shared: true,
  env: { FNWAY_ALLOW_PRIVATE_CALLBACKS: 'true' },
});
const { client } = gateway;

/** Answers with all that it was called with. */
await gateway.put('mirror', {
  runtime: 'node',
  source: {
    files: {
      'handler.mjs': `import { createHash } from 'node:crypto';
export default async (request, context) => {
  const body = new Uint8Array(await request.arrayBuffer());
  const seen = { method: request.method, path: context.rawPath ?? new URL(request.url).pathname,
    query: new URL(request.url).search, headers: [...request.headers],
    digest: createHash('sha256').update(body).digest('hex') };
  const kind = new URL(request.url).searchParams.get('answer');
  if (kind === 'binary') return new Response(body, { status: 201, headers: { 'content-type': 'application/x-bytes' } });
  return Response.json(seen);
};`,
    },
  },
});
/** Throws as often as it is asked to, by key; counts in a file of its own. */
await gateway.put('flaky', {
  runtime: 'node',
  retry: { attempts: 4, minDelay: '20ms', maxDelay: '40ms' },
  source: {
    files: {
      'handler.mjs': `const seen = new Map();
export default async (request) => {
  const { key, times, status, terminal } = await request.json();
  const before = seen.get(key) ?? 0;
  seen.set(key, before + 1);
  if (before < times) {
    if (status) return new Response('not yet', { status, headers: terminal ? { 'x-fnway-no-retry': '1' } : {} });
    const error = new Error('not yet: ' + before);
    if (terminal) error.name = 'TerminalError';
    throw error;
  }
  return new Response('after ' + before);
};`,
    },
  },
});
await gateway.put('slow', {
  runtime: 'node',
  source: {
    files: {
      'handler.mjs': `export default async (request) => {
  await new Promise(resolve => { setTimeout(resolve, Number(await_ms(request))); request.signal.addEventListener('abort', resolve); });
  return new Response('slept');
};
function await_ms(request) { return new URL(request.url).searchParams.get('ms') ?? '60000'; }`,
    },
  },
});

const post = (path: string, init: RequestInit = {}) =>
  gateway.call(path, { method: 'POST', ...init });

async function accepted(response: Response): Promise<string> {
  assert.equal(response.status, 202, await response.clone().text());
  const { id, location } = (await response.json()) as { id: string; location: string };
  assert.equal(response.headers.get('location'), location);
  assert.equal(location, `/v1/namespaces/default/invocations/${id}`);
  return id;
}

const ended = (id: string): Promise<InvocationView> => client.getInvocation(id, { wait: '30s' });

describe('an async call', () => {
  test('reaches the function byte for byte, and its answer is read back', async () => {
    const body = randomBytes(3000);
    const response = await post('/async-function/mirror/a%2Fb/c?x=1&y=%20', {
      body,
      headers: { 'x-mine': 'v;1', 'content-type': 'application/x-bytes' },
    });
    const id = await accepted(response);
    assert.equal(response.headers.get('x-call-id'), id);
    const view = await ended(id);
    assert.equal(view.state, 'succeeded');
    assert.equal(view.status, 200);
    assert.equal(view.origin, 'async');
    assert.equal(view.path, '/a%2Fb/c?x=1&y=%20');
    assert.equal(view.attempts?.length, 1);
    const result = await client.getResult(id);
    assert.equal(result.headers.get('x-function-status'), '200');
    const seen = (await result.json()) as Record<string, unknown> & { headers: string[][] };
    assert.equal(seen.path, '/a%2Fb/c?x=1&y=%20');
    assert.equal(seen.query, '?x=1&y=%20');
    assert.equal(seen.digest, createHash('sha256').update(body).digest('hex'));
    const headers = new Map(seen.headers.map(([name, value]) => [name!, value!]));
    assert.equal(headers.get('x-mine'), 'v;1');
    assert.equal(headers.get('content-type'), 'application/x-bytes');
    assert.equal(headers.get('x-call-id'), id);
  });

  test('carries bodies and results that are long, and keeps no input of what has succeeded', async () => {
    const body = randomBytes(700_000);
    const id = await accepted(await post('/async-function/mirror?answer=binary', { body }));
    const result = await client.getResult(id, { wait: '30s' });
    assert.equal(result.status, 201);
    assert.equal(result.headers.get('content-type'), 'application/x-bytes');
    assert.ok(Buffer.from(await result.arrayBuffer()).equals(body));
    // Its result's.
    const blobs = () =>
      readdirSync(join(gateway.data, 'payloads'), { recursive: true, encoding: 'utf8' }).filter(
        name => name.includes('sha256'),
      );
    await waitFor(() => blobs().length === 1);
  });

  test('is refused where a sync call is, and only POST', async () => {
    assert.equal((await post('/async-function/nothing')).status, 401);
    const unknown = await gateway.control('/async-function/nothing', { method: 'POST' });
    assert.equal(unknown.status, 404);
    const get = await gateway.call('/async-function/mirror');
    assert.equal(get.status, 405);
    assert.equal(get.headers.get('allow'), 'POST');
    assert.equal((await post('/async-function/mirror@9')).status, 404);
    assert.equal((await post('/async-function/mirror@x')).status, 404);
  });

  test('keeps the label of its caller apart from its id', async () => {
    const response = await post('/async-function/mirror', { headers: { 'x-call-id': 'mine-1' } });
    const id = await accepted(response);
    assert.equal(response.headers.get('x-call-id'), 'mine-1');
    assert.equal((await ended(id)).label, 'mine-1');
  });

  test('is seen running, and its record afterwards', async () => {
    const id = await accepted(await post('/async-function/slow?ms=300'));
    const early = await client.getResult(id);
    assert.equal(early.status, 202);
    assert.match(((await early.json()) as InvocationView).state, /queued|running/);
    assert.equal((await ended(id)).state, 'succeeded');
    const { items } = await client.listInvocations({ function: 'slow', origin: 'async' });
    assert.ok(items.some(item => item.id === id));
  });

  for (const [header, value, message] of [
    ['x-delay', 'soon', /X-Delay: write seconds, or a duration/],
    ['x-delay', '32d', /X-Delay: at most 31 days/],
    ['x-run-at', 'tomorrow', /X-Run-At: write a moment/],
    ['x-run-at', '2026-13-41T00:00:00Z', /X-Run-At: write a moment/],
    ['x-run-at', '2026-02-30T00:00:00Z', /X-Run-At: write a moment/],
    ['x-priority', '10', /X-Priority: write 0 to 9/],
    ['x-callback-url', 'ftp://example.com/', /X-Callback-Url: write an http/],
    ['x-callback-url', 'nothing', /X-Callback-Url: write an http/],
    ['x-callback-url', 'http://me:secret@example.com/', /X-Callback-Url: a user and a password/],
    ['x-callback-url', `http://example.com/${'x'.repeat(2048)}`, /longer than 2048 characters/],
    ['idempotency-key', 'x'.repeat(256), /Idempotency-Key: give 1 to 255 characters/],
  ] as const)
    test(`with ${header}: ${value.slice(0, 30)} is refused`, async () => {
      const response = await post('/async-function/mirror', { headers: { [header]: value } });
      assert.equal(response.status, 400);
      const problem = (await response.json()) as { code: string; detail: string };
      assert.equal(problem.code, 'HEADER_INVALID');
      assert.match(problem.detail, message);
    });

  test('whose body is too long is refused, also when its length is not told', async () => {
    const small = await startTestGateway({ settings: { bufferedBodyBytesMax: '100000' } });
    try {
      await small.put('hello', { script: 'cat' });
      const body = new Uint8Array(100_001);
      const told = await small.call('/async-function/hello', { method: 'POST', body });
      assert.equal(told.status, 413);
      const stream = new Blob([body]).stream();
      const init = { method: 'POST', body: stream, duplex: 'half' as const };
      const untold = await small.call('/async-function/hello', init);
      assert.equal(untold.status, 413);
      const fits = await small.call('/async-function/hello', {
        method: 'POST',
        body: body.subarray(1),
      });
      assert.equal(fits.status, 202);
    } finally {
      await small.stop();
    }
  });
});

describe('when it runs', () => {
  test('not before its time', async () => {
    const startMs = Date.now();
    const id = await accepted(
      await post('/async-function/mirror', { headers: { 'x-delay': '300ms' } }),
    );
    const waiting = await client.getInvocation(id);
    assert.equal(waiting.state, 'queued');
    assert.ok(Date.parse(waiting.dueAt!) >= startMs + 300);
    const view = await ended(id);
    assert.ok(Date.parse(view.attempts![0]!.startedAt) >= startMs + 300);
  });

  test('at once where the moment has passed', async () => {
    const headers = { 'x-run-at': '2021-01-01T04:00:00Z' };
    const id = await accepted(await post('/async-function/mirror', { headers }));
    assert.equal((await ended(id)).state, 'succeeded');
  });

  test('one key is one call, for whoever has it', async () => {
    const headers = { 'idempotency-key': 'order-1' };
    const first = await accepted(await post('/async-function/mirror', { headers, body: 'a' }));
    const again = await accepted(await post('/async-function/mirror', { headers, body: 'a' }));
    assert.equal(again, first);
    const other = await post('/async-function/mirror', { headers, body: 'b' });
    assert.equal(other.status, 422);
    assert.equal(((await other.json()) as { code: string }).code, 'IDEMPOTENCY_CONFLICT');
    const admin = await gateway.control('/async-function/mirror', {
      method: 'POST',
      headers,
      body: 'b',
    });
    assert.notEqual(await accepted(admin), first, 'of another caller');
  });

  test('a full queue says so, and takes more when there is room', async () => {
    await gateway.put('narrow', { script: 'sleep 0.3', queue: { concurrency: 1, waiting: 2 } });
    const answers = await Promise.all(
      Array.from({ length: 8 }, () => post('/async-function/narrow')),
    );
    const full = answers.filter(({ status }) => status === 429);
    assert.ok(full.length >= 5 && full.length < 8, `${full.length}`);
    assert.equal(((await full[0]!.json()) as { code: string }).code, 'QUEUE_FULL');
    assert.equal(full[0]!.headers.get('retry-after'), '1');
    await waitFor(async () => (await post('/async-function/narrow')).status === 202);
  });

  test('more room for a function lets go what waits', async () => {
    const definition = { script: 'sleep 30', queue: { concurrency: 1 } };
    await gateway.put('growing', definition);
    const ids = await Promise.all(
      [1, 2, 3].map(async () => accepted(await post('/async-function/growing'))),
    );
    const running = async () =>
      (await client.listInvocations({ function: 'growing', state: 'running' })).items.length;
    await waitFor(async () => (await running()) === 1);
    await gateway.put('growing', { ...definition, queue: { concurrency: 3 } });
    await waitFor(async () => (await running()) === 3);
    for (const id of ids) await client.cancelInvocation(id);
  });

  test('no more at once than the function says', async () => {
    await gateway.put('single', {
      runtime: 'node',
      queue: { concurrency: 2 },
      source: {
        files: {
          'handler.mjs': `let running = 0;
export default async () => {
  const now = ++running;
  await new Promise(resolve => setTimeout(resolve, 20));
  running--;
  return new Response(String(now));
};`,
        },
      },
    });
    const ids = await Promise.all(
      Array.from({ length: 12 }, async () => accepted(await post('/async-function/single'))),
    );
    const most = await Promise.all(
      ids.map(async id => Number(await (await client.getResult(id, { wait: '30s' })).text())),
    );
    assert.ok(Math.max(...most) <= 2, `${most}`);
  });
});

describe('trying again', () => {
  const flaky = async (value: object) =>
    accepted(await post('/async-function/flaky', { body: JSON.stringify(value) }));

  test('until it succeeds, with every try told', async () => {
    const id = await flaky({ key: 'a', times: 2 });
    const view = await ended(id);
    assert.equal(view.state, 'succeeded');
    assert.deepEqual(
      view.attempts?.map(({ status, failure }) => [status, failure?.reason, failure?.message]),
      [
        [502, 'threw', 'not yet: 0'],
        [502, 'threw', 'not yet: 1'],
        [200, undefined, undefined],
      ],
    );
    assert.equal(await (await client.getResult(id)).text(), 'after 2');
    const gaps = view.attempts!.map(({ startedAt }) => Date.parse(startedAt));
    assert.ok(gaps[1]! - gaps[0]! >= 20 && gaps[2]! - gaps[1]! >= 40);
  });

  test('until its tries are over: then it is dead, and can be driven again', async () => {
    const id = await flaky({ key: 'b', times: 4 });
    const view = await ended(id);
    assert.equal(view.state, 'dead');
    assert.equal(view.attempts?.length, 4);
    assert.equal(view.failure?.message, 'not yet: 3');
    const { items } = await client.listInvocations({ function: 'flaky', state: 'dead' });
    assert.ok(items.some(item => item.id === id));
    await assert.rejects(client.getResult(id), { code: 'FUNCTION_FAILED' });
    const again = await client.redriveInvocation(id);
    const redriven = await ended(again.id);
    assert.deepEqual([redriven.state, redriven.parent], ['succeeded', id]);
    await assert.rejects(client.redriveInvocation(id), { code: 'INVOCATION_REDRIVEN' });
  });

  test('a status that asks for it, and not one that does not', async () => {
    const busy = await ended(await flaky({ key: 'c', times: 1, status: 503 }));
    assert.deepEqual([busy.state, busy.attempts?.length], ['succeeded', 2]);
    const wrong = await flaky({ key: 'd', times: 1, status: 404 });
    const view = await ended(wrong);
    assert.deepEqual([view.state, view.attempts?.length, view.status], ['failed', 1, 404]);
    const result = await client.getResult(wrong);
    assert.deepEqual([result.status, await result.text()], [404, 'not yet']);
  });

  test('not what says of itself that it is of no use', async () => {
    const threw = await ended(await flaky({ key: 'e', times: 1, terminal: true }));
    assert.deepEqual([threw.state, threw.attempts?.length], ['failed', 1]);
    const said = await ended(await flaky({ key: 'f', times: 1, terminal: true, status: 503 }));
    assert.deepEqual([said.state, said.attempts?.length], ['failed', 1]);
  });

  test('an instance that is killed, and a call that takes too long, are failures of a try', async () => {
    await gateway.put('dies', {
      runtime: 'node',
      timeout: '300ms',
      retry: { attempts: 2, minDelay: '10ms' },
      source: {
        files: {
          'handler.mjs': `export default async (request) => {
  if ((await request.text()) === 'kill') process.kill(process.pid, 'SIGKILL');
  await new Promise(() => {});
};`,
        },
      },
    });
    for (const [body, reason] of [
      ['kill', 'crashed'],
      ['sleep', 'timeout'],
    ]) {
      const view = await ended(await accepted(await post('/async-function/dies', { body: body! })));
      assert.equal(view.state, 'dead');
      assert.deepEqual(
        view.attempts?.map(({ failure }) => failure?.reason),
        [reason, reason],
      );
    }
  });

  test('jobs of a function that is removed end, and say so', async () => {
    await gateway.put('leaves', { script: 'cat' });
    const headers = { 'x-delay': '400ms' };
    const id = await accepted(await post('/async-function/leaves', { headers }));
    await client.removeFunction('leaves');
    const view = await ended(id);
    assert.deepEqual([view.state, view.failure?.code], ['failed', 'FUNCTION_NOT_FOUND']);
  });

  test('only where the function asks for it: else one try, and it has failed', async () => {
    await gateway.put('once', { script: 'exit 3' });
    const id = await accepted(await post('/async-function/once'));
    const view = await ended(id);
    assert.deepEqual([view.state, view.attempts?.length], ['failed', 1]);
    assert.equal(view.failure?.reason, 'exit');
  });

  test('input that the schema refuses is never accepted', async () => {
    await gateway.put('strict', {
      script: 'cat',
      schema: { in: { type: 'object', required: ['id'] } },
    });
    const refused = await post('/async-function/strict', { body: '{}' });
    assert.equal(refused.status, 422);
    assert.equal(((await refused.json()) as { code: string }).code, 'INPUT_INVALID');
    await ended(await accepted(await post('/async-function/strict', { body: '{"id":1}' })));
  });
});

describe('cancelling', () => {
  test('what waits never runs', async () => {
    const headers = { 'x-delay': '1h' };
    const id = await accepted(await post('/async-function/mirror', { headers }));
    await assert.rejects(client.redriveInvocation(id), { code: 'INVOCATION_NOT_ENDED' });
    const view = await client.cancelInvocation(id);
    assert.deepEqual([view.state, view.attempts], ['cancelled', []]);
    await assert.rejects(client.getResult(id), { code: 'INVOCATION_CANCELLED' });
    await assert.rejects(client.cancelInvocation(id), { code: 'INVOCATION_ENDED' });
    await assert.rejects(client.cancelInvocation('inv_00000000000000000000000000'), {
      code: 'INVOCATION_NOT_FOUND',
    });
  });

  test('what runs is told, and ends', async () => {
    const id = await accepted(await post('/async-function/slow'));
    await waitFor(async () => (await client.getInvocation(id)).state === 'running');
    await client.cancelInvocation(id);
    const view = await ended(id);
    assert.equal(view.state, 'cancelled');
  });
});

describe('a callback', () => {
  interface Called {
    request: IncomingMessage;
    body: Buffer;
  }
  const calls: Called[] = [];
  const server = createServer(async (request, response) => {
    const body = Buffer.concat(await request.toArray());
    calls.push({ request, body });
    response.end();
  });
  after(() => server.close());
  const listening = new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const address = () => `http://127.0.0.1:${(server.address() as AddressInfo).port}/done?a=1`;

  async function callWith(path: string, body: string): Promise<{ id: string; called: Called }> {
    await listening;
    const before = calls.length;
    const headers = { 'x-callback-url': address(), 'x-call-id': 'mine' };
    const id = await accepted(await post(path, { headers, body }));
    await waitFor(() => calls.length > before, { timeoutMs: 20_000 });
    return { id, called: calls.at(-1)! };
  }

  test('tells what the function answered, signed with the function’s key', async () => {
    const { called } = await callWith('/async-function/mirror?answer=binary', 'the body');
    const { headers, method, url } = called.request;
    assert.deepEqual([method, url], ['POST', '/done?a=1']);
    assert.equal(called.body.toString(), 'the body');
    assert.equal(headers['content-type'], 'application/x-bytes');
    assert.equal(headers['x-call-id'], 'mine');
    assert.equal(headers['x-function-name'], 'mirror');
    assert.equal(headers['x-function-status'], '201');
    assert.match(String(headers['x-duration-seconds']), /^\d+\.\d{6}$/);
    const { signingKey } = await client.getToken('mirror');
    const [, seconds, signature] = /^t=(\d+),v1=([0-9a-f]{64})$/.exec(
      String(headers['x-fnway-signature']),
    )!;
    const expected = createHmac('sha256', signingKey)
      .update(`${seconds}.`)
      .update(called.body)
      .digest('hex');
    assert.equal(signature, expected);
    assert.ok(Math.abs(Number(seconds) - Date.now() / 1000) < 60);
  });

  test('tells failures too', async () => {
    await gateway.put('fails', { script: 'echo bad >&2; exit 7' });
    const { called } = await callWith('/async-function/fails', '');
    assert.equal(called.request.headers['x-function-status'], '502');
    assert.equal(called.request.headers['x-fnway-failure'], 'exit');
    assert.equal(called.request.headers['content-type'], 'application/problem+json');
    const problem = JSON.parse(called.body.toString()) as { code: string; requestId: string };
    assert.equal(problem.code, 'FUNCTION_FAILED');
    assert.equal(problem.requestId, called.request.headers['x-fnway-invocation']);
  });
});

test('metrics tell of jobs', async () => {
  await gateway.put('measured', { script: 'sleep 30', queue: { concurrency: 1 } });
  const ids = await Promise.all(
    [1, 2].map(async () => accepted(await post('/async-function/measured'))),
  );
  const metrics = async () => (await gateway.call('/metrics')).text();
  const series = 'fnway_jobs{namespace="default",function="measured",kind="call",state=';
  await waitFor(async () => {
    const text = await metrics();
    return text.includes(`${series}"waiting"} 1`) && text.includes(`${series}"running"} 1`);
  });
  assert.match(await metrics(), /^fnway_jobs_ended\{state="dead"\} [1-9]/m);
  for (const id of ids) await client.cancelInvocation(id);
});

test('whoever has only the function’s token may call it so too', async () => {
  await gateway.put('closed', { script: 'cat', auth: 'token' });
  assert.equal((await post('/async-function/closed')).status, 401);
  const { token } = await client.getToken('closed');
  const headers = { authorization: `Bearer ${token}` };
  const id = await accepted(await post('/async-function/closed', { headers }));
  assert.equal((await ended(id)).caller, 'function-token');
});
