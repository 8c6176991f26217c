/**
 * Goal: the go runtime keeps the link's protocol.
 *
 * Method: the test is the gateway's end. It builds one function with the real build.mjs, starts the program, and reads and
 * writes frames with the small helper at the end of this file, which shares no code with src/link. The function does what the
 * path says; handlers that wait do so for frames. What a deployed function does is in test/api/go.test.ts.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { findGo, goCache } from '../../src/testing/go.ts';

const { goProgram, needsGo } = findGo(process.env.PATH ?? '');

const [HELLO, LOAD, LOADED, LOAD_FAILED, CALL, REPLY, DATA] = [1, 2, 3, 4, 5, 6, 7];
const [CREDIT, CANCEL, FAIL, PING, PONG, STOP] = [8, 9, 10, 11, 12, 13];
const END = 1;
const windowBytes = 262_144;
const payloadBytesMax = 65_536;

const code = `package function

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
)

func Handle(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/env":
		mask, _ := os.Getwd()
		fmt.Fprint(w, strings.Join(os.Environ(), " "), " ", mask)
	case "/request":
		fmt.Fprint(w, r.Host, "|", r.RequestURI, "|", r.URL.Query()["a"], "|", r.Header["X-Many"], "|", r.RemoteAddr, "|", r.Header["Host"])
	case "/write":
		size, _ := strconv.Atoi(r.URL.RawQuery)
		w.Write(make([]byte, size))
	case "/count":
		count, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, count, " ", err)
	case "/two":
		two := make([]byte, 2)
		io.ReadFull(r.Body, two)
		w.Write(two)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		_, err := w.Write(make([]byte, 100_000))
		fmt.Fprintln(os.Stderr, "write after the end:", err)
	case "/status":
		status, _ := strconv.Atoi(r.URL.RawQuery)
		w.WriteHeader(103)
		w.Header().Set("X-Odd", "a\\r\\nb\\x00 ")
		w.Header().Set("Trailer:X", "no")
		w.WriteHeader(status)
		_, err := w.Write([]byte("body"))
		fmt.Fprintln(os.Stderr, status, err)
	case "/html":
		io.WriteString(w, "<!doctype html><p>")
	case "/short":
		w.Header().Set("Content-Length", "10")
		io.WriteString(w, "four")
		w.(http.Flusher).Flush()
	case "/goexit":
		runtime.Goexit()
	case "/abort":
		panic(http.ErrAbortHandler)
	case "/evil":
		panic(evil{})
	}
}

type evil struct{}

func (evil) Error() string { panic("again") }
`;

let place = '';
let server: Server;
const children: ChildProcess[] = [];
const expected = new Map<string, (instance: Instance) => void>();

describe('the go runtime', { ...needsGo, timeout: 180_000 }, () => {
  before(async () => {
    place = mkdtempSync(join(tmpdir(), 'fnway-go-'));
    writeFileSync(join(place, 'handler.go'), code);
    const build = [join(import.meta.dirname, 'build.mjs'), '--go', goProgram!];
    const env = { PATH: process.env.PATH, HOME: place };
    execFileSync(process.execPath, [...build, '--fill', goCache], { env, stdio: 'pipe' });
    const what = [...build, '--entry', 'handler.go', '--cache', goCache];
    execFileSync(process.execPath, what, { cwd: place, env, stdio: 'pipe' });
    server = createServer(socket => {
      const instance = new Instance(socket);
      void instance.next(HELLO).then(({ payload }) => {
        instance.hello = JSON.parse(payload.toString());
        expected.get(String(instance.hello.secret))!(instance);
      });
    });
    server.listen(join(place, 'link'));
    await once(server, 'listening');
  });
  after(async () => {
    for (const child of children) child.kill('SIGKILL');
    await new Promise(resolve => server?.close(resolve));
    rmSync(place, { recursive: true, force: true });
  });

  test('says HELLO, answers PING before and after LOAD, and STOP ends it', async () => {
    const instance = await start();
    const { pid, ...hello } = instance.hello;
    assert.deepEqual(hello, { protocol: 1, secret: instance.secret, runtime: 'go' });
    assert.equal(pid, instance.child.pid);
    instance.send(PING, { arg: 77 });
    assert.equal((await instance.next(PONG)).arg, 77);
    assert.deepEqual(await instance.load(), { body: 'stream' });
    instance.send(STOP);
    assert.deepEqual(await instance.exited, [0, null]);
  });

  test('ends with its link', async () => {
    const instance = await started();
    instance.socket.destroy();
    assert.deepEqual(await instance.exited, [0, null]);
  });

  test('STOP waits for the calls in flight', async () => {
    const instance = await started();
    const stream = instance.call('/count', { body: 'ab' });
    instance.send(STOP);
    instance.send(PING, { arg: 1 });
    await instance.next(PONG);
    instance.send(DATA, { stream, flags: END });
    assert.equal((await instance.reply(stream)).text, '2 <nil>');
    assert.deepEqual(await instance.exited, [0, null]);
  });

  test('a LOAD in several frames is put together; environment and directory are from it', async () => {
    const instance = await start();
    const long = 'x'.repeat(90_000);
    const bytes = Buffer.from(JSON.stringify(message({ env: { LONG: long, A: 'b' } })));
    instance.send(LOAD, { payload: bytes.subarray(0, 50_000) });
    instance.send(DATA, { payload: bytes.subarray(50_000), flags: END });
    await instance.next(LOADED);
    const { text } = await instance.whole('/env');
    for (const part of [`LONG=${long}`, 'A=b', 'FNWAY_GATEWAY=mark', place])
      assert.ok(text.split(' ').includes(part), part.slice(0, 20));
    assert.doesNotMatch(text, /SECRET|FNWAY_LINK/);
  });

  test('an identity that cannot be taken fails the load', async () => {
    const instance = await start();
    const uid = process.getuid?.() === 0 ? 2 ** 33 : 0;
    instance.send(LOAD, { payload: json(message({ uid, gid: uid })), flags: END });
    const { payload } = await instance.next(LOAD_FAILED);
    assert.equal(JSON.parse(payload.toString()).reason, 'identity');
  });

  test('the request is as a server of net/http would give it', async () => {
    const instance = await started();
    const headers = [
      'hOsT',
      'example.org',
      'x-many',
      '1',
      'X-MANY',
      '2',
      'X-Forwarded-For',
      '1.2.3.4, ::1',
    ];
    const { text } = await instance.whole('/request?a=1&a=%20', { headers });
    assert.equal(text, 'example.org|/request?a=1&a=%20|[1  ]|[1 2]|[::1]:0|[]');
    assert.equal((await instance.whole('/%zz')).status, '400');
  });

  test('short answers are one frame; long ones keep to their credit', async () => {
    const instance = await started();
    const short = await instance.reply(instance.call('/write?32000', { flags: END }));
    assert.deepEqual([short.frames, short.body.length], [1, 32_000]);
    const stream = instance.call('/write?1000000', { flags: END });
    instance.send(PING, { arg: 9 });
    await instance.next(PONG);
    let bytes = 0;
    let ended = false;
    while (!ended) {
      // Everything that its credit allows, and not a byte more until there is some again.
      const frame = await instance.nextOf(stream);
      assert.ok([REPLY, DATA].includes(frame.type));
      bytes += frame.type === REPLY ? frame.payload.length - frame.arg : frame.payload.length;
      ended = (frame.flags & END) !== 0;
      assert.ok(bytes <= instance.granted(stream), `${bytes} bytes`);
      if (bytes === instance.granted(stream)) instance.grant(stream, 100_000);
    }
    assert.equal(bytes, 1_000_000);
  });

  test('credit is given for a body as the handler reads it', async () => {
    const instance = await started();
    const stream = instance.call('/count');
    let credit = windowBytes;
    for (let sent = 0; sent < 2_000_000; sent += payloadBytesMax) {
      while (credit < payloadBytesMax) credit += (await instance.next(CREDIT)).arg;
      instance.send(DATA, { stream, payload: Buffer.alloc(payloadBytesMax) });
      credit -= payloadBytesMax;
    }
    instance.send(DATA, { stream, flags: END });
    assert.equal((await instance.reply(stream)).text, `${31 * payloadBytesMax} <nil>`);
  });

  test('CANCEL reaches the handler, which sends no more, and the stream ends when it has returned', async () => {
    const instance = await started();
    const stream = instance.call('/two', { body: 'ab' });
    assert.equal((await instance.nextOf(stream)).type, REPLY);
    assert.equal((await instance.nextOf(stream)).payload.toString(), 'ab');
    instance.send(CANCEL, { stream, payload: Buffer.from('CALL_CANCELLED') });
    assert.equal((await instance.nextOf(stream)).type, CANCEL);
    await instance.says('write after the end: context canceled');
    const late = instance.call('/count', { body: 'ab' });
    instance.send(CANCEL, { stream: late, payload: Buffer.from('CALL_DEADLINE_EXCEEDED') });
    assert.equal((await instance.nextOf(late)).type, CANCEL);
    // Frames that were on their way are nobody's.
    instance.send(DATA, { stream, payload: Buffer.from('late'), flags: END });
    instance.send(CREDIT, { stream, arg: 5 });
    assert.equal((await instance.whole('/write?1')).body.length, 1);
  });

  test('statuses and headers that cannot travel', async () => {
    const instance = await started();
    const odd = await instance.whole('/status?201');
    assert.deepEqual([odd.status, odd.text, odd.headers['X-Odd']], ['201', 'body', 'a  b']);
    assert.deepEqual(Object.keys(odd.headers).sort(), ['Content-Type', 'X-Odd']);
    const none = await instance.whole('/status?204');
    assert.deepEqual([none.status, none.text], ['204', '']);
    await instance.says('204 http: request method or response status code does not allow body');
    for (const status of ['600', '101', '7']) {
      const problem = await instance.fails(`/status?${status}`);
      assert.equal(problem.reason, 'reply-invalid');
      assert.match(String(problem.message), new RegExp(`status ${status};`));
    }
    assert.equal(
      (await instance.whole('/html')).headers['Content-Type'],
      'text/html; charset=utf-8',
    );
  });

  test('an answer shorter than promised is broken off', async () => {
    const instance = await started();
    const stream = instance.call('/short', { flags: END });
    const types = [];
    while (types.at(-1) !== CANCEL) types.push((await instance.nextOf(stream)).type);
    assert.deepEqual(types, [REPLY, DATA, CANCEL]);
  });

  test('whatever ends a handler fails its call alone', async () => {
    const instance = await started();
    assert.match(String((await instance.fails('/goexit')).message), /Goexit/);
    assert.match(String((await instance.fails('/abort')).message), /aborted/);
    const evil = await instance.fails('/evil');
    assert.deepEqual([evil.type, evil.message], ['function.evil', '(its message cannot be shown)']);
    assert.equal(evil.file, 'handler.go');
    assert.equal((await instance.whole('/write?2')).body.length, 2);
  });

  test('hundreds of calls in one write are answered each', async () => {
    const instance = await started();
    const streams = Array.from({ length: 500 }, () => instance.call('/write?100', { flags: END }));
    for (const stream of streams) assert.equal((await instance.reply(stream)).body.length, 100);
  });

  test('its sources are formatted', () => {
    const gofmt = join(goProgram!, '../gofmt');
    if (!existsSync(gofmt)) return;
    assert.equal(execFileSync(gofmt, ['-l', import.meta.dirname], { encoding: 'utf8' }), '');
  });
});

const none: Buffer = Buffer.alloc(0);

interface Frame {
  type: number;
  flags: number;
  stream: number;
  arg: number;
  payload: Buffer;
}

interface CallOptions {
  body?: string;
  flags?: number;
  headers?: string[];
}

class Instance {
  hello: Record<string, unknown> = {};
  secret = '';
  child!: ChildProcess;
  exited!: Promise<unknown[]>;
  readonly socket: Socket;
  readonly #frames: Frame[] = [];
  readonly #granted = new Map<number, number>();
  #arrived: () => void = () => {};
  #said = '';
  #streams = 0;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('error', () => {});
    let rest: Buffer = Buffer.alloc(0);
    socket.on('data', chunk => {
      rest = Buffer.concat([rest, chunk]);
      while (rest.length >= 16 && rest.length >= 16 + rest.readUInt32LE(0)) {
        const end = 16 + rest.readUInt32LE(0);
        const [stream, arg] = [rest.readUInt32LE(8), rest.readUInt32LE(12)];
        const payload = rest.subarray(16, end);
        this.#frames.push({ type: rest[4]!, flags: rest[5]!, stream, arg, payload });
        rest = rest.subarray(end);
      }
      this.#arrived();
    });
  }

  adopt(child: ChildProcess): void {
    this.child = child;
    child.stderr!.on('data', chunk => {
      this.#said += chunk;
      this.#arrived();
    });
  }

  send(type: number, { flags = 0, stream = 0, arg = 0, payload = none } = {}): void {
    const header = Buffer.alloc(16);
    header.writeUInt32LE(payload.length, 0);
    header[4] = type;
    header[5] = flags;
    header.writeUInt32LE(stream, 8);
    header.writeUInt32LE(arg, 12);
    this.socket.write(Buffer.concat([header, payload]));
  }

  async #until<T>(find: () => T | undefined): Promise<T> {
    for (;;) {
      const found = find();
      if (found !== undefined) return found;
      await new Promise<void>((resolve, reject) => {
        const late = setTimeout(() => reject(new Error(`not within 10 s: ${find}`)), 10_000);
        this.#arrived = () => {
          clearTimeout(late);
          resolve();
        };
      });
    }
  }

  #take(isWanted: (frame: Frame) => boolean): Promise<Frame> {
    return this.#until(() => {
      const at = this.#frames.findIndex(isWanted);
      return at === -1 ? undefined : this.#frames.splice(at, 1)[0];
    });
  }

  next(type: number): Promise<Frame> {
    return this.#take(frame => frame.type === type);
  }

  nextOf(stream: number): Promise<Frame> {
    return this.#take(frame => frame.stream === stream && frame.type !== CREDIT);
  }

  async says(text: string): Promise<void> {
    await this.#until(() => (this.#said.includes(text) ? true : undefined));
  }

  async load(more: object = {}): Promise<unknown> {
    this.send(LOAD, { payload: json(message(more)), flags: END });
    return JSON.parse((await this.next(LOADED)).payload.toString());
  }

  call(target: string, { body = '', flags = 0, headers = [] }: CallOptions = {}): number {
    const stream = ++this.#streams;
    this.#granted.set(stream, windowBytes);
    const head = Buffer.from(
      ['GET', target, `inv_${stream}`, '0', ...headers].join('\0'),
      'latin1',
    );
    const payload = Buffer.concat([head, Buffer.from(body)]);
    this.send(CALL, { stream, flags, arg: head.length, payload });
    return stream;
  }

  granted(stream: number): number {
    return this.#granted.get(stream)!;
  }

  grant(stream: number, bytes: number): void {
    this.#granted.set(stream, this.granted(stream) + bytes);
    this.send(CREDIT, { stream, arg: bytes });
  }

  async reply(stream: number) {
    let frame = await this.nextOf(stream);
    assert.equal(frame.type, REPLY, frame.payload.toString());
    const [status, ...pairs] = frame.payload.toString('latin1', 0, frame.arg).split('\0');
    const headers: Record<string, string> = {};
    for (let i = 0; i < pairs.length; i += 2) headers[pairs[i]!] = pairs[i + 1]!;
    const parts = [frame.payload.subarray(frame.arg)];
    while ((frame.flags & END) === 0) {
      frame = await this.nextOf(stream);
      parts.push(frame.payload);
    }
    const body = Buffer.concat(parts);
    return { status, headers, body, text: body.toString(), frames: parts.length };
  }

  whole(target: string, options: CallOptions = {}) {
    return this.reply(this.call(target, { ...options, flags: END }));
  }

  async fails(target: string): Promise<Record<string, unknown>> {
    const frame = await this.nextOf(this.call(target, { flags: END }));
    assert.equal(frame.type, FAIL);
    return JSON.parse(frame.payload.toString());
  }
}

function message(more: object): object {
  const load = { function: 'f', namespace: 'default', version: 1, directory: place, env: {} };
  return { ...load, entry: '.fnway/go/function', bufferedBodyBytesMax: 1000, ...more };
}

function json(value: object): Buffer {
  return Buffer.from(JSON.stringify(value));
}

async function start(): Promise<Instance> {
  const secret = `secret-${children.length}`;
  const arrives = new Promise<Instance>(resolve => expected.set(secret, resolve));
  const env = { FNWAY_LINK: join(place, 'link'), FNWAY_LINK_SECRET: secret, FNWAY_GATEWAY: 'mark' };
  const program = join(place, '.fnway/go/function');
  const child = spawn(program, { env, stdio: ['ignore', 'ignore', 'pipe'] });
  children.push(child);
  const exited = once(child, 'exit');
  const instance = await arrives;
  instance.secret = secret;
  instance.exited = exited;
  instance.adopt(child);
  return instance;
}

async function started(): Promise<Instance> {
  const instance = await start();
  await instance.load();
  return instance;
}
