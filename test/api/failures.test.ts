/**
 * Goal: what callers and the next call see when a function is too slow, too big, too busy, or dies. Method: functions
 * that fail when they are told to; states are read from /metrics and the control plane.
 */
import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { javascript, python, startTestGateway, waitFor } from '../../src/testing/index.ts';

const gateway = await startTestGateway({
  shared: true,
  settings: { waitingCallsMax: '1', graceMs: '400ms' },
});
const { call, put, client } = gateway;
const one = { instances: { max: 1 } };

/** A file by which a function is told something while it answers no other call. */
const marker = join(gateway.data, 'code', 'marker');

const trouble = `
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
let release = () => {};
let calls = 0;
const hoard = [];
export default async request => {
  const { pathname } = new URL(request.url);
  if (pathname === '/pid') return Response.json(process.pid);
  if (pathname === '/calls') return Response.json(calls);
  if (pathname === '/release') return release(), new Response('released');
  calls++;
  if (pathname === '/held') await new Promise(resolve => { release = resolve; });
  if (pathname === '/file')
    while (!existsSync(${JSON.stringify(marker)})) await new Promise(r => setTimeout(r, 5));
  if (pathname === '/block') while (true) {}
  if (pathname === '/never') await new Promise(() => {});
  if (pathname === '/exit') { console.error('last words'); process.exit(3); }
  if (pathname === '/kill') process.kill(process.pid, 'SIGKILL');
  if (pathname === '/hoard') for (;;) {
    hoard.push(Buffer.alloc(8 * 1024 ** 2, 1));
    await new Promise(resolve => setTimeout(resolve, 2));
  }
  if (pathname === '/child') {
    const code = 'h=[]\\nimport time\\nwhile True: h.append(bytearray(8<<20)); time.sleep(.002)';
    spawn('python3', ['-c', code]);
    await new Promise(() => {});
  }
  return new Response('fine');
};
`;

interface Failure {
  status: number;
  reason: string | null;
  problem: {
    code: string;
    detail: string;
    remedy: string;
    requestId: string;
    reason: string;
    log?: string[];
  };
}

async function failureOf(response: Response): Promise<Failure> {
  assert.equal(response.headers.get('content-type'), 'application/problem+json');
  const problem = (await response.json()) as Failure['problem'];
  const reason = response.headers.get('x-fnway-failure');
  assert.equal(problem.requestId, response.headers.get('x-call-id'));
  assert.ok(problem.detail && problem.remedy);
  return { status: response.status, reason, problem };
}

/** On a busy machine a start may take longer than a short timeout; any other failure of the next call is one. */
async function isFine(name: string): Promise<void> {
  let text = '';
  await waitFor(async () => {
    text = await (await call(`/function/${name}/fine`)).text();
    return !text.includes('no instance was free');
  });
  assert.equal(text, 'fine');
}

test('a call over its timeout answers 504, and the next call works', async () => {
  await put('slow', javascript(trouble, { ...one, timeout: '2s' }));
  for (const path of ['/never', '/block']) {
    const { status, reason, problem } = await failureOf(await call(`/function/slow${path}`));
    assert.deepEqual(
      [status, reason, problem.code, problem.reason],
      [504, 'timeout', 'CALL_DEADLINE_EXCEEDED', 'timeout'],
    );
    assert.match(problem.detail, /2s/);
    await isFine('slow');
  }
});

test('a Python and a shell function over their timeout answer 504 too', async () => {
  const code = `
import time
def handle(event, context):
    while event.path == "/block": pass
    return "fine"
`;
  await put('slow-python', python(code, { ...one, timeout: '2s' }));
  await put('slow-shell', {
    script: '[ "$PATH_INFO" = /block ] && sleep 60; printf fine',
    timeout: '2s',
  });
  for (const name of ['slow-python', 'slow-shell']) {
    const { status, reason } = await failureOf(await call(`/function/${name}/block`));
    assert.deepEqual([status, reason], [504, 'timeout']);
    await isFine(name);
  }
});

test('a call that only waited for an instance answers 504 as well', async () => {
  await put('queued', javascript(trouble, { ...one, concurrency: 1, timeout: '400ms' }));
  const both = [call('/function/queued/never'), call('/function/queued/never')];
  for (const response of await Promise.all(both))
    assert.equal((await failureOf(response)).status, 504);
  await isFine('queued');
});

test('a client that is slow to send costs no other call its instance', async () => {
  const reads = `export default async request => {
    if (request.method === 'POST') await request.text();
    return new Response(String(process.pid));
  };`;
  await put('fed', javascript(reads, { ...one, timeout: '500ms' }));
  const pid = await (await call('/function/fed')).text();
  const slow = await gateway.connect();
  slow.write('POST /function/fed HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\nabc');
  await slow.until('HTTP/1.1 504');
  // Until it has heard that nobody waits for its handler any more, another one may take its place.
  const labels = '{namespace="default",function="fed",version="1",state="busy"}';
  await waitFor(async () =>
    (await (await call('/metrics')).text()).includes(`fnway_instances${labels} 0\n`),
  );
  assert.equal(await (await call('/function/fed')).text(), pid);
  slow.destroy();
});

/** A call that times out, and one in the same instance that was made when half of its time was over. */
async function timedOutBeside(name: string, path: string) {
  const late = call(`/function/${name}/never`);
  const calls = async () => (await (await call(`/function/${name}/calls`)).json()) as number;
  await waitFor(async () => (await calls()) === 1);
  const startMs = performance.now();
  await waitFor(() => performance.now() - startMs > 300);
  const other = call(`/function/${name}${path}`);
  await waitFor(async () => (await calls()) === 2);
  const pid = (await (await call(`/function/${name}/pid`)).json()) as number;
  assert.equal((await late).status, 504);
  // The instance takes no new calls.
  assert.notEqual(await (await call(`/function/${name}/pid`)).json(), pid);
  return { other, pid };
}

test('other calls of an instance in which one timed out may finish', async () => {
  await put('grace', javascript(trouble, { ...one, timeout: '600ms' }));
  const { other, pid } = await timedOutBeside('grace', '/file');
  writeFileSync(marker, '');
  assert.equal(await (await other).text(), 'fine');
  await waitFor(() => !gateway.processes().includes(pid), { what: 'the end of the instance' });
  rmSync(marker);
});

test('an instance in which a call timed out is ended when its grace is over', async () => {
  await put('graceless', javascript(trouble, { ...one, timeout: '600ms' }));
  const { other, pid } = await timedOutBeside('graceless', '/never');
  assert.ok([502, 504].includes((await other).status));
  await waitFor(() => !gateway.processes().includes(pid), { what: 'the end of the instance' });
});

test('a call whose instance dies answers 502 with the last lines of its output', async () => {
  await put('fragile', javascript(trouble, one));
  const exited = await failureOf(await call('/function/fragile/exit'));
  assert.deepEqual(
    [exited.status, exited.reason, exited.problem.code],
    [502, 'crashed', 'FUNCTION_FAILED'],
  );
  assert.match(exited.problem.detail, /status 3/);
  assert.deepEqual(exited.problem.log, ['last words']);
  await isFine('fragile');
  const killed = await failureOf(await call('/function/fragile/kill'));
  assert.match(killed.problem.detail, /SIGKILL/);
  await isFine('fragile');
});

test('a Python instance that dies answers 502 with the last lines of its output', async () => {
  const code = `
import os, sys
def handle(event, context):
    if event.path == "/exit":
        print("last words", file=sys.stderr, flush=True)
        os._exit(3)
    return "fine"
`;
  await put('fragile-python', python(code, one));
  const { status, reason, problem } = await failureOf(await call('/function/fragile-python/exit'));
  assert.deepEqual([status, reason], [502, 'crashed']);
  assert.deepEqual(problem.log, ['last words']);
  await isFine('fragile-python');
});

test('an instance that dies takes all its calls with it, and only those', async () => {
  await put('together', javascript(trouble, one));
  await put('apart', javascript(trouble, one));
  const others = [call('/function/together/never'), call('/function/together/never')];
  const spared = call('/function/apart/held');
  const calls = async (name: string) => (await call(`/function/${name}/calls`)).json();
  await waitFor(async () => (await calls('together')) === 2 && (await calls('apart')) === 1);
  await call('/function/together/kill');
  for (const response of await Promise.all(others)) assert.equal(response.status, 502);
  await call('/function/apart/release');
  assert.equal(await (await spared).text(), 'fine');
});

test('an instance over its memory is ended and says so, also for its children', async () => {
  await put('hungry', javascript(trouble, { ...one, memory: '160Mi' }));
  for (const path of ['/hoard', '/child']) {
    const { status, reason, problem } = await failureOf(await call(`/function/hungry${path}`));
    assert.deepEqual([status, reason], [502, 'out-of-memory'], path);
    assert.match(problem.detail, /160 MiB/);
    await isFine('hungry');
  }
});

test('code that takes too much memory while it loads is ended and says so', async () => {
  const sources = [
    javascript(
      'const held = []; for (;;) held.push(await new Promise(r => setTimeout(r, 2, Buffer.alloc(8 << 20, 1))));',
    ),
    python('import time\nheld = []\nwhile True: held.append(bytearray(8 << 20)); time.sleep(.002)'),
  ];
  for (const definition of sources) {
    const { function: view } = await client.putFunction(
      'glutton',
      { ...definition, memory: '128Mi' },
      { wait: '30s' },
    );
    const { code, message } = view.latestVersion.failure!;
    assert.equal(code, 'LOAD_FAILED');
    assert.match(message, /more than its 128 MiB of memory while it loaded handler\./);
  }
});

test('a script over its memory is ended and says so', async () => {
  await put('hungry-script', {
    script: `exec python3 -c 'h=[]
while True: h.append(bytearray(4<<20))'`,
    memory: '64Mi',
  });
  const { status, reason } = await failureOf(await call('/function/hungry-script'));
  assert.deepEqual([status, reason], [502, 'out-of-memory']);
});

test('a call that finds all places and the queue taken answers 429', async () => {
  await put('busy', javascript(trouble, { ...one, concurrency: 1 }));
  const first = call('/function/busy/held');
  const running = async () => (await client.getFunction('busy')).running!;
  await waitFor(async () => (await running()).busy === 1);
  const second = call('/function/busy/fine');
  await waitFor(async () => (await running()).waiting === 1);
  const refused = await call('/function/busy/fine');
  assert.ok(Number(refused.headers.get('retry-after')) >= 1);
  const { status, problem } = await failureOf(refused);
  assert.deepEqual([status, problem.code], [429, 'FUNCTION_BUSY']);
  // The one that waits gets its turn once the first is done; only its timeout or the first can end that.
  await client.putFunction('busy', {
    ...javascript(trouble),
    auth: 'none',
    ...one,
    concurrency: 2,
  });
  await call('/function/busy/release');
  assert.equal(await (await first).text(), 'fine');
  assert.equal(await (await second).text(), 'fine');
});

test('a call for which no instance starts answers 503 with the cause', async () => {
  const code = `import { existsSync } from 'node:fs';
if (existsSync(${JSON.stringify(marker)})) throw new Error('not today');
export default () => new Response('fine');`;
  await put('moody', javascript(code, { instances: { max: 1, idle: '1ms' }, timeout: '3s' }));
  await waitFor(async () => (await client.getFunction('moody')).running!.ready === 0);
  writeFileSync(marker, '');
  const refused = await call('/function/moody');
  assert.ok(Number(refused.headers.get('retry-after')) >= 1);
  const { status, problem } = await failureOf(refused);
  assert.deepEqual([status, problem.code], [503, 'INSTANCE_NOT_STARTED']);
  assert.match(problem.detail, /not today/);
  assert.match(problem.detail, /handler\.mjs:2/);
  rmSync(marker);
  await isFine('moody');
});
