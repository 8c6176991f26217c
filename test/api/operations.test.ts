/**
 * Goal: what whoever runs a gateway relies on: health, metrics, logs, the number of instances, stop and restart.
 * Method: states read from /metrics and the control plane; gateways of their own where one has to end.
 */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { test } from 'node:test';
import {
  javascript,
  makeDataDirectory,
  problemOf,
  python,
  startTestGateway,
  type TestGateway,
  waitFor,
} from '../../src/testing/index.ts';

const gateway = await startTestGateway({ shared: true });
const { call, put, client } = gateway;

const handler = `
let release = () => {};
export default async request => {
  const { pathname } = new URL(request.url);
  if (pathname === '/pid') return Response.json(process.pid);
  if (pathname === '/kill') process.kill(process.pid, 'SIGKILL');
  if (pathname === '/throw') throw new Error('as told');
  if (pathname === '/missing') return new Response('no', { status: 404 });
  if (pathname === '/held') await new Promise(resolve => { release = resolve; });
  if (pathname === '/release') release();
  if (pathname === '/print') { console.log('to stdout'); console.error('to stderr'); }
  return new Response('fine');
};
`;

async function pidOf(name: string, from: TestGateway = gateway): Promise<number> {
  return (await (await from.call(`/function/${name}/pid`)).json()) as number;
}

async function runningOf(name: string) {
  return (await client.getFunction(name)).running!;
}

/** The value of one line of /metrics; labels as they are written there. */
async function metric(line: string): Promise<number | undefined> {
  const text = await (await call('/metrics')).text();
  const found = text.split('\n').find(other => other.startsWith(`${line} `));
  return found === undefined ? undefined : Number(found.slice(line.length + 1));
}

test('health and readiness answer without a token', async () => {
  for (const [path, text] of [
    ['/healthz', 'ok\n'],
    ['/readyz', 'ready\n'],
  ]) {
    const response = await call(path!);
    assert.equal(response.status, 200);
    assert.equal(await response.text(), text);
    assert.equal((await call(path!, { method: 'HEAD' })).status, 200);
    const refused = await call(path!, { method: 'POST' });
    assert.equal(refused.status, 405);
    assert.equal(refused.headers.get('allow'), 'GET, HEAD');
  }
});

test('metrics tell calls, failures, latency, waiting, instances and cold starts', async () => {
  await put('counted', javascript(handler, { instances: { max: 1, idle: '1ms' } }));
  await waitFor(async () => (await runningOf('counted')).ready === 0);
  const who = 'namespace="default",function="counted"';
  for (const path of ['', '', '/missing', '/throw']) await call(`/function/counted${path}`);
  assert.equal(await metric(`fnway_calls_total{${who},status="200"}`), 2);
  assert.equal(await metric(`fnway_calls_total{${who},status="404"}`), 1);
  assert.equal(await metric(`fnway_calls_total{${who},status="502"}`), 1);
  assert.equal(await metric(`fnway_call_failures_total{${who},reason="threw"}`), 1);
  assert.equal(await metric(`fnway_calls_in_flight{${who}}`), 0);
  assert.equal(await metric(`fnway_call_duration_seconds_count{${who}}`), 4);
  assert.equal(await metric(`fnway_call_duration_seconds_bucket{${who},le="+Inf"}`), 4);
  assert.ok((await metric(`fnway_call_duration_seconds_sum{${who}}`))! > 0);
  assert.ok((await metric(`fnway_queue_wait_seconds_count{${who}}`))! >= 1);
  assert.ok((await metric(`fnway_cold_starts_total{${who}}`))! >= 1);
  assert.ok((await metric('fnway_functions'))! >= 1);
  const held = call('/function/counted/held');
  const busy = `fnway_instances{${who},version="1",state="busy"}`;
  await waitFor(async () => (await metric(busy)) === 1);
  assert.equal(await metric(`fnway_calls_in_flight{${who}}`), 1);
  await call('/function/counted/release');
  await held;
  await call('/function/counted/nothing', { headers: { authorization: 'x' } });
  await call('/function/nobody');
  assert.ok((await metric('fnway_requests_refused_total{code="UNAUTHENTICATED"}'))! >= 1);
});

test('the text of the metrics is what Prometheus reads', async () => {
  await put('scraped', javascript(handler));
  await call('/function/scraped');
  const response = await call('/metrics');
  assert.match(response.headers.get('content-type')!, /^text\/plain; version=0\.0\.4/);
  const families = new Set<string>();
  for (const line of (await response.text()).trimEnd().split('\n')) {
    const type = /^# TYPE (\w+) (counter|gauge|histogram)$/.exec(line);
    if (type !== null) {
      assert.ok(!families.has(type[1]!), `${type[1]} is there once`);
      families.add(type[1]!);
    }
    if (line.startsWith('#')) continue;
    const sample = /^(\w+?)(?:_bucket|_sum|_count)?(?:\{(\w+="[^"]*",?)+\})? [0-9.e+-]+$/.exec(
      line,
    );
    assert.ok(sample, line);
    const name = line.split(/[{ ]/)[0]!;
    assert.ok(families.has(name) || families.has(name.replace(/_(bucket|sum|count)$/, '')), line);
  }
});

test('a removed function leaves the metrics', async () => {
  await put('leaving', javascript(handler));
  await call('/function/leaving');
  await client.removeFunction('leaving');
  const text = async () => (await call('/metrics')).text();
  assert.doesNotMatch(await text(), /fnway_call\w+\{[^}]*"leaving"/);
  // Its instance is told as long as there is one.
  await waitFor(async () => !(await text()).includes('leaving'));
});

test('a client that leaves in the middle of its body is not an error of the gateway', async () => {
  await put('patient', javascript('export default async r => new Response(await r.text())'));
  for (const length of [100, 100_000]) {
    for (const more of ['', 'Connection: close\r\n']) {
      const connection = await gateway.connect();
      connection.write(
        `POST /function/patient HTTP/1.1\r\nHost: a\r\n${more}Content-Length: ${length}\r\n\r\nab`,
      );
      await call('/healthz');
      connection.destroy();
    }
  }
  const settled = async () => (await metric('fnway_calls_in_flight{namespace="default"'))! > 0;
  await waitFor(async () => !(await settled()));
  assert.equal(await metric('fnway_requests_refused_total{code="INTERNAL"}'), undefined);
});

test('logs show the last lines of output, and follow the next', async () => {
  await put('talker', javascript(handler));
  await put(
    'talker-python',
    python(`import sys
def handle(event, context):
    print("from python")
    print("its errors", file=sys.stderr)
    return ""`),
  );
  await call('/function/talker/print');
  await call('/function/talker-python');
  const lines = async (name: string, wanted: number) =>
    waitFor(async () => {
      const found = await client.readLogs(name);
      return found.length >= wanted && found;
    });
  const [first, second] = (await lines('talker', 2)).sort((a, b) => (a.stream > b.stream ? -1 : 1));
  assert.deepEqual([first?.stream, first?.text], ['stdout', 'to stdout']);
  assert.deepEqual([second?.stream, second?.text], ['stderr', 'to stderr']);
  assert.equal(first?.version, 1);
  assert.match(first!.instance, /^ins_/);
  assert.ok(Math.abs(Date.now() - Date.parse(first!.time)) < 60_000);
  const ofPython = (await lines('talker-python', 2)).map(line => [line.stream, line.text]);
  assert.deepEqual(ofPython.sort(), [
    ['stderr', 'its errors'],
    ['stdout', 'from python'],
  ]);
  assert.equal((await client.readLogs('talker', { lines: 1 })).length, 1);

  const leave = new AbortController();
  const followed: string[] = [];
  const following = (async () => {
    for await (const line of client.followLogs('talker', { lines: 0, signal: leave.signal }))
      followed.push(line.text);
  })().catch(() => {});
  await waitFor(async () => {
    await call('/function/talker/print');
    return followed.includes('to stdout') && followed.includes('to stderr');
  });
  leave.abort();
  await following;
});

test('a followed log ends when its function is removed', async () => {
  await put('brief', javascript(handler));
  const followed: string[] = [];
  const following = (async () => {
    for await (const line of client.followLogs('brief', { lines: 0 })) followed.push(line.text);
  })();
  await waitFor(async () => {
    await call('/function/brief/print');
    return followed.includes('to stdout');
  });
  await client.removeFunction('brief');
  await following;
});

test('a client that leaves is counted by the code of its call’s end', async () => {
  await put('left', javascript(handler));
  const code = 'fnway_requests_refused_total{code="CALL_CANCELLED"}';
  const before = (await metric(code)) ?? 0;
  const connection = await gateway.connect();
  connection.write('GET /function/left/held HTTP/1.1\r\nHost: a\r\n\r\n');
  await waitFor(async () => (await runningOf('left')).busy === 1);
  connection.destroy();
  await waitFor(async () => (await metric(code)) === before + 1);
});

test('an idle function has no instance, and the next call gets one', async () => {
  await put('sleeper', javascript(handler, { instances: { idle: '1ms' } }));
  const before = await pidOf('sleeper');
  await waitFor(async () => (await runningOf('sleeper')).ready === 0);
  await waitFor(() => !gateway.processes().includes(before), { what: 'the end of its process' });
  const after = await pidOf('sleeper');
  assert.notEqual(after, before);
});

test('the minimum of instances is kept, also after one is killed', async () => {
  await put('kept', javascript(handler, { instances: { min: 2, max: 3, idle: '1ms' } }));
  const two = async () => (await runningOf('kept')).ready === 2;
  await waitFor(two);
  // Its answer comes when the gateway knows that the instance is gone: before, a call may still be given to it.
  assert.equal((await call('/function/kept/kill')).status, 502);
  await waitFor(two);
  assert.equal((await call('/function/kept')).status, 200);
});

test('the maximum of instances is never exceeded', async () => {
  await put('capped', javascript(handler, { instances: { max: 2 }, concurrency: 1 }));
  let most = 0;
  let open = 24;
  const calls = Array.from({ length: open }, async () => {
    const pid = await pidOf('capped');
    open--;
    return pid;
  });
  await waitFor(
    async () => {
      const { ready, busy, starting } = await runningOf('capped');
      most = Math.max(most, ready + busy + starting);
      return open === 0;
    },
    { everyMs: 1 },
  );
  const pids = new Set(await Promise.all(calls));
  assert.ok(most <= 2, `${most} instances`);
  assert.ok(pids.size <= 2, `${pids.size} processes`);
});

test('instances of a removed function end', async () => {
  await put('removed', javascript(handler));
  const pid = await pidOf('removed');
  await client.removeFunction('removed');
  await waitFor(() => !gateway.processes().includes(pid));
});

test('a stop lets the calls in flight finish and refuses new ones', async () => {
  const ending = await startTestGateway({ settings: { drainMsMax: '2s', graceMs: '500ms' } });
  await ending.put('held', javascript(handler));
  await ending.put('script', { script: 'sleep 0.3; printf slept' });
  const held = ending.call('/function/held/held');
  const script = ending.call('/function/script');
  const waiting = await ending.connect();
  waiting.write('GET /function/held HTTP/1.1\r\nHost: a\r\n\r\n');
  await waiting.next();
  const inFlight = async () => (await ending.client.getFunction('held')).running!.busy === 1;
  await waitFor(inFlight);
  const control = await ending.connect();
  const startMs = performance.now();
  const stopped = ending.stop();
  await waiting.closed;
  await assert.rejects(ending.call('/healthz'));
  control.write('GET /function/held/release HTTP/1.1\r\nHost: a\r\n\r\n');
  assert.equal(await (await script).text(), 'slept');
  // Nobody releases it: the drain's time is up, and then the caller is told.
  await problemOf(await held, { status: 503, code: 'GATEWAY_STOPPING' });
  await stopped;
  assert.ok(performance.now() - startMs < 5000, 'within the drain and a little');
});

/** How long a stop takes, in milliseconds. */
async function stopMs(ending: TestGateway): Promise<number> {
  const startMs = performance.now();
  await ending.stop();
  return Math.round(performance.now() - startMs);
}

test('a stop takes no longer than the calls in flight', async () => {
  const ending = await startTestGateway({ settings: { drainMsMax: '5s' } });
  await ending.put('quick', { script: 'sleep 0.3; printf slept' });
  const answer = ending.call('/function/quick');
  const thorough = ending.call('/function/quick', { headers: { te: 'trailers' } });
  await waitFor(async () => (await ending.client.getFunction('quick')).running!.busy === 1);
  const tookMs = await stopMs(ending);
  assert.equal(await (await answer).text(), 'slept');
  assert.equal(await (await thorough).text(), 'slept');
  assert.ok(tookMs < 3000, `the stop took ${tookMs} ms`);
});

test('a stop does not wait for connections without a request', async () => {
  const ending = await startTestGateway({ settings: { drainMsMax: '5s' } });
  await ending.put('quick', { script: 'printf quick' });
  const idle = [await ending.connect(), await ending.connect(), await ending.connect()];
  idle[0]!.write('GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n');
  idle[1]!.write('GET /function/quick HTTP/1.1\r\nHost: a\r\n\r\n');
  await Promise.all([idle[0]!.next(), idle[1]!.next()]);
  const tookMs = await stopMs(ending);
  for (const connection of idle) connection.destroy();
  assert.ok(tookMs < 3000, `the stop took ${tookMs} ms`);
});

test('a stop does not wait for those who follow logs', async () => {
  const ending = await startTestGateway({ settings: { drainMsMax: '5s' } });
  await ending.put('logged', javascript(handler));
  const leave = new AbortController();
  const lines = ending.client.followLogs('logged', { signal: leave.signal });
  const follower = lines[Symbol.asyncIterator]();
  const first = follower.next();
  await ending.call('/function/logged/print');
  await first;
  const rest = follower.next().catch(() => {});
  const tookMs = await stopMs(ending);
  leave.abort();
  await rest;
  assert.ok(tookMs < 3000, `the stop took ${tookMs} ms`);
});

test('one data directory serves one gateway, which finds its functions again', async () => {
  const data = makeDataDirectory();
  try {
    const first = await startTestGateway({ data });
    await first.put('js', javascript(handler, { instances: { min: 1 }, labels: { a: 'b' } }));
    await first.put('py', python('def handle(event, context):\n    return "python"'));
    await first.put('ts', {
      runtime: 'node',
      source: { files: { 'handler.ts': 'export default (r: Request) => new Response("ts")' } },
      auth: 'token',
    });
    await first.put('sh', { script: 'printf shell' });
    await first.client.putFunction('bad', javascript('export default ('), { wait: '30s' });
    const { token } = await first.client.getToken('ts');
    await assert.rejects(startTestGateway({ data }), { code: 'DATA_DIRECTORY_LOCKED' });
    assert.equal((await first.call('/function/sh')).status, 200, 'the first one is unharmed');
    const before = await first.client.listFunctions();
    await first.stop();

    const second = await startTestGateway({ data });
    assert.equal(second.adminToken, first.adminToken);
    assert.deepEqual(await second.client.listFunctions(), before);
    await waitFor(async () => (await second.client.getFunction('js')).running!.ready === 1);
    const headers = { authorization: `Bearer ${token}` };
    const texts = ['js', 'py', 'ts', 'sh'].map(async name => {
      const response = await second.call(`/function/${name}`, { headers });
      return response.text();
    });
    assert.deepEqual(await Promise.all(texts), ['fine', 'python', 'ts', 'shell']);
    await second.stop();
  } finally {
    rmSync(data, { recursive: true, force: true });
  }
});
