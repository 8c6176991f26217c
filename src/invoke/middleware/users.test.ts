/**
 * Goal: users' middleware can do what its types say, and what it does wrong fails its own call with a text that names it.
 * Method: small middleware around a scripted function, through the test kit that users have; modules as files.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import cache from '../../../examples/middleware/cache.ts';
import enrich from '../../../examples/middleware/enrich.ts';
import type { Middleware as UserMiddleware } from '../../../sdk/middleware.ts';
import { runMiddleware } from '../../../sdk/testing.ts';
import { PushedBody } from '../../body.ts';
import { mockCall, mockVersion } from '../../driver/mock.ts';
import { GatewayError } from '../../errors.ts';
import { settle } from '../../testing/fake-clock.ts';
import { CallSignal, isStream } from '../invoke.ts';
import { loadMiddleware, userMiddleware } from './users.ts';

const directory = mkdtempSync(join(tmpdir(), 'fnway-middleware-'));
after(() => rmSync(directory, { recursive: true }));

describe('before', () => {
  test('sees the call, and changes nothing when it returns nothing', async () => {
    let seen: unknown;
    const { called } = await runMiddleware(
      {
        before(call) {
          seen = [call.namespace, call.function, call.version, call.method, call.path, call.caller];
          return undefined;
        },
      },
      { call: { method: 'POST', path: '/a?b=c', body: 'x', headers: { 'x-a': '1' } } },
    );
    assert.deepEqual(seen, ['default', 'hello', 1, 'POST', '/a?b=c', 'anonymous']);
    assert.deepEqual(
      [called!.path, called!.text, called!.headers.get('x-a')],
      ['/a?b=c', 'x', '1'],
    );
  });

  test('changes path, headers and body', async () => {
    const { called } = await runMiddleware(
      { before: () => ({ call: { path: '/other', headers: { 'x-b': '2' }, body: 'longer' } }) },
      { call: { body: 'x', headers: { 'content-length': '1', 'x-a': '1' } } },
    );
    assert.deepEqual(
      [called!.path, called!.text, called!.headers.get('x-b')],
      ['/other', 'longer', '2'],
    );
    assert.deepEqual(
      [called!.headers.get('x-a'), called!.headers.get('content-length')],
      [null, null],
    );
  });

  test('answers instead of the function', async () => {
    const { called, status, text, headers } = await runMiddleware({
      before: async () => ({ reply: { status: 403, body: { no: true } } }),
    });
    assert.deepEqual([called, status, text], [undefined, 403, '{"no":true}']);
    assert.equal(headers.get('content-type'), 'application/json');
  });
});

describe('after', () => {
  test('sees the answer and gives another', async () => {
    const { status, text } = await runMiddleware(
      {
        after: (_, reply) => ({
          status: reply.status + 1,
          body: `${Buffer.from(reply.body!).toString()}!`,
        }),
      },
      { reply: { status: 200, body: 'hi' } },
    );
    assert.deepEqual([status, text], [201, 'hi!']);
  });

  test('changes headers alone, of the answer that it was given', async () => {
    const { text, headers } = await runMiddleware(
      { after: (_, reply) => ({ headers: { 'x-was': reply.headers.get('x-a')! } }) },
      { reply: { headers: { 'x-a': '1' }, body: 'hi' } },
    );
    assert.deepEqual([text, headers.get('x-a'), headers.get('x-was')], ['hi', null, '1']);
  });
});

describe('around', () => {
  test('calls the function with changes, and gives its answer on', async () => {
    const { called, text } = await runMiddleware(
      {
        async around(_, next) {
          const reply = await next({ body: 'changed' });
          reply.headers.set('x-b', '1');
          return reply;
        },
      },
      { call: { body: 'x' }, reply: ({ text: body }) => ({ body }) },
    );
    assert.deepEqual([called!.text, text], ['changed', 'changed']);
  });

  test('may not call at all, and not twice', async () => {
    const own = await runMiddleware({ around: async () => ({ body: 'own' }) });
    assert.deepEqual([own.called, own.text], [undefined, 'own']);
    const twice = runMiddleware({
      async around(_, next) {
        await next();
        return next();
      },
    });
    await assert.rejects(twice, { code: 'MIDDLEWARE_FAILED', message: /called next twice/ });
  });
});

test('what it does wrong fails the call and names it', async () => {
  const wrong: Array<[object, RegExp]> = [
    [
      {
        before: () => {
          throw new Error('oh');
        },
      },
      /before of the middleware mine: it threw oh/,
    ],
    [
      {
        after: async () => {
          throw new Error('oh');
        },
      },
      /after .* threw oh/,
    ],
    [
      {
        around: async () => {
          throw 'oh';
        },
      },
      /around .* threw oh/,
    ],
    [{ before: () => ({ what: 1 }) }, /neither call nor reply/],
    [{ before: () => ({ reply: 7 }) }, /returned no reply/],
    [{ around: async () => undefined }, /returned no reply/],
    [{ before: () => ({ reply: { status: 99 } }) }, /99 is no status/],
    [{ before: () => ({ reply: { headers: { 'a b': 'x' } } }) }, /before of the middleware mine/],
    [{ before: () => ({ call: { path: '/ä' } }) }, /printable ASCII/],
    [{ before: () => ({ call: { headers: { 'a b': 'x' } } }) }, /before of the middleware mine/],
  ];
  for (const [hooks, message] of wrong)
    await assert.rejects(runMiddleware({ name: 'mine', ...hooks }), {
      code: 'MIDDLEWARE_FAILED',
      message,
    });
});

test('what it never looks at ends nothing, and a stream that it replaces is given up', async () => {
  const unhandled: unknown[] = [];
  const note = (error: unknown) => unhandled.push(error);
  process.on('unhandledRejection', note);
  const { text } = await runMiddleware({
    async around(_, next) {
      void next();
      void next();
      return { body: 'own' };
    },
  });
  assert.equal(text, 'own');
  await assert.rejects(runMiddleware({ before: () => ({ call: { body: { a: 1 } as never } }) }), {
    code: 'MIDDLEWARE_FAILED',
    message: /text or bytes/,
  });
  let cancelled = 0;
  const body = new PushedBody({ onRead() {}, onCancel: () => cancelled++ });
  const options = { monotonicMs: () => 0, bufferedBodyBytesMax: 10 };
  const invoke = userMiddleware(
    { after: () => ({ body: 'x' }) },
    options,
  )(async () => ({
    ...{ status: 200, headers: [], body },
  }));
  await invoke(mockCall(mockVersion()), new CallSignal());
  assert.equal(cancelled, 1);
  await new Promise(resolve => setImmediate(resolve));
  process.off('unhandledRejection', note);
  assert.deepEqual(unhandled, []);
});

test('errors of the call pass through it as they are', async () => {
  const busy = new GatewayError('FUNCTION_BUSY', 'x');
  const options = { monotonicMs: () => 0, bufferedBodyBytesMax: 10 };
  const invoke = userMiddleware(
    { around: (_, next) => next() },
    options,
  )(() => Promise.reject(busy));
  await assert.rejects(invoke(mockCall(mockVersion()), new CallSignal()), {
    code: 'FUNCTION_BUSY',
  });
});

test('one that never ends holds its call no longer than the call may take', async () => {
  const options = { monotonicMs: () => 0, bufferedBodyBytesMax: 10 };
  const invoke = userMiddleware({ before: () => new Promise(() => {}) }, options)(assert.fail);
  const signal = new CallSignal();
  const late = assert.rejects(invoke(mockCall(mockVersion()), signal), {
    code: 'CALL_DEADLINE_EXCEEDED',
  });
  signal.abort(new GatewayError('CALL_DEADLINE_EXCEEDED', 'late'));
  await late;
});

test('an answer that streams passes as it comes, or is collected where it is wanted whole', async () => {
  const options = { monotonicMs: () => 0, bufferedBodyBytesMax: 10 };
  const streaming = () => {
    const body = new PushedBody({ onRead() {}, onCancel() {} });
    body.push(Buffer.from('some'));
    body.end();
    return { status: 200, headers: [], body };
  };
  for (const wholeBodies of [false, true]) {
    let seen: unknown;
    const invoke = userMiddleware(
      {
        wholeBodies,
        after(_, reply) {
          seen = reply.body && Buffer.from(reply.body).toString();
          return undefined;
        },
      },
      options,
    )(async () => streaming());
    const { body } = await invoke(mockCall(mockVersion()), new CallSignal());
    assert.deepEqual([seen, isStream(body)], wholeBodies ? ['some', false] : [undefined, true]);
  }
  const long = new PushedBody({ onRead() {}, onCancel() {} });
  long.push(Buffer.alloc(11));
  const collecting = userMiddleware({ wholeBodies: true, before: () => undefined }, options);
  const invoke = collecting(async () => ({ status: 200, headers: [], body: long }));
  await assert.rejects(invoke(mockCall(mockVersion()), new CallSignal()), {
    code: 'MIDDLEWARE_FAILED',
  });
});

test('a module that is no middleware is told why', async () => {
  const load = (code: string) => {
    const file = join(directory, `${Math.abs(code.length * 7919)}-${code.length}.mjs`);
    writeFileSync(file, code);
    return loadMiddleware(file);
  };
  for (const [code, message] of [
    ['export const x = 1;', /no default export that is an object/],
    ['export default {};', /none of before, after and around/],
    ['export default { before: 1 };', /before is not a function/],
    ['export default { befor() {}, after() {} };', /befor is unknown; there are before, after/],
    ['throw new Error("oh");', /it does not load: oh/],
    ['this is no code', /it does not load/],
  ] as const)
    await assert.rejects(load(code), { code: 'MIDDLEWARE_INVALID', message });
  const loaded = await load('export default { name: "mine", before() {} };');
  assert.equal(loaded.name, 'mine');
});

describe('the examples', () => {
  test('enrichment adds who the caller is, and refuses who is unknown', async () => {
    const known = await runMiddleware(enrich, { call: { headers: { 'x-client': 'web-1' } } });
    assert.equal(known.called!.headers.get('x-team'), 'shop');
    const unknown = await runMiddleware(enrich, { call: { headers: { 'x-client': 'x' } } });
    assert.deepEqual([unknown.status, unknown.called], [403, undefined]);
  });

  test('caching gives an answer again for as long as it says', async () => {
    let calls = 0;
    const get = (path: string, caller: 'anonymous' | 'admin' = 'anonymous') =>
      runMiddleware(cache, {
        call: { path, caller },
        reply: () => ({ headers: { 'cache-control': 'max-age=60' }, body: String(++calls) }),
      });
    const [first, again, other, admin] = [
      await get('/a'),
      await get('/a'),
      await get('/b'),
      await get('/a', 'admin'),
    ];
    assert.deepEqual(
      [first, again, other, admin].map(({ text }) => text),
      ['1', '1', '2', '3'],
    );
    assert.deepEqual([first.headers.get('x-cache'), again.headers.get('x-cache')], [null, 'hit']);
  });
});

test('what a module answers that is no reply is its mistake, and told as that', async () => {
  const options = { monotonicMs: () => 0, bufferedBodyBytesMax: 10 };
  const circular: Record<string, unknown> = {};
  circular.self = circular;
  const answers: Array<[answer: unknown, message: RegExp]> = [
    [new Response('x'), /returned a Response; return \{ status, headers, body \}/],
    [{ body: circular }, /circular/],
    [{ body: 1n }, /BigInt/],
    [{ body: () => 1 }, /a function has no JSON/],
    [{ body: new ReadableStream() }, /a body is text, bytes/],
    [Object.defineProperty({}, 'status', { get: () => circular.none!.toString() }), /cannot read/i],
  ];
  for (const [answer, message] of answers) {
    const module = { before: () => ({ reply: answer }) } as unknown as UserMiddleware;
    const invoke = userMiddleware(module, options)(assert.fail);
    const refused = invoke(mockCall(mockVersion()), new CallSignal());
    await assert.rejects(refused, { code: 'MIDDLEWARE_FAILED', message });
  }
  for (const thrown of [
    Object.create(null),
    Object.assign(new Error('x'), { name: 'GatewayError' }),
  ]) {
    const throws = () => {
      throw thrown;
    };
    const invoke = userMiddleware({ before: throws }, options)(assert.fail);
    const refused = invoke(mockCall(mockVersion()), new CallSignal());
    await assert.rejects(refused, { code: 'MIDDLEWARE_FAILED' });
  }
});

test('a module that takes all of the time is named, and one that waits for the function is not', async () => {
  const options = { monotonicMs: () => 0, bufferedBodyBytesMax: 10 };
  const late = new GatewayError('CALL_DEADLINE_EXCEEDED', 'no instance was free');
  const never = () => new Promise<never>(() => {});
  const run = async (module: UserMiddleware) => {
    const signal = new CallSignal();
    const reply = userMiddleware(module, options)(never)(mockCall(mockVersion()), signal);
    await settle();
    signal.abort(late);
    return reply.catch(error => error.message);
  };
  assert.match(
    await run({ name: 'slow', before: never }),
    /^before of the middleware slow did not end/,
  );
  assert.match(
    await run({ name: 'slow', around: never }),
    /^around of the middleware slow did not end/,
  );
  assert.equal(await run({ around: (_, next) => next() }), 'no instance was free');
});
