/**
 * Goal: function code cannot tell the light Request, Response and Headers from Node's own, except
 * where the files' heads say so. Method: the same operations run on both kits, and their outcomes
 * (a value, or the class of an error) must be equal; tables for what is known to be tricky,
 * properties for the rest. What only the runtime uses is tested directly. Installing the globals
 * is tested in a process of its own, as it cannot be undone.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { describe, test } from 'node:test';
import { inspect, promisify } from 'node:util';
import fc from 'fast-check';
import { LightHeaders, LightRequest, LightResponse, responseParts, toPairs } from './web.mjs';

interface Kit {
  Headers: typeof Headers;
  Request: typeof Request;
  Response: typeof Response;
}
type Check = (kit: Kit) => unknown;

const builtIn: Kit = { Headers, Request, Response };
const light = {
  Headers: LightHeaders,
  Request: LightRequest,
  Response: LightResponse,
} as unknown as Kit;

async function outcomeOf(check: Check, kit: Kit) {
  try {
    return { value: await check(kit) };
  } catch (error) {
    return { error: (error as Error)?.constructor?.name ?? error };
  }
}

async function expectSame(check: Check) {
  assert.deepEqual(await outcomeOf(check, light), await outcomeOf(check, builtIn));
}

function table(checks: Record<string, Check>) {
  for (const [name, check] of Object.entries(checks)) test(name, () => expectSame(check));
}

function any(value: unknown) {
  // biome-ignore lint/suspicious/noExplicitAny: authors pass what the types forbid
  return value as any;
}

const text = new TextEncoder();

function streamOf(...chunks: unknown[]) {
  return new ReadableStream({
    start(controller) {
      for (const chunk of chunks) {
        controller.enqueue(typeof chunk === 'string' ? text.encode(chunk) : chunk);
      }
      controller.close();
    },
  });
}

async function* iterableOf(...chunks: unknown[]) {
  yield* chunks;
}

function failingStream() {
  let pulls = 0;
  return new ReadableStream({
    pull(controller) {
      if (pulls++ === 0) controller.enqueue(text.encode('first'));
      else controller.error(new RangeError('broken'));
    },
  });
}

async function chunksOf(stream: ReadableStream | null) {
  if (stream === null) return null;
  const chunks: Uint8Array[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks).toString('latin1');
}

/** Everything that can be seen of a response without reading it. */
function viewOf(response: Response) {
  const { status, statusText, ok, redirected, type, url, bodyUsed } = response;
  const headers = [...response.headers].filter(([name]) => name !== 'content-type');
  const contentType = response.headers.get('content-type')?.replace(/boundary=.*/, 'boundary');
  return { status, statusText, ok, redirected, type, url, bodyUsed, headers, contentType };
}

function viewOfRequest(request: Request) {
  const view: Record<string, unknown> = { headers: [...request.headers] };
  for (const name in request) {
    const value = request[name as keyof Request];
    if (name !== 'headers' && name !== 'body' && typeof value === 'string') view[name] = value;
    if (typeof value === 'boolean') view[name] = value;
  }
  return { ...view, hasBody: request.body !== null, aborted: request.signal.aborted };
}

function call(fields: Record<string, unknown>) {
  const { body = null, signal, ...head } = fields;
  return LightRequest.fromCall({
    head: { method: 'GET', target: '/', headers: [], ...head },
    body: any(body),
    signal: any(signal ?? (() => new AbortController().signal)),
  });
}

describe('Headers', () => {
  const names = ['a', 'A', 'b-c', 'Cookie', 'Set-Cookie', 'set-cookie', 'x', 'bad name', '', 'ü'];
  const values = [
    '1',
    ' 2 ',
    '\t3\r\n',
    '',
    'a, b',
    'é',
    'snow☃man',
    'new\nline',
    'nul\0',
    'x\x01',
  ];
  const name = fc.oneof({ weight: 9, arbitrary: fc.constantFrom(...names) }, fc.string());
  const value = fc.oneof({ weight: 9, arbitrary: fc.constantFrom(...values) }, fc.string());
  const operation = fc.oneof(
    fc.tuple(fc.constantFrom('append', 'append', 'set'), name, value),
    fc.tuple(fc.constantFrom('delete', 'get', 'has'), name),
    fc.tuple(fc.constantFrom('getSetCookie', 'entries', 'keys', 'values', 'forEach')),
  );
  const entries = fc.array(fc.tuple(name, value), { maxLength: 5 });
  const init = fc.oneof(
    fc.constant(undefined),
    entries,
    entries.map(pairs => Object.fromEntries(pairs)),
    entries.map(pairs => new Map(pairs)),
  );

  function apply(headers: Headers, [method, ...args]: string[]): unknown {
    if (method === 'forEach') {
      const seen: string[][] = [];
      headers.forEach((one, key, all) => {
        assert.equal(all, headers);
        seen.push([key, one]);
      });
      return seen;
    }
    const result = any(headers)[method!](...args);
    return ['entries', 'keys', 'values'].includes(method!) ? [...result] : result;
  }

  test('any sequence of operations has the outcome of the built-in', async () => {
    const property = fc.asyncProperty(init, fc.array(operation), async (start, operations) => {
      await expectSame(kit => {
        const headers = new kit.Headers(any(start));
        const outcomes = operations.map(one => {
          try {
            return apply(headers, one);
          } catch (error) {
            return any(error).constructor.name;
          }
        });
        // The built-in's copy is trimmed after combining, which an empty last value shows.
        const copy = [...new kit.Headers(headers)].map(([key, one]) => [key, one.trimEnd()]);
        return [...outcomes, [...headers], copy];
      });
    });
    await fc.assert(property, { numRuns: 2000 });
  });

  test('headers from the wire read as if they had been appended one by one', async () => {
    const pairs = fc.array(
      fc.tuple(
        fc.constantFrom('Host', 'a', 'A', 'Cookie', 'Set-Cookie', 'X-Long-Name'),
        fc.constantFrom('1', 'b c', '', 'é'),
      ),
    );
    const property = fc.property(pairs, fc.array(operation), (wire, operations) => {
      const flat = wire.flat();
      const headers = any(LightHeaders.fromPairs(flat));
      const expected = new Headers(wire);
      for (const one of operations) {
        const run = (target: Headers) => {
          try {
            return apply(target, one);
          } catch (error) {
            return any(error).constructor.name;
          }
        };
        assert.deepEqual(run(headers), run(expected));
      }
      assert.deepEqual([...headers], [...expected]);
      assert.equal(flat.length, wire.length * 2, 'the list of the call is not changed');
    });
    fc.assert(property);
  });

  table({
    'a string is no headers': kit => new kit.Headers(any('ab')),
    'null is no headers': kit => new kit.Headers(any(null)),
    'a number is no headers': kit => new kit.Headers(any(1)),
    'a pair may be any iterable': kit => [...new kit.Headers(any([new Set(['a', 'b'])]))],
    'a string is no pair': kit => new kit.Headers(any(['ab'])),
    'three items are no pair': kit => new kit.Headers(any([['a', 'b', 'c']])),
    'one item is no pair': kit => new kit.Headers(any([['a']])),
    'a symbol is no name': kit => new kit.Headers(any({ [Symbol('a')]: 'b' })),
    'a symbol is no value': kit => new kit.Headers(any({ a: Symbol('b') })),
    'values become strings': kit => [...new kit.Headers(any({ a: 1, b: null, c: undefined }))],
    'names that differ in case combine': kit => [...new kit.Headers({ a: '1', A: '2' })],
    'generators give pairs': kit => [
      ...new kit.Headers(
        any(
          (function* () {
            yield ['b', '1'];
            yield ['a', '2'];
          })(),
        ),
      ),
    ],
    'a copy is independent': kit => {
      const one = new kit.Headers({ a: '1' });
      const two = new kit.Headers(one);
      two.set('a', '2');
      return [one.get('a'), two.get('a')];
    },
    'cookies being set stay apart': kit => {
      const headers = new kit.Headers([
        ['Set-Cookie', 'a=1'],
        ['b', '2'],
        ['set-cookie', 'c=3'],
      ]);
      return [headers.get('set-cookie'), headers.getSetCookie(), [...headers]];
    },
    'undefined is a name like another': kit =>
      new kit.Headers({ undefined: 'x' }).get(any(undefined)),
    'changes while iterating are seen': kit => {
      const headers = new kit.Headers({ b: '1', c: '2', d: '3' });
      const seen: string[] = [];
      for (const [key] of headers) {
        seen.push(key);
        headers.delete('c');
      }
      return seen;
    },
    'forEach needs a function': kit => new kit.Headers().forEach(any(1)),
    'forEach passes this': kit => {
      let self: unknown;
      const receiver = {};
      new kit.Headers({ a: '1' }).forEach(function (this: unknown) {
        self = this;
      }, receiver);
      return self === receiver;
    },
    'it is iterated by entries': kit =>
      kit.Headers.prototype[Symbol.iterator] === kit.Headers.prototype.entries,
    'it has a tag': kit => Object.prototype.toString.call(new kit.Headers()),
    'it has a name': kit => kit.Headers.name,
    'methods need headers as this': kit => kit.Headers.prototype.get.call(any({}), 'a'),
    'it can be extended': kit => {
      class Mine extends kit.Headers {}
      const mine = new Mine({ a: '1' });
      return [mine.get('a'), mine instanceof kit.Headers, mine instanceof Mine];
    },
    'it inspects readably': kit => inspect(new kit.Headers({ a: 'b' })),
  });

  test('names are checked also when many of them have been seen', () => {
    for (let i = 0; i < 1000; i++) {
      assert.deepEqual([...new LightHeaders({ [`X-Name-${i}`]: '1' })], [[`x-name-${i}`, '1']]);
    }
    assert.throws(() => new LightHeaders({ 'x y': '1' }), TypeError);
  });

  test('pairs for the wire keep repeated headers apart, with names in lower case', () => {
    const headers = new LightHeaders([
      ['Set-Cookie', 'a'],
      ['B', '1'],
      ['Set-Cookie', 'c'],
    ]);
    const pairs = ['set-cookie', 'a', 'b', '1', 'set-cookie', 'c'];
    assert.deepEqual(toPairs(headers, []), pairs);
    assert.deepEqual(toPairs(LightHeaders.fromPairs(['Ab', 'C']), ['x']), ['x', 'ab', 'C']);
    assert.deepEqual(toPairs(new Headers({ 'X-A': '1' }), []), ['x-a', '1']);
  });
});

const bodies: Record<string, () => unknown> = {
  nothing: () => undefined,
  null: () => null,
  'an empty string': () => '',
  text: () => 'grüße ☃',
  'text with half a surrogate pair': () => 'a\ud800b',
  'text with a byte order mark': () => '\ufeffa',
  bytes: () => new Uint8Array([0, 65, 255]),
  'part of a buffer': () => Buffer.from('hello').subarray(1, 3),
  'an array buffer': () => text.encode('buffer').buffer,
  'a data view': () => new DataView(text.encode('view').buffer, 1),
  'words of 16 bits': () => new Uint16Array([1, 2]),
  'invalid UTF-8': () => new Uint8Array([0xe2, 0x98, 0x41, 0xff, 0xc0, 0xaf, 0xed, 0xa0, 0x80]),
  'bytes with a byte order mark': () => new Uint8Array([0xef, 0xbb, 0xbf, 65]),
  json: () => '{"a":[1,2,{"b":null}]}',
  'broken json': () => '{"a":',
  'a number': () => 42,
  'an object': () => ({}),
  'an array': () => ['a'],
  'a symbol': () => Symbol('a'),
  'a form of the address bar': () => new URLSearchParams({ a: 'b c', d: '&' }),
  'a blob': () => new Blob(['bl', 'ob'], { type: 'Text/CSV' }),
  'a blob without type': () => new Blob(['bl', 'ob']),
  'a stream': () => streamOf('str', 'eam'),
  'an empty stream': () => streamOf(),
  'a stream of text': () =>
    new ReadableStream({
      start(controller) {
        controller.enqueue('text');
        controller.close();
      },
    }),
  'a stream that fails': failingStream,
  'a generator of bytes': () => iterableOf(text.encode('a'), new Uint8Array(0), text.encode('b')),
  'a generator of text': () => iterableOf('a', 'é'),
  'a generator of numbers': () => iterableOf(1),
  'a stream of Node': () => Readable.from([Buffer.from('node')]),
  'a generator that throws': () =>
    (async function* () {
      yield text.encode('a');
      throw new RangeError('broken');
    })(),
};

describe('Response', () => {
  for (const [name, body] of Object.entries(bodies)) {
    for (const method of ['text', 'json', 'arrayBuffer', 'bytes', 'blob', 'formData'] as const) {
      test(`${name} reads by ${method}() as the built-in's`, () =>
        expectSame(async kit => {
          const response = new kit.Response(any(body()));
          const before = viewOf(response);
          let result: unknown;
          try {
            result = await response[method]();
            if (result instanceof Blob) result = [result.type, await result.text()];
            if (result instanceof FormData) result = [...result];
          } catch (error) {
            result = any(error).constructor.name;
          }
          const again = await response.text().catch(error => error.constructor.name);
          return [before, result, response.bodyUsed, again];
        }));
    }

    test(`${name} streams as the built-in's`, () =>
      expectSame(async kit => {
        const response = new kit.Response(any(body()));
        const stream = response.body;
        const same = stream === response.body;
        const content = await chunksOf(stream).catch(error => error.constructor.name);
        const again = await response.text().catch(error => error.constructor.name);
        return [same, content, response.bodyUsed, again];
      }));

    test(`${name} clones as the built-in's`, () =>
      expectSame(async kit => {
        const response = new kit.Response(any(body()), { status: 201, headers: { a: 'b' } });
        const copy = response.clone();
        copy.headers.set('a', 'c');
        const read = (one: Response) => one.text().catch(error => error.constructor.name);
        const texts = await Promise.all([read(copy), read(response)]);
        return [viewOf(response), viewOf(copy), texts, response.bodyUsed, copy.bodyUsed];
      }));
  }

  const inits: Record<string, unknown> = {
    'an empty one': {},
    null: null,
    'a number': 5,
    'a function': () => 1,
    'status 201 and text': { status: 201, statusText: 'Made' },
    'status 199': { status: 199 },
    'status 600': { status: 600 },
    'status 204': { status: 204 },
    'status 205': { status: 205 },
    'status 304': { status: 304 },
    'status 101': { status: 101 },
    'status as text': { status: '404' },
    'status with a fraction': { status: 200.9 },
    'status too large': { status: 65736 },
    'status null': { status: null },
    'status not a number': { status: 'x' },
    'status a symbol': { status: Symbol('a') },
    'status a bigint': { status: 200n },
    'text with a line break': { statusText: 'a\nb' },
    'text with an umlaut': { statusText: 'ü' },
    'text with a snowman': { statusText: '☃' },
    'headers in an object': { headers: { 'X-A': '1', b: ' 2 ' } },
    'headers in pairs': {
      headers: [
        ['X-A', '1'],
        ['x-a', '2'],
      ],
    },
    'headers in Headers': { headers: new Headers({ a: '1' }) },
    'headers in light Headers': { headers: new LightHeaders({ a: '1' }) },
    'headers undefined': { headers: undefined },
    'headers null': { headers: null },
    'headers a string': { headers: 'a: b' },
    'headers with a bad name': { headers: { 'a b': '1' } },
    'headers with a bad value': { headers: { a: '1\n2' } },
    'a content type': { headers: { 'Content-Type': 'text/html' } },
    'a content type in pairs': { headers: [['CONTENT-TYPE', 'text/html']] },
  };
  for (const [name, init] of Object.entries(inits)) {
    test(`constructed with ${name} it is as the built-in's`, async () => {
      for (const body of [null, 'text', new Uint8Array(1), undefined]) {
        await expectSame(kit => viewOf(new kit.Response(any(body), any(init))));
      }
      // By accident, the built-in's json() refuses null.
      await expectSame(kit => viewOf(kit.Response.json({ a: 1 }, any(init ?? undefined))));
    });
  }

  table({
    'json() makes JSON': async kit => {
      const response = kit.Response.json({ a: [1, 'ü'] });
      return [viewOf(response), await response.text()];
    },
    'json() refuses what is no JSON': kit => kit.Response.json(undefined),
    'json() refuses a function': kit => kit.Response.json(any(() => 1)),
    'json() refuses a circle': kit => {
      const circle: Record<string, unknown> = {};
      circle.self = circle;
      return kit.Response.json(circle);
    },
    'redirect() has a location': kit => viewOf(kit.Response.redirect('http://a/b c?d#e')),
    'redirect() takes a status': kit => viewOf(kit.Response.redirect(new URL('http://a'), 308)),
    'redirect() refuses other statuses': kit => kit.Response.redirect('http://a', 200),
    'redirect() refuses relative addresses': kit => kit.Response.redirect('/a'),
    'redirect() fixes its headers': kit => kit.Response.redirect('http://a').headers.set('a', 'b'),
    'a clone of a redirect has fixed headers': kit =>
      kit.Response.redirect('http://a').clone().headers.delete('a'),
    'error() is an error': kit => viewOf(kit.Response.error()),
    'error() fixes its headers': kit => kit.Response.error().headers.append('a', 'b'),
    'a locked stream is refused': kit => {
      const stream = streamOf('a');
      stream.getReader();
      return new kit.Response(stream);
    },
    'a stream that was read from is refused': async kit => {
      const stream = streamOf('a');
      const reader = stream.getReader();
      await reader.read();
      reader.releaseLock();
      return new kit.Response(stream);
    },
    'a body with a locked stream cannot be read': async kit => {
      const response = new kit.Response('a');
      response.body!.getReader();
      return [response.bodyUsed, await response.text().catch(error => error.constructor.name)];
    },
    'a body with a locked stream cannot be cloned': kit => {
      const response = new kit.Response('a');
      response.body!.getReader();
      return response.clone();
    },
    'a lock that was released does no harm': async kit => {
      const response = new kit.Response(streamOf('a'));
      response.body!.getReader().releaseLock();
      return [response.bodyUsed, await response.text(), response.bodyUsed];
    },
    'a body that was read cannot be cloned': async kit => {
      const response = new kit.Response('a');
      await response.text();
      return response.clone();
    },
    'a body is used as soon as reading starts': kit => {
      const response = new kit.Response('a');
      response.text();
      return response.bodyUsed;
    },
    'a body read as text shows a stream that was read': async kit => {
      const response = new kit.Response('a');
      await response.text();
      return [response.bodyUsed, response.body?.locked];
    },
    'a body that is nothing can be read often': async kit => {
      const response = new kit.Response();
      return [await response.text(), await response.text(), response.bodyUsed, response.body];
    },
    'cancelling uses the body': async kit => {
      const response = new kit.Response('a');
      await response.body!.cancel();
      return [response.bodyUsed, await response.text().catch(error => error.constructor.name)];
    },
    'cancelling tells the source why': async kit => {
      let told: unknown;
      const source = new ReadableStream({
        cancel(reason) {
          told = reason;
        },
      });
      await new kit.Response(source).body!.cancel('enough');
      return told;
    },
    'cancelling ends a generator': async kit => {
      let ended = false;
      const source = (async function* () {
        try {
          for (;;) yield text.encode('a');
        } finally {
          ended = true;
        }
      })();
      const reader = new kit.Response(any(source)).body!.getReader();
      await reader.read();
      await reader.cancel();
      return ended;
    },
    'one branch of a clone may be cancelled': async kit => {
      const response = new kit.Response(streamOf('a', 'b'));
      const copy = response.clone();
      const cancelled = copy.body!.cancel();
      const content = await response.text();
      await cancelled;
      return content;
    },
    'a clone can be made of a clone': async kit => {
      const copy = new kit.Response(streamOf('a', 'b')).clone().clone();
      return copy.text();
    },
    'a clone can be made when the stream was looked at': async kit => {
      const response = new kit.Response('a');
      response.body;
      const copy = response.clone();
      return [await copy.text(), response.bodyUsed, await response.text()];
    },
    'bytes are copied when given': async kit => {
      const bytes = text.encode('abc');
      const response = new kit.Response(bytes);
      bytes[0] = 0;
      return response.text();
    },
    'bytes are copied when taken': async kit => {
      const response = new kit.Response(text.encode('abc'));
      const copy = response.clone();
      (await response.bytes()).fill(0);
      return copy.text();
    },
    'a buffer taken is of the exact length': async kit =>
      (await new kit.Response('abc').arrayBuffer()).byteLength,
    'it can be made of the parts of another': async kit => {
      const first = new kit.Response('a', { status: 201, headers: { b: 'c' } });
      const second = new kit.Response(first.body, first);
      return [viewOf(second), await second.text(), first.bodyUsed];
    },
    'headers can be changed': kit => {
      const response = new kit.Response('a');
      response.headers.append('b', 'c');
      response.headers.delete('content-type');
      return viewOf(response);
    },
    'headers are one object': kit => {
      const response = new kit.Response('a');
      const { headers } = response;
      return headers === response.headers;
    },
    'its properties cannot be set': kit => {
      any(new kit.Response()).status = 1;
    },
    'it can be extended': async kit => {
      class Mine extends kit.Response {
        extra = 1;
        constructor(body: string) {
          super(body, { status: 202 });
        }
      }
      const mine = new Mine('a');
      const is = [mine instanceof Mine, mine instanceof kit.Response];
      return [is, new kit.Response() instanceof Mine, mine.status, mine.extra, await mine.text()];
    },
    'it has a tag': kit => Object.prototype.toString.call(new kit.Response()),
    'it shows its properties in a loop': kit => {
      const names: string[] = [];
      for (const name in new kit.Response()) names.push(name);
      return names.sort();
    },
    'only responses are instances': kit => [
      any({}) instanceof kit.Response,
      any(null) instanceof kit.Response,
      any(new kit.Request('http://a')) instanceof kit.Response,
    ],
  });

  test('any bytes decode as the built-in decodes them', async () => {
    const property = fc.asyncProperty(fc.uint8Array(), bytes =>
      expectSame(kit => new kit.Response(bytes).text()),
    );
    await fc.assert(property, { numRuns: 1000 });
  });

  test('any text arrives as it does with the built-in', async () => {
    const property = fc.asyncProperty(fc.string({ unit: 'binary' }), content =>
      expectSame(async kit => [
        await new kit.Response(content).text(),
        await new kit.Response(content).bytes(),
        await chunksOf(new kit.Response(content).body),
      ]),
    );
    await fc.assert(property, { numRuns: 500 });
  });

  test('any JSON comes back', async () => {
    const property = fc.asyncProperty(fc.jsonValue(), value =>
      expectSame(async kit => (await kit.Response.json(value)).json()),
    );
    await fc.assert(property);
  });

  test('any chunks of any stream arrive in order', async () => {
    const chunks = fc.array(fc.uint8Array());
    const property = fc.asyncProperty(chunks, fc.boolean(), async (parts, cloned) => {
      for (const make of [streamOf, iterableOf]) {
        const response: Response = any(new LightResponse(make(...parts)));
        const copy = cloned ? response.clone() : undefined;
        const contents = await Promise.all([response.bytes(), copy?.bytes()]);
        assert.deepEqual(Buffer.from(contents[0]!), Buffer.concat(parts));
        if (cloned) assert.deepEqual(Buffer.from(contents[1]!), Buffer.concat(parts));
      }
    });
    await fc.assert(property);
  });

  test('forms survive the journey', () =>
    expectSame(async kit => {
      const form = new FormData();
      form.append('na"me\r\n', 'line\nbreak');
      form.append('file', new File(['content'], 'fi"le.txt', { type: 'text/x' }));
      form.append('blob', new Blob(['more']));
      const response = new kit.Response(form);
      const view = viewOf(response);
      const back = await response.formData();
      const fields = [];
      for (const [name, field] of back) {
        const isText = typeof field === 'string';
        fields.push(isText ? [name, field] : [name, field.name, field.type, await field.text()]);
      }
      return [view, fields];
    }));

  test('forms of the address bar are read', () =>
    expectSame(async kit => [
      ...(await new kit.Response(new URLSearchParams('a=1&b=%20&a=2')).formData()),
    ]));

  test('it inspects readably', () => {
    const shown = inspect(new LightResponse('a', { status: 201, headers: { b: 'c' } }));
    assert.match(shown, /^Response \{\s+status: 201,/);
    assert.match(shown, /headers: Headers \{\s*b: 'c'/);
    assert.match(inspect([[[new LightResponse('a')]]]), /\[Response\]/);
  });
});

describe('Request', () => {
  const addresses = [
    'http://a',
    'HTTP://A:80/b/../c?d#e',
    'https://ä.example/ü?ö',
    '/relative',
    '',
    'http://u:p@a/',
    'http://a/%2e%2e/b',
    'data:,x',
    'http://',
    'http://a b/',
    'http://a/ b',
  ];
  for (const address of addresses) {
    test(`the address ${JSON.stringify(address)} is read as the built-in reads it`, async () => {
      await expectSame(kit => new kit.Request(address).url);
      if (URL.canParse(address)) await expectSame(kit => new kit.Request(new URL(address)).url);
    });
  }

  const inits: Record<string, unknown> = {
    null: null,
    'an empty one': {},
    'a string': 'a',
    'method post': { method: 'post' },
    'method pUt': { method: 'pUt' },
    'method patch': { method: 'PaTcH' },
    'method mine': { method: 'mine' },
    'method connect': { method: 'Connect' },
    'method trace': { method: 'trace' },
    'a method with a space': { method: 'a b' },
    'method null': { method: null },
    'headers in an object': { headers: { 'X-A': '1' } },
    'headers in light Headers': { headers: new LightHeaders({ 'X-A': '1' }) },
    'headers null': { headers: null },
    'bad headers': { headers: { 'a b': '1' } },
    'a body for GET': { body: 'a' },
    'a body for HEAD': { method: 'HEAD', body: '' },
    'a body for POST': { method: 'POST', body: 'a' },
    'a body with its own type': { method: 'POST', body: 'a', headers: { 'content-type': 'b' } },
    'a null body': { method: 'POST', body: null },
    'every mode': { mode: 'same-origin' },
    'mode no-cors': { mode: 'no-cors' },
    'mode no-cors for PUT': { mode: 'no-cors', method: 'PUT' },
    'mode navigate': { mode: 'navigate' },
    'an unknown mode': { mode: 'x' },
    credentials: { credentials: 'include' },
    'unknown credentials': { credentials: 'x' },
    cache: { cache: 'no-store' },
    'only-if-cached': { cache: 'only-if-cached' },
    'only-if-cached at the same origin': { cache: 'only-if-cached', mode: 'same-origin' },
    redirect: { redirect: 'manual' },
    'an unknown redirect': { redirect: 'x' },
    integrity: { integrity: 'sha256-x' },
    keepalive: { keepalive: 1 },
    'no referrer': { referrer: '' },
    referrer: { referrer: 'http://b/c' },
    'a bad referrer': { referrer: 'c' },
    'referrer client': { referrer: 'about:client' },
    'referrer policy': { referrerPolicy: 'origin' },
    'an unknown referrer policy': { referrerPolicy: 'x' },
    'a window': { window: {} },
    'no window': { window: null },
    'a signal': { signal: new AbortController().signal },
    'a signal that aborted': { signal: AbortSignal.abort() },
    'no signal': { signal: null },
    'something else as signal': { signal: {} },
    'an unknown duplex': { duplex: 'full' },
  };
  for (const [name, init] of Object.entries(inits)) {
    test(`constructed with ${name} it is as the built-in's`, async () => {
      await expectSame(kit => viewOfRequest(new kit.Request('http://a/b', any(init))));
      await expectSame(kit => {
        const settings = {
          method: 'POST',
          body: 'old',
          headers: { old: '1' },
          mode: 'same-origin',
        };
        const extra = { credentials: 'omit', integrity: 'x' };
        const first = new kit.Request('http://a/b', any({ ...settings, ...extra }));
        return viewOfRequest(new kit.Request(first, any(init)));
      });
    });
  }

  for (const [name, body] of Object.entries(bodies)) {
    test(`${name} is a body as the built-in's`, () =>
      expectSame(async kit => {
        const init = any({ method: 'POST', body: body(), duplex: 'half' });
        const request = new kit.Request('http://a', init);
        const copy = request.clone();
        const moved = new kit.Request(request);
        const read = (one: Request) => one.text().catch(error => error.constructor.name);
        const type = request.headers.get('content-type');
        const used = [request.bodyUsed, copy.bodyUsed, moved.bodyUsed];
        const locked = [request.body?.locked, copy.body?.locked];
        return [type, used, locked, await Promise.all([read(moved), read(copy), read(request)])];
      }));
    test(`${name} is a body only with duplex where the built-in says so`, () =>
      expectSame(
        kit => new kit.Request('http://a', any({ method: 'POST', body: body() })).bodyUsed,
      ));
  }

  table({
    'a used request cannot be passed on': async kit => {
      const request = new kit.Request('http://a', { method: 'POST', body: 'a' });
      await request.text();
      return new kit.Request(request);
    },
    'a used request can be passed on with another body': async kit => {
      const request = new kit.Request('http://a', { method: 'POST', body: 'a' });
      await request.text();
      return new kit.Request(request, { body: 'b' }).text();
    },
    'a used request cannot be cloned': async kit => {
      const request = new kit.Request('http://a', { method: 'POST', body: 'a' });
      await request.text();
      return request.clone();
    },
    'a request passed on as GET must not have a body': kit => {
      const request = new kit.Request('http://a', { method: 'POST', body: 'a' });
      return new kit.Request(request, { method: 'GET' });
    },
    'a request whose stream was seen can be passed on': async kit => {
      const request = new kit.Request('http://a', { method: 'POST', body: 'a' });
      const { body } = request;
      const next = new kit.Request(request);
      return [body?.locked, request.bodyUsed, await next.text()];
    },
    'another request can be the init': async kit => {
      const init = { method: 'PUT', body: 'a', headers: { b: 'c' } };
      const request = new kit.Request('http://a', init);
      const next = new kit.Request('http://b/', request);
      return [next.url, next.method, [...next.headers], await next.text()];
    },
    'headers can be changed, each its own': kit => {
      const request = new kit.Request('http://a', { headers: { a: '1' } });
      const next = new kit.Request(request);
      const copy = request.clone();
      next.headers.set('a', '2');
      copy.headers.append('a', '3');
      return [request, next, copy].map(one => one.headers.get('a'));
    },
    'its signal follows the one given': kit => {
      const controller = new AbortController();
      const request = new kit.Request('http://a', { signal: controller.signal });
      const [next, copy] = [new kit.Request(request), request.clone()];
      const free = new kit.Request(request, { signal: null });
      const before = [request, next, copy, free].map(one => one.signal.aborted);
      controller.abort(new RangeError('stop'));
      const after = [request, next, copy, free].map(one => one.signal.aborted);
      return [before, after, request.signal.reason.name, copy.signal.reason.name];
    },
    'its signal is one object of its own': kit => {
      const { signal } = new AbortController();
      const request = new kit.Request('http://a', { signal });
      const own = request.signal;
      return [own === request.signal, own === signal];
    },
    'no argument is an error': kit => new (any(kit.Request))(),
    'it can be extended': kit => {
      class Mine extends kit.Request {}
      const mine = new Mine('http://a', { method: 'POST', body: 'a' });
      return [mine.method, mine instanceof Mine, mine instanceof kit.Request];
    },
    'it has a tag': kit => Object.prototype.toString.call(new kit.Request('http://a')),
    'it shows its properties in a loop': kit => {
      const names: string[] = [];
      for (const name in new kit.Request('http://a')) names.push(name);
      // An accident of the built-in's.
      return names.filter(name => name !== 'attribute').sort();
    },
  });

  test('it takes a built-in Request', async () => {
    const init = { method: 'PUT', body: 'a', headers: { b: 'c' } };
    const request = new LightRequest(new Request('http://a/b', init));
    assert.equal(request.method, 'PUT');
    assert.equal(request.url, 'http://a/b');
    assert.equal(request.headers.get('b'), 'c');
    assert.equal(await request.text(), 'a');
  });
});

describe('a request made of a call', () => {
  test('its address is the forwarded one, as URL writes it', () => {
    const cases: [string[], string, string][] = [
      [['host', 'a.example'], '/b?c', 'http://a.example/b?c'],
      [['Host', 'a:8080'], '/', 'http://a:8080/'],
      [['host', 'a', 'X-Forwarded-Host', 'b', 'x-forwarded-proto', 'https'], '/', 'https://b/'],
      [['host', 'A:80'], '/', 'http://a/'],
      [['host', 'a', 'x-forwarded-host', 'b, c'], '/', 'http://b/'],
      [['host', 'a', 'x-forwarded-proto', 'javascript'], '/', 'http://a/'],
      [['host', 'not a host'], '/x', 'http://localhost/x'],
      [['host', 'user:pw@a/path?'], '/x', 'http://a/x'],
      [[], '/', 'http://localhost/'],
      [['host', 'a'], '/b/../c/./d%2e', 'http://a/c/d%2e'],
      [['host', 'a'], '//b/c', 'http://a//b/c'],
    ];
    for (const [headers, target, url] of cases) {
      assert.equal(call({ headers, target }).url, url);
    }
    assert.equal(call({ origin: 'https://o', target: '/a' }).url, 'https://o/a');
  });

  test('any target is written as URL writes it', () => {
    const unit = fc.constantFrom(...'abz09/.%2eE-_~!$&\'()*+,;=:@?#[]{}|^`"<> \\é\t'.split(''));
    const target = fc.string({ unit }).map(rest => `/${rest}`);
    const property = fc.property(target, one => {
      const expected = new URL(`http://host.example${one}`).href;
      assert.equal(call({ target: one, headers: ['host', 'host.example'] }).url, expected);
    });
    fc.assert(property, { numRuns: 5000 });
  });

  test('its address does not change with its headers', () => {
    const request = call({ headers: ['host', 'a'] });
    request.headers.set('host', 'evil');
    assert.equal(request.url, 'http://a/');
    assert.equal(request.headers.get('host'), 'evil');
  });

  test('many hosts do not make it remember more than a few', () => {
    for (let i = 0; i < 1000; i++) {
      assert.equal(call({ headers: ['host', `h${i}`] }).url, `http://h${i}/`);
    }
  });

  test('nothing is made of it before somebody asks', () => {
    let signals = 0;
    const head = {
      method: 'POST',
      get target() {
        return assert.fail('target was read');
      },
      get headers() {
        return assert.fail('headers were read');
      },
      get origin() {
        return assert.fail('origin was read');
      },
    };
    const signal = () => {
      signals++;
      return AbortSignal.abort();
    };
    const lazy = LightRequest.fromCall(any({ head, body: null, signal }));
    assert.equal(lazy.method, 'POST');
    assert.equal(signals, 0);
    assert.equal(lazy.signal.aborted, true);
    assert.equal(lazy.signal, lazy.signal);
    assert.equal(signals, 1);
  });

  test('GET and HEAD have no body', async () => {
    for (const method of ['GET', 'HEAD']) {
      const request = call({ method, body: text.encode('a') });
      assert.equal(request.body, null);
      assert.equal(await request.text(), '');
      assert.equal(request.bodyUsed, false);
    }
  });

  test('its properties are those of a plain built-in request', () => {
    const headers = ['Host', 'a', 'X-B', 'c'];
    const expected = viewOfRequest(
      new Request('http://a/b', {
        headers: [
          ['Host', 'a'],
          ['X-B', 'c'],
        ],
      }),
    );
    assert.deepEqual(viewOfRequest(any(call({ headers, target: '/b' }))), expected);
  });

  test('a body of bytes is read, cloned and passed on', async () => {
    const fields = { method: 'POST', body: Buffer.from('{"a":1}') };
    assert.deepEqual(await call(fields).json(), { a: 1 });
    const request = call(fields);
    const copy = request.clone();
    const next = new LightRequest(request, { headers: { b: 'c' } });
    assert.equal(request.bodyUsed, true);
    await assert.rejects(request.text(), TypeError);
    assert.equal(await copy.text(), '{"a":1}');
    assert.equal(await next.text(), '{"a":1}');
    assert.equal(await chunksOf(call(fields).body), '{"a":1}');
    await assert.rejects(call({ ...fields, body: Buffer.from('{') }).json(), SyntaxError);
    const taken = await call(fields).bytes();
    taken.fill(0);
    assert.equal(fields.body.toString(), '{"a":1}', 'what is taken is a copy');
  });

  test('a body of chunks is pulled only as it is read, and given back when cancelled', async () => {
    let pulled = 0;
    let returned: unknown;
    const body = {
      [Symbol.asyncIterator]: () => ({
        next: async () => ({ done: false as const, value: text.encode(`${pulled++}`) }),
        return: async (reason: unknown) => {
          returned = reason;
          return { done: true as const, value: undefined };
        },
      }),
    };
    const request = call({ method: 'POST', body });
    const reader = request.body!.getReader();
    await new Promise(setImmediate);
    assert.equal(pulled, 0);
    assert.equal(Buffer.from((await reader.read()).value!).toString(), '0');
    await new Promise(setImmediate);
    assert.equal(pulled, 1);
    await reader.cancel('enough');
    assert.equal(returned, 'enough');
    assert.equal(request.bodyUsed, true);
  });

  test('an error in the body reaches whoever reads it', async () => {
    const body = () =>
      (async function* () {
        yield text.encode('a');
        throw new RangeError('the caller left');
      })();
    const make = () => call({ method: 'POST', body: body() });
    await assert.rejects(make().text(), RangeError);
    await assert.rejects(make().json(), RangeError);
    await assert.rejects(make().bytes(), RangeError);
    await assert.rejects(chunksOf(make().body), RangeError);
    await assert.rejects(make().clone().text(), RangeError);
  });
});

describe('the parts of a response', () => {
  test('a plain one is given as it is', () => {
    const type = ['content-type', 'text/plain;charset=UTF-8'];
    const parts = responseParts(new LightResponse('hi'));
    assert.deepEqual(parts, { status: 200, headers: type, body: 'hi' });
    assert.deepEqual(responseParts(new LightResponse(null, { status: 204 })), {
      status: 204,
      headers: [],
      body: null,
    });
    const json = responseParts(LightResponse.json({ a: 1 }));
    assert.deepEqual(json.headers, ['content-type', 'application/json']);
    assert.equal(json.body, '{"a":1}');
  });

  test('changes to its headers are in them', () => {
    const response = new LightResponse('hi', { headers: { A: '1' } });
    response.headers.delete('content-type');
    response.headers.append('Set-Cookie', 'b');
    response.headers.append('Set-Cookie', 'c');
    const expected = ['a', '1', 'set-cookie', 'b', 'set-cookie', 'c'];
    assert.deepEqual(responseParts(response).headers, expected);
    const bare = new LightResponse(null);
    bare.headers.set('x', 'y');
    assert.deepEqual(responseParts(bare).headers, ['x', 'y']);
    assert.deepEqual(responseParts(new LightResponse(null)).headers, []);
  });

  test('a body that somebody looked at is still whole', async () => {
    const response = new LightResponse('hi');
    assert.equal(response.bodyUsed, false);
    response.body;
    assert.equal(responseParts(response).body, 'hi');
    const streamed = new LightResponse(streamOf('a', 'b'));
    const copy = streamed.clone();
    assert.equal(await chunksOf(any(responseParts(streamed).body)), 'ab');
    assert.equal(await copy.text(), 'ab');
  });

  test('a generator is passed on untouched', () => {
    const source = iterableOf('a');
    assert.equal(responseParts(new LightResponse(source)).body, source);
  });

  test('a body that was used is refused', async () => {
    const make: (() => Response)[] = [
      () => any(new LightResponse('a')),
      () => any(new LightResponse(streamOf('a'))),
      () => new Response('a'),
    ];
    for (const one of make) {
      const read = one();
      await read.text();
      assert.throws(() => responseParts(read), TypeError);
      const locked = one();
      locked.body!.getReader();
      assert.throws(() => responseParts(locked), TypeError);
    }
  });

  test('blobs and forms are given as streams', async () => {
    const blob = responseParts(new LightResponse(new Blob(['bl', 'ob'], { type: 'a/b' })));
    assert.deepEqual(blob.headers, ['content-type', 'a/b']);
    assert.equal(await chunksOf(any(blob.body)), 'blob');
    const form = new FormData();
    form.append('a', 'b');
    assert.match((await chunksOf(any(responseParts(new LightResponse(form)).body)))!, /name="a"/);
  });

  test('what is no response, or an error, is refused', () => {
    for (const value of [
      LightResponse.error(),
      Response.error(),
      undefined,
      null,
      'a',
      {},
      new Map(),
      new LightHeaders(),
    ]) {
      assert.throws(() => responseParts(value), TypeError);
    }
  });

  test('a built-in response has parts, too', async () => {
    const headers: [string, string][] = [
      ['Set-Cookie', 'a'],
      ['Set-Cookie', 'b'],
      ['X', 'y'],
    ];
    const parts = responseParts(new Response('hi', { status: 201, headers }));
    assert.equal(parts.status, 201);
    const type = ['content-type', 'text/plain;charset=UTF-8'];
    assert.deepEqual(parts.headers, [...type, 'set-cookie', 'a', 'set-cookie', 'b', 'x', 'y']);
    assert.equal(await chunksOf(any(parts.body)), 'hi');
  });
});

describe('the globals', () => {
  /** Runs a module in a process whose globals are the light ones; it prints one JSON value. */
  async function run(program: string) {
    const directory = await mkdtemp(join(tmpdir(), 'fnway-web-'));
    try {
      const file = join(directory, 'program.mjs');
      const web = JSON.stringify(import.meta.resolve('./web.mjs'));
      const start = `import { writeSync } from 'node:fs';
        import * as web from ${web};
        web.installWebGlobals();
        const loaded = () => process.moduleLoadList.some(name => name.includes('deps/undici'));
        const print = value => writeSync(1, JSON.stringify(value));\n`;
      await writeFile(file, start + program);
      const { stdout } = await promisify(execFile)(process.execPath, [file]);
      return JSON.parse(stdout);
    } finally {
      await rm(directory, { recursive: true });
    }
  }

  test('a plain call and its answer do not load the built-in classes', async () => {
    const result = await run(`
      const seen = [loaded()];
      const request = web.LightRequest.fromCall({
        head: { method: 'POST', target: '/a?b', headers: ['host', 'h'] },
        body: Buffer.from('{"a":1}'), signal: () => new AbortController().signal,
      });
      const echo = Response.json({ url: request.url, host: request.headers.get('host'),
        body: await request.json(), aborted: request.signal.aborted });
      echo.headers.set('x', 'y');
      const stream = new Response(new ReadableStream({ start(c) { c.close(); } }));
      const parts = [new Response('hello'), echo, stream, new Response(new Blob(['a'])),
        Response.redirect('http://a'), new Response(new URLSearchParams('a'))]
        .map(web.responseParts);
      await new Response('a').clone().arrayBuffer();
      seen.push({} instanceof Response, loaded());
      print({ seen, body: parts[1].body });`);
    assert.deepEqual(result.seen, [false, false, false]);
    assert.deepEqual(JSON.parse(result.body), {
      url: 'http://h/a?b',
      host: 'h',
      body: { a: 1 },
      aborted: false,
    });
  });

  test('they are as changeable as the built-in ones', async () => {
    const result = await run(`
      const names = ['Request', 'Response', 'Headers', 'fetch'];
      print(names.map(name => Object.getOwnPropertyDescriptor(globalThis, name))
        .map(({ writable, configurable, enumerable, value }) =>
          [value.name, writable, configurable, enumerable]));`);
    assert.deepEqual(result, [
      ['Request', true, true, false],
      ['Response', true, true, false],
      ['Headers', true, true, false],
      ['fetch', true, true, true],
    ]);
  });

  test('fetch takes light requests and headers, and its responses are instances', async () => {
    const result = await run(`
      import { createServer } from 'node:http';
      import { gzipSync } from 'node:zlib';
      const server = createServer((request, response) => {
        if (request.url === '/gzip') {
          const packed = gzipSync('unpacked');
          response.setHeader('content-encoding', 'gzip').setHeader('content-length', packed.length);
          return response.end(packed);
        }
        if (request.url === '/slow') return;
        let body = '';
        request.on('data', chunk => { body += chunk; });
        request.on('end', () => {
          const { method, url, headers } = request;
          response.setHeader('set-cookie', ['a=1', 'b=2']);
          response.end(JSON.stringify({ method, url, x: headers.x, type: headers['content-type'],
            length: headers['content-length'], body }));
        });
      });
      await new Promise(resolve => server.listen(0, '127.0.0.1', resolve));
      const base = 'http://127.0.0.1:' + server.address().port;
      const json = async promise => (await promise).json();
      const out = {};
      const init = { method: 'POST', body: 'b1', headers: new Headers({ x: '1' }) };
      out.text = await json(fetch(new Request(base + '/a', init)));
      const bare = new Request(base + '/a', init);
      bare.headers.delete('content-type');
      out.bare = await json(fetch(bare));
      out.used = bare.bodyUsed;
      out.plain = await json(fetch(base + '/b', { method: 'PUT', headers: new Headers({ x: '2' }),
        body: new Response('b2').body, duplex: 'half' }));
      out.changed = await json(fetch(new Request(base + '/c', init),
        { method: 'PUT', headers: { x: '3' } }));
      out.init = await json(fetch(base + '/d', new Request(base + '/x', init)));
      async function* chunks() { yield Buffer.from('c1'); yield Buffer.from('c2'); }
      const controller = new AbortController();
      out.call = await json(fetch(web.LightRequest.fromCall({
        head: { method: 'POST', target: '/e', headers: ['x', '4', 'host', base.slice(7)] },
        body: chunks(), signal: () => controller.signal })));
      const form = new FormData();
      form.append('f', 'g');
      out.form = (await json(fetch(base, { method: 'POST', body: form }))).body.includes('g');
      const lightForm = new Request(base, { method: 'POST', body: form });
      const sent = await json(fetch(lightForm));
      out.lightForm = [sent.type.startsWith('multipart/form-data; b'), sent.body.includes('g')];
      const response = await fetch(base);
      out.instances = [response instanceof Response, response.headers instanceof Headers,
        response instanceof Request, new Headers(response.headers).getSetCookie(),
        response instanceof class extends Response {}];
      const copy = new Response(response.body, response);
      out.copy = [copy.status, copy.headers.getSetCookie(), (await copy.json()).method];
      const parts = web.responseParts(await fetch(base + '/gzip'));
      out.gzip = [parts.headers.filter(name => name.startsWith('content-')),
        await new Response(parts.body).text()];
      const failing = promise => promise.then(() => 'none', error => error.name);
      out.failures = await Promise.all([failing(fetch()), failing(fetch('/relative')),
        failing(fetch(bare)), failing(fetch(new Request(base), { body: 'a' })),
        failing(fetch(new Request(base + '/slow', { signal: AbortSignal.timeout(50) })))]);
      out.forms = [...await new Response('a=b', { headers:
        { 'content-type': 'application/x-www-form-urlencoded' } }).formData()];
      server.closeAllConnections();
      server.close();
      print(out);`);
    const type = 'text/plain;charset=UTF-8';
    const text1 = { method: 'POST', url: '/a', x: '1', type, length: '2', body: 'b1' };
    assert.deepEqual(result, {
      text: text1,
      bare: { method: 'POST', url: '/a', x: '1', length: '2', body: 'b1' },
      used: true,
      plain: { method: 'PUT', url: '/b', x: '2', body: 'b2' },
      changed: { method: 'PUT', url: '/c', x: '3', length: '2', body: 'b1' },
      init: { method: 'POST', url: '/d', x: '1', type, body: 'b1' },
      call: { method: 'POST', url: '/e', x: '4', body: 'c1c2' },
      form: true,
      lightForm: [true, true],
      instances: [true, true, false, ['a=1', 'b=2'], false],
      copy: [200, ['a=1', 'b=2'], 'GET'],
      gzip: [[], 'unpacked'],
      failures: ['TypeError', 'TypeError', 'TypeError', 'TypeError', 'TimeoutError'],
      forms: [['a', 'b']],
    });
  });
});
