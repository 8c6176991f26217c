/**
 * Goal: the node runtime keeps the link's protocol. Method: the test is the gateway's end; it listens on a Unix
 * socket, starts the real main.mjs, and reads and writes frames with the helper of src/link, which shares no code
 * with link.mjs. Handlers that wait do so for another call, so nothing here depends on time.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import {
  bodyOf,
  END,
  encode,
  encodeHead,
  fieldsOf,
  jsonOf,
  Peer,
  types,
} from '../../src/link/peer-fixture.ts';

const mainProgram = join(import.meta.dirname, 'main.mjs');
const isRoot = process.getuid?.() === 0;
const windowBytes = 262_144;
const uid = 1_900_000_077;

let directory: string;
let server: Server;
const started = new Set<ChildProcess>();
before(async () => {
  directory = mkdtempSync(join(tmpdir(), 'fnway-node-'));
  chmodSync(directory, 0o755);
  server = createServer();
  server.listen(join(directory, 'link.sock'));
  await once(server, 'listening');
});
after(() => {
  for (const child of started) child.kill('SIGKILL');
  server.close();
  rmSync(directory, { recursive: true, force: true });
});

class Instance {
  readonly child: ChildProcess;
  readonly peer: Peer;
  readonly exited: Promise<[number | null, string | null]>;
  output = '';
  #stream = 0;

  constructor(child: ChildProcess, peer: Peer) {
    this.child = child;
    this.peer = peer;
    this.exited = once(child, 'exit') as Promise<[number | null, string | null]>;
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on('data', chunk => {
        this.output += chunk;
      });
    }
  }

  load(code: string, settings: Record<string, unknown> = {}): void {
    const place = join(directory, `version-${++versions}`);
    const { entry = 'handler.mjs' } = settings as { entry?: string };
    mkdirSync(dirname(join(place, entry)), { recursive: true });
    writeFileSync(join(place, entry), code);
    const whole = {
      function: 'f',
      namespace: 'default',
      version: 3,
      directory: place,
      entry,
      env: {},
      concurrency: 100,
      bufferedBodyBytesMax: 1000,
      ...settings,
    };
    this.peer.send({ type: types.LOAD, flags: END, payload: JSON.stringify(whole) });
  }

  /** Sends a CALL and returns its stream. */
  call(
    target = '/',
    parts: { body?: string | Buffer; flags?: number; head?: string[] } = {},
  ): number {
    const { body = '', flags = END, head = [] } = parts;
    const fields = ['POST', target, 'call_7', '5000', ...head];
    const stream = ++this.#stream;
    this.peer.send(encodeHead({ type: types.CALL, flags, stream, fields, body }));
    return stream;
  }

  /** Calls and reads the answer's body whole. */
  async ask(target = '/', body: string | Buffer = ''): Promise<string> {
    return (await this.peer.next(types.REPLY, this.call(target, { body })).then(bodyOf)).toString();
  }

  end(): void {
    this.peer.socket.destroy();
  }
}

let versions = 0;

async function spawnInstance(): Promise<Instance> {
  const connected = once(server, 'connection') as Promise<[Socket]>;
  const child = spawn(process.execPath, [mainProgram], {
    env: {
      PATH: '/usr/bin:/bin',
      FNWAY_LINK: join(directory, 'link.sock'),
      FNWAY_LINK_SECRET: 'the secret',
      FNWAY_GATEWAY: 'mark',
      GATEWAYS_OWN: 'not for functions',
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  started.add(child);
  child.once('exit', () => started.delete(child));
  const [socket] = await connected;
  return new Instance(child, new Peer(socket));
}

async function loaded(code: string, settings: Record<string, unknown> = {}): Promise<Instance> {
  const instance = await spawnInstance();
  instance.load(code, settings);
  await instance.peer.next(types.LOADED);
  return instance;
}

async function refused(code: string, settings: Record<string, unknown> = {}) {
  const instance = await spawnInstance();
  instance.load(code, settings);
  const problem = jsonOf(await instance.peer.next(types.LOAD_FAILED));
  instance.end();
  return problem;
}

const echo = 'export default request => new Response(request.body)';

describe('starting', { timeout: 30_000 }, () => {
  test('the first frame is HELLO with secret and pid, and PING is answered before LOAD', async () => {
    const instance = await spawnInstance();
    assert.deepEqual(jsonOf(await instance.peer.next(types.HELLO)), {
      protocol: 1,
      secret: 'the secret',
      pid: instance.child.pid,
      runtime: 'node',
    });
    instance.peer.send({ type: types.PING, arg: 77 });
    assert.equal((await instance.peer.next(types.PONG)).arg, 77);
    instance.end();
    assert.deepEqual(await instance.exited, [0, null]);
  });

  test('without a link in the environment it says so and ends with status 2', async () => {
    const child = spawn(process.execPath, [mainProgram], { env: {}, stdio: 'ignore' });
    assert.deepEqual(await once(child, 'exit'), [2, null]);
  });

  test('LOAD of several frames is read as one', async () => {
    const instance = await spawnInstance();
    const place = join(directory, 'split');
    mkdirSync(place);
    writeFileSync(join(place, 'a.mjs'), 'export default () => new Response(process.env.LONG)');
    const text = JSON.stringify({
      directory: place,
      entry: 'a.mjs',
      env: { LONG: 'é'.repeat(99) },
    });
    const bytes = Buffer.from(text);
    // A cut in the middle of a letter of two bytes.
    const cut = bytes.indexOf(Buffer.from('é')) + 1;
    instance.peer.send(
      { type: types.LOAD, payload: bytes.subarray(0, cut) },
      { type: types.DATA, payload: bytes.subarray(cut, cut + 5) },
      { type: types.DATA, flags: END, payload: bytes.subarray(cut + 5) },
    );
    await instance.peer.next(types.LOADED);
    assert.equal(await instance.ask(), 'é'.repeat(99));
    instance.end();
  });

  test('the environment is replaced before user code runs; only the mark stays', async () => {
    const code =
      'const early = JSON.stringify(process.env); export default () => new Response(early)';
    const instance = await loaded(code, { env: { GREETING: 'Hi', PATH: '/bin' } });
    assert.deepEqual(JSON.parse(await instance.ask()), {
      GREETING: 'Hi',
      PATH: '/bin',
      FNWAY_GATEWAY: 'mark',
    });
    instance.end();
  });

  test('the working directory is the version’s, before user code runs', async () => {
    const code = 'const early = process.cwd(); export default () => new Response(early)';
    const instance = await loaded(code);
    assert.match(await instance.ask(), /\/version-\d+$/);
    instance.end();
  });

  test('as root, the identity is taken before user code runs', { skip: !isRoot }, async () => {
    const code = `
      import { readFileSync } from 'node:fs';
      const status = readFileSync('/proc/self/status', 'utf8');
      export default () => new Response(status);`;
    const instance = await loaded(code, { uid, gid: uid });
    const status = await instance.ask();
    const ids = [uid, uid, uid, uid].join('\t');
    assert.ok(status.includes(`Uid:\t${ids}\n`), status);
    assert.ok(status.includes(`Gid:\t${ids}\n`), status);
    assert.match(status, /^Groups:\s*$/m);
    instance.end();
  });

  test('as root, code that the user cannot read is a problem, not a crash', {
    skip: !isRoot,
  }, async () => {
    const place = join(directory, 'private');
    mkdirSync(place, { mode: 0o700 });
    writeFileSync(join(place, 'handler.mjs'), echo);
    const instance = await spawnInstance();
    const settings = { directory: place, entry: 'handler.mjs', env: {}, uid, gid: uid };
    instance.peer.send({ type: types.LOAD, flags: END, payload: JSON.stringify(settings) });
    const problem = jsonOf(await instance.peer.next(types.LOAD_FAILED));
    assert.equal(problem.reason, 'identity');
    instance.end();
  });

  for (const [what, code, settings, expected] of [
    ['a syntax error', 'export default (', {}, { reason: 'syntax' }],
    [
      'a missing module',
      'import "./gone.mjs";\nexport default 1',
      {},
      { reason: 'module-missing', file: 'handler.mjs' },
    ],
    ['no handler', 'export const x = 1', {}, { reason: 'handler-missing', file: 'handler.mjs' }],
    ['no such handler', echo, { handler: 'bar' }, { reason: 'handler-missing' }],
    [
      'a throw while it loads',
      '\n\nthrow new RangeError("no luck")',
      {},
      { reason: 'threw', type: 'RangeError', message: 'no luck', file: 'handler.mjs', line: 3 },
    ],
    ['a thrown text', 'throw "text"', {}, { reason: 'threw', message: 'text' }],
    ['a thrown null', 'throw null', {}, { reason: 'threw' }],
  ] as const) {
    test(`${what} is LOAD_FAILED with its place`, async () => {
      const problem = await refused(code, settings);
      assert.equal(typeof problem.message, 'string');
      for (const [key, value] of Object.entries(expected)) assert.equal(problem[key], value, key);
    });
  }

  test('a missing entry is LOAD_FAILED with the reason entry-missing', async () => {
    const instance = await spawnInstance();
    const settings = { directory, entry: 'nowhere.mjs', env: {} };
    instance.peer.send({ type: types.LOAD, flags: END, payload: JSON.stringify(settings) });
    const problem = jsonOf(await instance.peer.next(types.LOAD_FAILED));
    assert.equal(problem.reason, 'entry-missing');
    instance.end();
  });

  test('LOADED says whether bodies are needed whole', async () => {
    for (const [code, body] of [
      [echo, 'stream'],
      ['export function handle() {}', 'whole'],
    ] as const) {
      const instance = await spawnInstance();
      instance.load(code);
      assert.deepEqual(jsonOf(await instance.peer.next(types.LOADED)), { body });
      instance.end();
    }
  });
});

describe('calls', { timeout: 30_000 }, () => {
  test('64 calls in flight are answered in any order, each with its own answer', async () => {
    const instance = await loaded(`
      const waiting = [];
      export default request => new Promise(resolve => {
        waiting.push(() => resolve(new Response(new URL(request.url).pathname)));
        if (waiting.length === 64) for (const answer of waiting.reverse()) answer();
      });`);
    const streams = Array.from({ length: 64 }, (_, i) => instance.call(`/${i}`));
    const replies = await Promise.all(
      streams.map(stream => instance.peer.next(types.REPLY, stream)),
    );
    assert.deepEqual(
      replies.map(reply => bodyOf(reply).toString()),
      streams.map((_, i) => `/${i}`),
    );
    instance.end();
  });

  test('calls alone for long, then together, then alone again, are each answered once', async () => {
    const instance = await loaded(`
      export default request => {
        const { pathname } = new URL(request.url);
        if (pathname !== '/stream') return new Response(pathname);
        return new Response(new ReadableStream({
          start(c) { c.enqueue(new TextEncoder().encode('str')); c.enqueue(new Uint8Array(9000)); c.close(); }
        }));
      }`);
    for (let round = 0; round < 2; round++) {
      for (let i = 0; i < 20; i++) assert.equal(await instance.ask(`/alone-${i}`), `/alone-${i}`);
      const streams = [instance.call('/stream'), instance.call('/a'), instance.call('/b')];
      const [long, a, b] = await Promise.all(
        streams.map(stream => instance.peer.next(types.REPLY, stream)),
      );
      assert.deepEqual([bodyOf(a!).toString(), bodyOf(b!).toString()], ['/a', '/b']);
      let bytes = bodyOf(long!).length;
      for (let end = false; !end; ) {
        const frame = await instance.peer.next(types.DATA, streams[0]);
        bytes += frame.payload.length;
        end = (frame.flags & END) !== 0;
      }
      assert.equal(bytes, 9003);
    }
    const more = instance.peer.frames.filter(frame => frame.stream !== 0);
    assert.deepEqual(more, [], 'nothing was sent twice');
    instance.end();
  });

  test('64 long answers at once come whole, and nothing is warned about', async () => {
    const instance = await loaded(`
      async function* parts() { for (let i = 0; i < 20; i++) yield Buffer.alloc(10_000, 'x'); }
      export default () => new Response(ReadableStream.from(parts()));`);
    instance.peer.socket.pause();
    const streams = Array.from({ length: 64 }, () => instance.call());
    await new Promise(resolve => setImmediate(resolve));
    instance.peer.socket.resume();
    for (const stream of streams) {
      await instance.peer.next(types.REPLY, stream);
      let bytes = 0;
      for (let flags = 0; (flags & END) === 0; ) {
        const frame = await instance.peer.next(types.DATA, stream);
        bytes += frame.payload.length;
        flags = frame.flags;
      }
      assert.equal(bytes, 200_000);
    }
    assert.equal(instance.output, '');
    instance.end();
  });

  test('an answer stops at the window and goes on with credit', async () => {
    const size = windowBytes + 5000;
    const instance = await loaded(`export default () => new Response(Buffer.alloc(${size}))`);
    const stream = instance.call();
    const taken = async (bytes: number) => {
      for (let got = 0; got < bytes; ) {
        const frame = await instance.peer.next(types.DATA, stream);
        got += frame.payload.length;
        assert.ok(got <= bytes, 'more than it may');
      }
    };
    await instance.peer.next(types.REPLY, stream);
    await taken(windowBytes);
    instance.peer.send({ type: types.PING });
    await instance.peer.next(types.PONG);
    assert.deepEqual(
      instance.peer.frames.filter(frame => frame.type === types.DATA),
      [],
    );
    instance.peer.send({ type: types.CREDIT, stream, arg: 1000 });
    await taken(1000);
    instance.peer.send({ type: types.CREDIT, stream, arg: 100_000 });
    await taken(4000);
    assert.equal((await instance.peer.next(types.DATA, stream)).flags, END);
    instance.end();
  });

  test('credit is given as the handler reads, and not before', async () => {
    const instance = await loaded(`
      let go;
      export default async request => {
        if (new URL(request.url).pathname === '/go') { go(); return new Response('went'); }
        await new Promise(resolve => { go = resolve; });
        return new Response(String((await request.bytes()).length));
      };`);
    const stream = instance.call('/', { flags: 0 });
    for (let i = 0; i < 4; i++) {
      instance.peer.send({ type: types.DATA, stream, payload: Buffer.alloc(windowBytes / 4) });
    }
    instance.peer.send({ type: types.PING });
    await instance.peer.next(types.PONG);
    assert.deepEqual(
      instance.peer.frames.filter(frame => frame.type === types.CREDIT),
      [],
    );
    assert.equal(await instance.ask('/go'), 'went');
    assert.equal((await instance.peer.next(types.CREDIT, stream)).arg, windowBytes / 4);
    instance.peer.send({ type: types.DATA, stream, flags: END, payload: 'x' });
    const reply = await instance.peer.next(types.REPLY, stream);
    assert.equal(bodyOf(reply).toString(), String(windowBytes + 1));
    instance.end();
  });

  test('a throw is FAIL with its place, and the next call is answered', async () => {
    const instance = await loaded(
      `export default request => {
  if (request.url.endsWith('/bad')) throw new TypeError('no luck');
  return new Response('fine');
}`,
    );
    const problem = jsonOf(await instance.peer.next(types.FAIL, instance.call('/bad')));
    const { stack, ...rest } = problem;
    assert.deepEqual(rest, {
      reason: 'threw',
      type: 'TypeError',
      message: 'no luck',
      file: 'handler.mjs',
      line: 2,
      column: 43,
    });
    assert.equal(typeof stack, 'string');
    assert.equal(await instance.ask('/'), 'fine');
    instance.end();
  });

  test('an answer that is no Response is FAIL with reply-invalid', async () => {
    const instance = await loaded('export default () => "text"');
    const problem = jsonOf(await instance.peer.next(types.FAIL, instance.call()));
    assert.equal(problem.reason, 'reply-invalid');
    instance.end();
  });

  test('a body longer than an event handler may have is FAIL with body-too-large', async () => {
    const instance = await loaded('export function handle(event) { return event.body.length }');
    assert.equal(await instance.ask('/', Buffer.alloc(1000)), '1000');
    for (const flags of [END, 0]) {
      const stream = instance.call('/', { body: Buffer.alloc(1001), flags });
      const problem = jsonOf(await instance.peer.next(types.FAIL, stream));
      assert.equal(problem.reason, 'body-too-large');
    }
    instance.end();
  });

  test('a body that breaks off ends the stream with CANCEL', async () => {
    const instance = await loaded(`
      async function* parts() { yield 'half'; throw new Error('it broke'); }
      export default () => new Response(ReadableStream.from(parts()));`);
    const stream = instance.call();
    await instance.peer.next(types.REPLY, stream);
    const cancel = await instance.peer.next(types.CANCEL, stream);
    assert.match(cancel.payload.toString(), /it broke/);
    instance.end();
  });

  test('binary header values survive both ways', async () => {
    const instance = await loaded(
      `export default request => new Response('', { headers: { 'x-b': request.headers.get('x-a') } })`,
    );
    const stream = instance.call('/', { head: ['x-a', 'caf\xe9'] });
    const fields = fieldsOf(await instance.peer.next(types.REPLY, stream));
    assert.equal(fields[fields.indexOf('x-b') + 1], 'caf\xe9');
    instance.end();
  });
});

const quick = { timeout: 3000 };

describe('cancelling', { timeout: 30_000 }, () => {
  test('the handler is told, and the stream ends once it has returned', quick, async () => {
    const instance = await loaded(`
      let go; let reason;
      export default async request => {
        if (request.url.endsWith('/reason')) return new Response(reason);
        if (request.url.endsWith('/go')) { go(); return new Response(); }
        request.signal.addEventListener('abort', () => { reason = request.signal.reason.name; });
        await new Promise(resolve => { go = resolve; });
        return new Response('nobody waits for this');
      };`);
    const stream = instance.call();
    instance.peer.send({ type: types.CANCEL, stream, payload: 'CALL_DEADLINE_EXCEEDED' });
    assert.equal(await instance.ask('/reason'), 'TimeoutError');
    assert.equal(instance.peer.frames.filter(frame => frame.stream === stream).length, 0);
    await instance.ask('/go');
    await instance.peer.next(types.CANCEL, stream);
    assert.equal(instance.peer.frames.filter(frame => frame.stream === stream).length, 0);
    instance.end();
  });

  test(
    'a handler that throws because of it ends the stream with CANCEL, not FAIL',
    quick,
    async () => {
      const instance = await loaded(`
      export default request => new Promise((_, reject) =>
        request.signal.addEventListener('abort', () => reject(request.signal.reason)));`);
      const stream = instance.call();
      instance.peer.send({ type: types.CANCEL, stream, payload: 'CALL_CANCELLED' });
      await instance.peer.next(types.CANCEL, stream);
      assert.equal(instance.output, '', 'nothing to log about it');
      instance.end();
    },
  );

  test('an answer that waits for credit gives up', quick, async () => {
    const instance = await loaded(
      `export default () => new Response(Buffer.alloc(${windowBytes * 2}))`,
    );
    const stream = instance.call();
    await instance.peer.next(types.REPLY, stream);
    instance.peer.send({ type: types.CANCEL, stream });
    await instance.peer.next(types.CANCEL, stream);
    instance.end();
  });

  test('a stream between two events is cancelled at once', quick, async () => {
    const instance = await loaded(`
      let cancelled = 'no';
      export default request => {
        if (request.url.endsWith('/cancelled')) return new Response(cancelled);
        return new Response(new ReadableStream({
          start(controller) { controller.enqueue(new TextEncoder().encode('data: 1\\n\\n')); },
          cancel() { cancelled = 'yes'; },
        }));
      };`);
    const stream = instance.call();
    await instance.peer.next(types.DATA, stream);
    instance.peer.send({ type: types.CANCEL, stream, payload: 'CALL_CANCELLED' });
    await instance.peer.next(types.CANCEL, stream);
    assert.equal(await instance.ask('/cancelled'), 'yes');
    instance.end();
  });

  test('reading a request whose sender left fails in the handler', quick, async () => {
    const instance = await loaded(`
      let seen = 'nothing';
      export default async request => {
        if (request.url.endsWith('/seen')) return new Response(seen);
        try { await request.text(); } catch (error) { seen = error.name; throw error; }
      };`);
    const stream = instance.call('/', { flags: 0, body: 'half' });
    instance.peer.send({ type: types.CANCEL, stream });
    await instance.peer.next(types.CANCEL, stream);
    assert.equal(await instance.ask('/seen'), 'AbortError');
    instance.end();
  });

  test('CANCEL, DATA and CREDIT for a stream that is over are ignored', quick, async () => {
    const instance = await loaded(echo);
    const stream = instance.call('/', { body: 'x' });
    await instance.peer.next(types.REPLY, stream);
    for (const type of [types.CANCEL, types.DATA, types.CREDIT]) {
      instance.peer.send({ type, stream, arg: 5, flags: END }, { type, stream: 999 });
    }
    assert.equal(bodyOf(await instance.peer.next(types.REPLY, instance.call())).length, 0);
    instance.end();
  });
});

describe('ending', { timeout: 30_000 }, () => {
  const slow = `
    let go;
    export default request => {
      if (request.url.endsWith('/go')) { go(); return new Response('went'); }
      return new Promise(resolve => { go = () => resolve(new Response('finished')); });
    };`;

  test('STOP ends an idle instance with status 0', quick, async () => {
    const instance = await loaded(echo);
    instance.peer.send({ type: types.STOP });
    assert.deepEqual(await instance.exited, [0, null]);
  });

  test('STOP lets the calls in flight finish, and then ends with status 0', quick, async () => {
    const instance = await loaded(slow);
    const stream = instance.call();
    instance.peer.send({ type: types.STOP });
    assert.equal(await instance.ask('/go'), 'went');
    const reply = await instance.peer.next(types.REPLY, stream);
    assert.equal(bodyOf(reply).toString(), 'finished');
    assert.deepEqual(await instance.exited, [0, null]);
  });

  test('STOP before LOAD ends it too', quick, async () => {
    const instance = await spawnInstance();
    await instance.peer.next(types.HELLO);
    instance.peer.send({ type: types.STOP });
    assert.deepEqual(await instance.exited, [0, null]);
  });

  test('a link that closes ends it at once, calls in flight or not', quick, async () => {
    const instance = await loaded(slow);
    instance.call();
    instance.peer.send({ type: types.PING });
    await instance.peer.next(types.PONG);
    instance.end();
    assert.deepEqual(await instance.exited, [0, null]);
  });

  const broken: Array<[string, Buffer]> = [
    ['type 0', encode({ type: 0 })],
    ['type 14', encode({ type: 14 })],
    ['a frame over the limit', Buffer.from('01000100070000000000000000000000', 'hex')],
    ['random bytes', Buffer.from('GET / HTTP/1.1\r\nhost: x\r\n\r\n')],
    ['a CALL whose head is past its end', encode({ type: types.CALL, stream: 1, arg: 9 })],
    ['a frame that only a runtime sends', encode({ type: types.REPLY, stream: 1 })],
  ];
  for (const [what, bytes] of broken) {
    test(`${what} ends it with a status other than 0`, quick, async () => {
      const instance = await loaded(echo);
      instance.peer.send(bytes);
      const [status] = await Promise.race([
        instance.exited,
        new Promise<[string]>(resolve => setTimeout(() => resolve(['it goes on']), 1000)),
      ]);
      instance.end();
      assert.equal(status, 1);
    });
  }

  test('a LOAD that is no JSON ends it with a status other than 0', quick, async () => {
    const instance = await spawnInstance();
    instance.peer.send({ type: types.LOAD, flags: END, payload: '{"a":' });
    assert.deepEqual(await instance.exited, [1, null]);
  });
});
