/**
 * Goal: whatever a runtime (one that a user added, or a function that took over its process) sends on the link, only
 * its own call suffers. Method: a runtime of the test's own whose answers are raw frames named by the path.
 */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { javascript, startTestGateway } from '../../src/testing/index.ts';

const main = `
import { connect } from 'node:net';
const END = 1;
const heads = {
  '/good': '200\\0x-good\\x001',
  '/newline': '200\\0x-evil\\0a\\r\\nInjected: yes',
  '/newline-name': '200\\0x-evil: 1\\r\\nInjected\\0yes',
  '/empty-name': '200\\0\\0value',
  '/space-name': '200\\0bad name\\0value',
  '/control': '200\\0x-evil\\0a\\x01b',
  '/status-0': '0',
  '/status-101': '101',
  '/status-text': 'abc',
  '/half': '200\\0x-half',
};
function frame(type, flags, stream, arg, payload = '') {
  const bytes = Buffer.from(payload, 'latin1');
  const header = Buffer.alloc(16);
  header.writeUInt32LE(bytes.length, 0);
  header[4] = type;
  header[5] = flags;
  header.writeUInt32LE(stream, 8);
  header.writeUInt32LE(arg, 12);
  return Buffer.concat([header, bytes]);
}
const socket = connect(process.env.FNWAY_LINK);
const secret = process.env.FNWAY_LINK_SECRET;
socket.write(frame(1, 0, 0, 0, JSON.stringify({ protocol: 1, secret, pid: process.pid })));
let rest = Buffer.alloc(0);
socket.on('data', chunk => {
  rest = Buffer.concat([rest, chunk]);
  while (rest.length >= 16 && rest.length >= 16 + rest.readUInt32LE(0)) {
    const payload = rest.toString('latin1', 16, 16 + rest.readUInt32LE(0));
    const [type, stream] = [rest[4], rest.readUInt32LE(8)];
    rest = rest.subarray(16 + rest.readUInt32LE(0));
    if (type === 2) socket.write(frame(3, 0, 0, 0, '{"body":"stream"}'));
    if (type === 13) process.exit(0);
    if (type === 5) answer(payload.split('\\0')[1], stream);
  }
});
function answer(path, stream) {
  const head = heads[path];
  if (head !== undefined) return socket.write(frame(6, END, stream, head.length, head));
  const reply = frame(6, 0, stream, 3, '200');
  if (path === '/twice') return socket.write(Buffer.concat([reply, reply]));
  if (path === '/data-first') return socket.write(frame(7, 0, stream, 0, 'early'));
  if (path === '/type-99') return socket.write(frame(99, 0, stream, 0));
  if (path === '/long') return socket.write(Buffer.alloc(64, 255));
  if (path === '/bad-json') return socket.write(frame(10, 0, stream, 0, '{'));
  if (path === '/null-json') return socket.write(frame(10, 0, stream, 0, 'null'));
  const odd = { toString: 1, valueOf: 2 };
  const fails = { '/odd-type': { type: odd }, '/odd-file': { file: odd }, '/odd-line': { line: odd } };
  if (fails[path] !== undefined) {
    const problem = { reason: 'threw', message: 'm', file: 'f', ...fails[path] };
    return socket.write(frame(10, 0, stream, 0, JSON.stringify(problem)));
  }
  if (path === '/no-stream') return socket.write(frame(6, END, 4_000_000, 3, '200'));
}
socket.on('close', () => process.exit(0));
`;

const runtimes = mkdtempSync(join(tmpdir(), 'fnway-runtimes-'));
after(() => rmSync(runtimes, { recursive: true, force: true }));
mkdirSync(join(runtimes, 'hostile'));
writeFileSync(join(runtimes, 'hostile', 'main.mjs'), main);
writeFileSync(
  join(runtimes, 'hostile', 'runtime.yaml'),
  'name: hostile\nprotocol: link\ncommand: ["{node}", "{runtime}/main.mjs"]\nentries: [entry]\n',
);

const gateway = await startTestGateway({ shared: true, settings: { runtimes } });
await gateway.put('hostile', {
  runtime: 'hostile',
  source: { files: { entry: '' } },
  instances: { max: 1 },
  timeout: '1s',
});
await gateway.put('other', javascript('export default () => new Response("fine")'));

/** The answer's text, from the reader of plain requests or from the thorough one. */
async function rawAnswer(path: string, more: string): Promise<string> {
  const connection = await gateway.connect();
  connection.write(`GET /function/hostile${path} HTTP/1.1\r\nHost: a\r\n${more}\r\n`);
  await connection.next().then(
    answer => {
      connection.text = `${answer.status} ${[...answer.headers].join('; ')}`;
    },
    () => {},
  );
  connection.destroy();
  return connection.text;
}

async function everythingElseWorks(path: string): Promise<void> {
  assert.equal(await (await gateway.call('/function/other')).text(), 'fine', path);
  const good = await gateway.call('/function/hostile/good');
  assert.equal(good.headers.get('x-good'), '1', path);
}

test('a header that is none never reaches a client', async () => {
  const paths = ['/newline', '/newline-name', '/empty-name', '/space-name', '/control'];
  for (const path of paths) {
    for (const more of ['', 'TE: trailers\r\n']) {
      const text = await rawAnswer(path, more);
      assert.doesNotMatch(text, /injected/i, path);
      assert.match(text, /^502/, `${path} ${more}`);
      await everythingElseWorks(path);
    }
  }
});

test('a head or a frame that breaks the protocol ends the instance, not the gateway', async () => {
  const paths = ['/status-0', '/status-101', '/status-text', '/half', '/data-first', '/type-99'];
  const fails = ['/odd-type', '/odd-file', '/odd-line'];
  for (const path of [...paths, ...fails, '/long', '/bad-json', '/null-json']) {
    assert.match(await rawAnswer(path, ''), /^502/, path);
    await everythingElseWorks(path);
  }
});

test('a second head breaks the answer off', async () => {
  const text = await rawAnswer('/twice', '');
  assert.doesNotMatch(text, /\r\n0\r\n/);
  await everythingElseWorks('/twice');
});

test('a frame for a call that does not exist is ignored', async () => {
  assert.match(await rawAnswer('/no-stream', ''), /^504/);
  await everythingElseWorks('/no-stream');
});
