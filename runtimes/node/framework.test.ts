/**
 * Goal: an instance of the functions framework's style keeps the link's protocol, whatever its handler does with request
 * and response. Method: as main.test.ts, the test is the gateway's end and reads frames. What it answers is compared
 * with the framework itself in test/api/framework-node.test.ts.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { findEsbuild } from '../../src/build/find-tools.ts';
import { createExpress } from '../../src/driver/process/framework.ts';
import {
  bodyOf,
  END,
  encodeHead,
  fieldsOf,
  jsonOf,
  Peer,
  type RawFrame,
  types,
} from '../../src/link/peer-fixture.ts';

const mainProgram = join(import.meta.dirname, 'main.mjs');
let express: string;
const windowBytes = 262_144;

let directory: string;
let server: Server;
const started = new Set<ChildProcess>();
before(async () => {
  directory = mkdtempSync(join(tmpdir(), 'fnway-framework-'));
  express = await createExpress({ directory, esbuild: findEsbuild() }).file();
  server = createServer();
  server.listen(join(directory, 'link.sock'));
  await once(server, 'listening');
});
after(() => {
  for (const child of started) child.kill('SIGKILL');
  server.close();
  rmSync(directory, { recursive: true, force: true });
});

let versions = 0;

class Instance {
  readonly peer: Peer;
  readonly exited: Promise<unknown[]>;
  #stream = 0;

  constructor(child: ChildProcess, peer: Peer) {
    this.peer = peer;
    this.exited = once(child, 'exit');
  }

  call(target = '/', parts: { body?: string; flags?: number; head?: string[] } = {}): number {
    const { body = '', flags = END, head = [] } = parts;
    const stream = ++this.#stream;
    const fields = ['POST', target, 'call_7', '5000', ...head];
    this.peer.send(encodeHead({ type: types.CALL, flags, stream, fields, body }));
    return stream;
  }

  reply(stream: number): Promise<RawFrame> {
    return this.peer.next(types.REPLY, stream);
  }

  async ask(target = '/', parts: Parameters<Instance['call']>[1] = {}): Promise<string> {
    return bodyOf(await this.reply(this.call(target, parts))).toString();
  }

  end(): void {
    this.peer.socket.destroy();
  }
}

async function spawnWith(code: string, settings: Record<string, unknown>): Promise<Instance> {
  const connected = once(server, 'connection') as Promise<[Socket]>;
  const child = spawn(process.execPath, [mainProgram], {
    env: {
      PATH: '/usr/bin:/bin',
      FNWAY_LINK: join(directory, 'link.sock'),
      FNWAY_LINK_SECRET: 'the secret',
      FNWAY_AWAITED: 'true',
    },
    stdio: 'ignore',
  });
  started.add(child);
  child.once('exit', () => started.delete(child));
  const [socket] = await connected;
  const instance = new Instance(child, new Peer(socket));
  const place = join(directory, `version-${++versions}`);
  mkdirSync(place);
  writeFileSync(join(place, 'index.cjs'), code);
  const whole = {
    ...{ function: 'f', namespace: 'default', version: 3, directory: place, entry: 'index.cjs' },
    ...{ env: {}, handler: 'f', concurrency: 100, bufferedBodyBytesMax: 1000, express },
    ...settings,
  };
  instance.peer.send({ type: types.LOAD, flags: END, payload: JSON.stringify(whole) });
  return instance;
}

/** The code is an http function's body, given `req` and `res`. */
async function loaded(code: string, settings: Record<string, unknown> = {}): Promise<Instance> {
  const instance = await spawnWith(
    `const functions = require('@google-cloud/functions-framework');
     let last = 'nothing';
     functions.http('f', ${code});`,
    settings,
  );
  assert.deepEqual(jsonOf(await instance.peer.next(types.LOADED)), { body: 'whole' });
  return instance;
}

async function refused(code: string, settings: Record<string, unknown>) {
  const instance = await spawnWith(code, settings);
  const problem = jsonOf(await instance.peer.next(types.LOAD_FAILED));
  instance.end();
  return problem;
}

/** Reads DATA until END, with credit for what was read. */
async function restOf(instance: Instance, stream: number): Promise<number> {
  for (let bytes = 0; ; ) {
    const { payload, flags } = await instance.peer.next(types.DATA, stream);
    bytes += payload.length;
    if ((flags & END) !== 0) return bytes;
    if (payload.length > 0) instance.peer.send({ type: types.CREDIT, stream, arg: payload.length });
  }
}

describe('answers', { timeout: 30_000 }, () => {
  test('a short answer is one frame, and only a failure is marked as one', async () => {
    const instance = await loaded(`(req, res) => {
      if (req.url === '/throw') throw new Error('thrown');
      res.set('X-A', 'é').send('é ' + req.url);
    }`);
    const answer = await instance.reply(instance.call('/a?b=c'));
    assert.equal(answer.flags, END);
    assert.equal(bodyOf(answer).toString(), 'é /a?b=c');
    const fields = fieldsOf(answer);
    assert.equal(fields[0], '200');
    assert.ok(!fields.includes('X-Fnway-Failure') && !fields.includes('Date'));
    const failure = await instance.reply(instance.call('/throw'));
    assert.deepEqual([fieldsOf(failure)[0], bodyOf(failure).toString()], ['500', 'thrown']);
    assert.deepEqual(fieldsOf(failure).slice(-2), ['X-Fnway-Failure', 'threw']);
    instance.end();
  });

  test('a body that comes in frames is whole for the handler, and one that is too long fails', async () => {
    const instance = await loaded('(req, res) => res.json(req.body)');
    const head = ['Content-Type', 'application/json'];
    const stream = instance.call('/', { flags: 0, head });
    instance.peer.send({ type: types.DATA, stream, payload: '{"in":' });
    instance.peer.send({ type: types.DATA, stream, flags: END, payload: '"parts"}' });
    assert.equal(bodyOf(await instance.reply(stream)).toString(), '{"in":"parts"}');
    const long = instance.call('/', { body: 'x'.repeat(1001) });
    assert.equal(jsonOf(await instance.peer.next(types.FAIL, long)).reason, 'body-too-large');
    instance.end();
  });

  test('a long answer waits for credit, and so does who writes it', async () => {
    const instance = await loaded(`(req, res) => {
      if (req.url === '/last') return res.send(String(last));
      last = 0;
      const write = () => {
        while (last < 4e6) {
          last += 50000;
          if (!res.write('x'.repeat(50000))) return res.once('drain', write);
        }
        res.end();
      };
      write();
    }`);
    const stream = instance.call('/');
    assert.equal((await instance.reply(stream)).flags, 0);
    const held: RawFrame[] = [];
    for (let bytes = 0; bytes < windowBytes; bytes += held.at(-1)!.payload.length)
      held.push(await instance.peer.next(types.DATA, stream));
    // All that may be sent is here: what was written beyond it waits in the instance.
    const written = Number(await instance.ask('/last'));
    assert.ok(written >= windowBytes && written < windowBytes + 300_000, String(written));
    assert.deepEqual(
      instance.peer.frames.filter(frame => frame.stream === stream),
      [],
    );
    instance.peer.send({ type: types.CREDIT, stream, arg: windowBytes });
    assert.equal((await restOf(instance, stream)) + windowBytes, 4_000_000);
    instance.end();
  });

  test('what no answer can carry is a failure of the call, and the next one works', async () => {
    const instance = await loaded(`(req, res) => {
      if (req.url === '/status') return res.status(700).end();
      if (req.url === '/destroy') return res.destroy();
      res.send('fine');
    }`);
    for (const target of ['/status', '/destroy']) {
      const problem = jsonOf(await instance.peer.next(types.FAIL, instance.call(target)));
      assert.equal(problem.reason, 'reply-invalid', target);
    }
    assert.equal(await instance.ask('/'), 'fine');
    instance.end();
  });

  test('an answer that its handler breaks off is no whole one', async () => {
    const instance = await loaded(
      `(req, res) => { res.write('begun'); setTimeout(() => res.destroy(), 1); }`,
    );
    const stream = instance.call();
    assert.equal((await instance.reply(stream)).flags, 0);
    await instance.peer.next(types.CANCEL, stream);
    instance.end();
  });

  test('interim answers are not taken for the answer', async () => {
    const instance = await loaded(`(req, res) => {
      res.writeContinue(); res.writeProcessing(); res.writeEarlyHints({ link: '</a>' });
      res.send('final');
    }`);
    assert.equal(await instance.ask(), 'final');
    instance.end();
  });

  test('an Express app of its own may be the function', async () => {
    const instance = await spawnWith(
      `const functions = require('@google-cloud/functions-framework');
       const app = require(${JSON.stringify(express)})();
       app.get('/x/:id', (req, res) => res.json('get'));
       app.post('/x/:id', (req, res) => { res.write(req.params.id); res.end(req.rawBody); });
       functions.http('f', app);`,
      {},
    );
    await instance.peer.next(types.LOADED);
    const head = ['Content-Type', 'a/b'];
    assert.equal(await instance.ask('/x/7', { body: 'raw', head }), '7raw');
    const lost = await instance.reply(instance.call('/y'));
    assert.equal(fieldsOf(lost)[0], '404');
    instance.end();
  });
});

describe('callers that leave', { timeout: 30_000 }, () => {
  const cancel = (instance: Instance, stream: number, reason = 'CALL_CANCELLED') =>
    instance.peer.send({ type: types.CANCEL, stream, payload: reason });

  test('a handler that has promised to return keeps the place of its call until it has', async () => {
    const instance = await loaded(`async (req, res) => {
      if (req.url === '/last') return res.send(last);
      if (req.url === '/go') { globalThis.go(); return res.send('going'); }
      res.on('close', () => { last = 'closed ' + req.abortController.signal.reason; });
      await new Promise(resolve => { globalThis.go = resolve; });
    }`);
    const stream = instance.call();
    // A later call is answered: the one before is at work.
    assert.equal(await instance.ask('/last'), 'nothing');
    cancel(instance, stream, 'CALL_DEADLINE_EXCEEDED');
    assert.equal(await instance.ask('/last'), 'closed timeout');
    assert.deepEqual(
      instance.peer.frames.filter(frame => frame.stream === stream),
      [],
    );
    assert.equal(await instance.ask('/go'), 'going');
    await instance.peer.next(types.CANCEL, stream);
    instance.end();
  });

  test('one that has promised nothing has returned, and what it writes later goes nowhere', async () => {
    const instance = await loaded(`(req, res) => {
      if (req.url === '/first') return res.send('here');
      if (req.url === '/last') { globalThis.late.send('late'); return res.send('here'); }
      globalThis.late = res;
    }`);
    const stream = instance.call();
    assert.equal(await instance.ask('/first'), 'here');
    cancel(instance, stream);
    await instance.peer.next(types.CANCEL, stream);
    assert.equal(await instance.ask('/last'), 'here');
    assert.deepEqual(
      instance.peer.frames.filter(frame => frame.stream === stream),
      [],
    );
    instance.end();
  });

  test('an answer under way ends, and its handler hears of it', async () => {
    const instance = await loaded(`(req, res) => {
      if (req.url === '/last') return res.send(last);
      req.abortController.signal.addEventListener('abort', () => { last = 'aborted'; });
      res.write('begun');
    }`);
    const stream = instance.call();
    await instance.reply(stream);
    cancel(instance, stream);
    await instance.peer.next(types.CANCEL, stream);
    assert.equal(await instance.ask('/last'), 'aborted');
    instance.end();
  });
});

describe('failures', { timeout: 30_000 }, () => {
  test('an exception of no call is the answer to the latest one, and ends the instance', async () => {
    const instance = await loaded(`(req, res) => {
      if (req.url === '/wait') return;
      process.emit('uncaughtException', new Error('of nobody'));
    }`);
    instance.call('/wait');
    const answer = await instance.reply(instance.call('/end'));
    assert.deepEqual([fieldsOf(answer)[0], bodyOf(answer).toString()], ['500', 'of nobody']);
    assert.deepEqual(await instance.exited, [16, null]);
  });

  test('a function that registers, where nothing else names the framework, needs it to be named', async () => {
    const code = `require('@google-cloud/functions-framework').http('f', () => {});`;
    const problem = await refused(code, { express: undefined });
    assert.match(String(problem.message), /add it to package\.json, or set signature/);
  });

  test('names are those that the framework takes', async () => {
    for (const name of ['1a', '', 'a-', 'a.b', 'a'.repeat(64)]) {
      const code = `require('@google-cloud/functions-framework').cloudEvent(${JSON.stringify(name)}, () => {});`;
      assert.equal((await refused(code, {})).message, `Invalid function name: ${name}`);
    }
    const longest = 'a'.repeat(63);
    const code = `require('@google-cloud/functions-framework').http('${longest}', (req, res) => res.send('x'));`;
    const instance = await spawnWith(code, { handler: longest });
    await instance.peer.next(types.LOADED);
    instance.end();
  });
});
