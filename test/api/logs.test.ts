/**
 * Goal: what a call writes goes to that call, whatever it is written with and however many run at once; what nobody knows
 * whose it is goes to the instance, and none is lost. Method: real functions in Node, Python and shell; their lines read
 * and followed over HTTP.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { OutputLineView } from '../../client/api.ts';
import { startTestGateway } from '../../src/testing/test-gateway.ts';
import { waitFor } from '../../src/testing/wait-for.ts';

const gateway = await startTestGateway({ shared: true });
const { client } = gateway;

const node = `
import { execFileSync } from 'node:child_process';
import { writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
setTimeout(() => console.log('of the module'), 1);
export default async (request) => {
  const { pathname, searchParams } = new URL(request.url);
  const name = searchParams.get('name');
  if (pathname === '/kinds') {
    console.log('log', { a: 1 });
    console.error('error\\nsecond line');
    process.stdout.write('in ');
    await sleep(1);
    process.stdout.write('parts');
    process.stdout.write('\\n');
    process.stdout.write(Buffer.from('bytes ü\\n'));
    process.stderr.write('no end');
    setTimeout(() => console.log('from a timer'), 1);
    await Promise.resolve().then(() => console.warn('from a promise'));
    await sleep(5);
  }
  if (pathname === '/raw') {
    writeSync(1, 'raw\\n');
    execFileSync('/bin/sh', ['-c', 'echo child; echo child error >&2'], { stdio: ['ignore', 'inherit', 'inherit'] });
  }
  if (pathname === '/many') {
    for (let i = 0; i < 100; i++) {
      console.log(name, i);
      if (i % 10 === 0) await sleep(1);
    }
  }
  if (pathname === '/json') {
    console.log(JSON.stringify({ severity: 'WARNING', message: 'slow', ms: 12 }));
    console.log(JSON.stringify({ level: 50, msg: 'pino', order: { id: 7 } }));
  }
  if (pathname === '/throw') { console.log('before'); throw new Error('it broke'); }
  if (pathname === '/exit') { console.log('last words'); process.exit(1); }
  return new Response('ok');
};`;

const python = `
import asyncio, json, logging, os, subprocess, sys, time

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")

def handle(event, context):
    name = event.query.get("name")
    if event.path == "/kinds":
        print("print", 1)
        print("to stderr", file=sys.stderr)
        logging.info("logging")
        sys.stdout.write("in ")
        sys.stdout.write("parts\\nsecond line\\n")
        print("no end", end="")
    if event.path == "/raw":
        os.write(1, b"raw\\n")
        subprocess.run(["/bin/sh", "-c", "echo child; echo child error >&2"])
    if event.path == "/many":
        for i in range(100):
            print(name, i)
            if i % 10 == 0:
                time.sleep(0.001)
    if event.path == "/coroutine":
        return speak(name)
    if event.path == "/throw":
        print("before")
        raise ValueError("it broke")
    return "ok"

async def speak(name):
    print(name, "a")
    await asyncio.sleep(0.005)
    await asyncio.to_thread(print, name, "b")
    print(name, "c")
    return "ok"
`;

await Promise.all([
  gateway.put('node', {
    runtime: 'node',
    source: { files: { 'handler.mjs': node } },
    concurrency: 200,
    instances: { max: 1 },
  }),
  gateway.put('node-alone', {
    runtime: 'node',
    source: { files: { 'handler.mjs': node } },
    concurrency: 1,
    instances: { max: 2 },
  }),
  gateway.put('python', {
    runtime: 'python',
    source: { files: { 'handler.py': python } },
    concurrency: 200,
    instances: { max: 1 },
  }),
  gateway.put('python-alone', {
    runtime: 'python',
    source: { files: { 'handler.py': python } },
    concurrency: 1,
    instances: { max: 2 },
  }),
]);

async function call(path: string): Promise<string> {
  const response = await gateway.call(`/function/${path}`);
  await response.text();
  return response.headers.get('x-call-id')!;
}

const texts = (lines: OutputLineView[]) => lines.map(({ stream, text }) => `${stream} ${text}`);
const linesOf = async (name: string, id: string) =>
  texts(await client.readLogs(name, { call: id }));

describe('a line goes to the call that wrote it', () => {
  test('node: console, streams, timers and promises', async () => {
    const id = await call('node/kinds');
    assert.deepEqual(await sortedByStream('node', id), [
      'stderr error',
      'stderr second line',
      'stderr no endfrom a promise',
      'stdout log { a: 1 }',
      'stdout in parts',
      'stdout bytes ü',
      'stdout from a timer',
    ]);
  });

  test('python: print, logging, sys.stdout', async () => {
    const id = await call('python/kinds');
    assert.deepEqual(await sortedByStream('python', id), [
      'stderr to stderr',
      'stderr INFO logging',
      'stdout print 1',
      'stdout in parts',
      'stdout second line',
      'stdout no end',
    ]);
  });

  test('python: coroutines and what they hand to threads', async () => {
    const ids = await Promise.all(
      ['x', 'y', 'z'].map(name => call(`python/coroutine?name=${name}`)),
    );
    for (const [index, name] of ['x', 'y', 'z'].entries()) {
      assert.deepEqual(await linesOf('python', ids[index]!), [
        `stdout ${name} a`,
        `stdout ${name} b`,
        `stdout ${name} c`,
      ]);
    }
  });

  test('an error that a call throws, with what it wrote before', async () => {
    for (const name of ['node', 'python']) {
      const lines = await linesOf(name, await call(`${name}/throw`));
      assert.equal(lines[0], 'stdout before');
      assert.match(lines.slice(1).join('\n'), /it broke/);
    }
  });

  test('also what it wrote just before its process ended', async () => {
    const id = await call('node/exit');
    assert.deepEqual(await linesOf('node', id), ['stdout last words']);
  });

  for (const name of ['node', 'python']) {
    test(`${name}: 100 lines each of 200 calls at once, none lost, none at the wrong call`, async () => {
      const ids = await Promise.all(
        Array.from({ length: 200 }, (_, i) => call(`${name}/many?name=call-${i}`)),
      );
      for (const [index, id] of ids.entries()) {
        const lines = await client.readLogs(name, { call: id, lines: 1000 });
        assert.deepEqual(
          lines.map(({ text }) => text),
          Array.from({ length: 100 }, (_, i) => `call-${index} ${i}`),
        );
      }
    });
  }
});

/** The two streams are two pipes: only within one is there an order. */
async function sortedByStream(name: string, id: string): Promise<string[]> {
  const lines = await linesOf(name, id);
  return [
    ...lines.filter(l => l.startsWith('stderr')),
    ...lines.filter(l => l.startsWith('stdout')),
  ];
}

test('a line without an end does not grow for ever in the process that writes it', async () => {
  const dots = 'for (let i = 0; i < 300; i++) process.stdout.write(".".repeat(100));';
  const code = `export default () => { ${dots} return new Response(); };`;
  const python =
    'import sys\ndef handle(event):\n    for i in range(300):\n        sys.stdout.write("." * 100)\n';
  await gateway.put('dots', { runtime: 'node', source: { files: { 'handler.mjs': code } } });
  await gateway.put('pydots', { runtime: 'python', source: { files: { 'handler.py': python } } });
  for (const name of ['dots', 'pydots']) {
    const lines = await client.readLogs(name, { call: await call(name) });
    assert.equal(lines.length, 2, name);
    assert.ok(lines.every(line => /^\.{13000,}/.test(line.text)));
  }
});

describe('what is written past the runtime', () => {
  for (const name of ['node', 'python']) {
    test(`${name}: goes to the call where it is the only one, again and again`, async () => {
      for (let i = 0; i < 20; i++) {
        const id = await call(`${name}-alone/raw`);
        assert.deepEqual(await sortedByStream(`${name}-alone`, id), [
          'stderr child error',
          'stdout raw',
          'stdout child',
        ]);
      }
    });

    test(`${name}: else to the instance, marked so`, async () => {
      const id = await call(`${name}/raw`);
      assert.deepEqual(await linesOf(name, id), []);
      const { instance } = await client.getInvocation(id);
      const found = await waitFor(async () => {
        const lines = await client.readLogs(name, { instance: instance!, lines: 10_000 });
        const raw = lines.filter(({ text }) => text === 'raw' || text === 'child');
        return raw.length === 2 && raw;
      });
      assert.deepEqual(
        found.map(line => line.call),
        [undefined, undefined],
      );
    });
  }

  test('what a module writes as it loads is the instance’s', async () => {
    await gateway.put('quiet', { runtime: 'node', source: { files: { 'handler.mjs': node } } });
    const own = await waitFor(async () => {
      await call('quiet/');
      const lines = await client.readLogs('quiet');
      return lines.some(({ text }) => text === 'of the module') && lines;
    });
    assert.deepEqual(
      own.map(line => line.call),
      own.map(() => undefined),
    );
  });
});

test('a script’s standard error goes to its call', async () => {
  await gateway.put('script', { script: 'echo "$HTTP_X_NAME" >&2; echo done' });
  const ids = await Promise.all(
    Array.from({ length: 5 }, async (_, i) => {
      const headers = { 'x-name': `call ${i}` };
      const response = await gateway.call('/function/script', { headers });
      return response.headers.get('x-call-id')!;
    }),
  );
  for (const [i, id] of ids.entries())
    assert.deepEqual(await linesOf('script', id), [`stderr call ${i}`]);
});

test('lines of JSON keep their severity and their fields', async () => {
  const lines = await client.readLogs('node', { call: await call('node/json') });
  assert.deepEqual(
    lines.map(({ severity, message, fields }) => ({ severity, message, fields })),
    [
      { severity: 'warning', message: 'slow', fields: { ms: 12 } },
      { severity: 'error', message: 'pino', fields: { order: { id: 7 } } },
    ],
  );
  assert.equal(lines[0]!.text, '{"severity":"WARNING","message":"slow","ms":12}');
});

test('lines are found by time and version, and followed from what is kept without a gap', async () => {
  await gateway.put('steps', { script: 'cat >&2' });
  const say = (text: string) => gateway.call('/function/steps', { method: 'POST', body: text });
  await say('one');
  const since = new Date(Date.now() + 1).toISOString();
  await waitFor(() => Date.now() > Date.parse(since));
  await say('two');
  assert.deepEqual(
    (await client.readLogs('steps', { since })).map(({ text }) => text),
    ['two'],
  );
  assert.deepEqual(
    (await client.readLogs('steps', { since: '1h', lines: 1 })).map(l => l.text),
    ['two'],
  );
  assert.deepEqual(await client.readLogs('steps', { version: 2 }), []);
  const stop = new AbortController();
  const seen: string[] = [];
  const following = (async () => {
    for await (const line of client.followLogs('steps', { signal: stop.signal }))
      seen.push(line.text);
  })().catch(() => {});
  await waitFor(() => seen.length === 2);
  for (let i = 0; i < 20; i++) await say(`later ${i}`);
  await waitFor(() => seen.length === 22);
  assert.deepEqual(seen, ['one', 'two', ...Array.from({ length: 20 }, (_, i) => `later ${i}`)]);
  stop.abort();
  await following;
});
