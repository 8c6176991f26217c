/**
 * Goal: the life of a function on the control plane: made, read, listed, changed, versioned, removed. Method: the
 * routes themselves over HTTP; functions whose answer tells which version made it. Many at once: updates.test.ts.
 */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type {
  FunctionDefinition,
  FunctionView,
  Page,
  PutResult,
  VersionView,
} from '../../client/api.ts';
import { javascript, problemOf, startTestGateway, waitFor } from '../../src/testing/index.ts';

const gateway = await startTestGateway({ shared: true });
const { call, put, client, control } = gateway;
const base = '/v1/namespaces/default/functions';

function send(method: string, path: string, body?: unknown): Promise<Response> {
  const headers = { 'content-type': 'application/json' };
  return control(path, {
    method,
    ...(body !== undefined && { headers, body: JSON.stringify(body) }),
  });
}

/** A function that answers the text. */
const says = (text: string) => javascript(`export default () => new Response('${text}');`);
const textOf = async (path: string) => (await call(path)).text();
const versionsOf = async (name: string) =>
  (await client.listVersions(name)).items.map(({ number, state }) => `${number} ${state}`);

test('a function is created with its location, and not twice', async () => {
  const body = { name: 'made', ...says('made'), auth: 'none', labels: { team: 'a' } };
  const response = await send('POST', `${base}?wait=30s`, body);
  assert.equal(response.status, 201);
  assert.equal(response.headers.get('location'), `${base}/made`);
  assert.equal(response.headers.get('cache-control'), 'no-store');
  const made = (await response.json()) as PutResult;
  assert.deepEqual([made.outcome, made.version], ['created', 1]);
  const { function: view } = made;
  assert.match(view.id, /^fn_/);
  assert.deepEqual([view.name, view.namespace, view.state], ['made', 'default', 'ready']);
  assert.deepEqual([view.activeVersion, view.endpoint], [1, '/function/made']);
  assert.deepEqual(view.labels, { team: 'a' });
  assert.equal(await textOf(view.endpoint), 'made');
  const again = await send('POST', base, body);
  await problemOf(again, { status: 409, code: 'FUNCTION_EXISTS' });
  assert.deepEqual(await versionsOf('made'), ['1 ready']);
});

test('a function is read as it was made, with defaults filled in', async () => {
  await put('read', says('read'));
  const response = await send('GET', `${base}/read`);
  assert.equal(response.status, 200);
  const view = (await response.json()) as FunctionView;
  const { timeout, memory, env, kind, runtime, source, failure } = view.latestVersion;
  assert.deepEqual([timeout, memory, kind, runtime], ['1m', '256Mi', 'source', 'node']);
  assert.deepEqual([env, failure], [{}, undefined]);
  assert.match(source!, /^sha256:[0-9a-f]{64}$/);
  assert.deepEqual(view.instances, { min: 0, max: 4, idle: '5m' });
  assert.deepEqual([view.labels, view.description], [{}, '']);
  assert.ok(Date.parse(view.createdAt) <= Date.parse(view.updatedAt));
  const slash = await send('GET', `${base}/read/`);
  assert.equal(slash.status, 200);
  await problemOf(await send('GET', `${base}/none`), { status: 404, code: 'FUNCTION_NOT_FOUND' });
});

test('a list is in order of name, filtered, and comes in pages', async () => {
  const listed = client.inNamespace('listed');
  const all = Array.from({ length: 7 }, (_, i) => `f-${i}`);
  // Scripts with a syntax error are failed at once; the others are ready.
  for (const [i, name] of [...all].reverse().entries()) {
    const script = i % 3 === 0 ? 'if' : `echo ${name}`;
    const labels = {
      parity: i % 2 === 0 ? 'even' : 'odd',
      n: String(i),
      ...(i === 0 && { x: '=' }),
    };
    const project = i < 2 ? 'shop' : undefined;
    await listed.putFunction(
      name,
      { script, labels, ...(project !== undefined && { project }) },
      { wait: '30s' },
    );
  }
  const path = '/v1/namespaces/listed/functions';
  const names = async (query: string) => {
    const response = await send('GET', `${path}?${query}`);
    assert.equal(response.status, 200, query);
    return ((await response.json()) as Page<FunctionView>).items.map(item => item.name).join(' ');
  };
  assert.equal(await names(''), all.join(' '));
  assert.equal(await names('label=parity=odd'), 'f-1 f-3 f-5');
  assert.equal(await names('label=parity=odd&label=n=3'), 'f-3');
  assert.equal(await names('label=x'), 'f-6');
  assert.equal(await names('label=x=='), 'f-6');
  assert.equal(await names('label=none'), '');
  assert.equal(await names('label=__proto__'), '');
  assert.equal(await names('label=toString'), '');
  assert.equal(await names('state=failed'), 'f-0 f-3 f-6');
  assert.equal(await names('state=ready&label=parity=even'), 'f-2 f-4');
  assert.equal(await names('state=building'), '');
  assert.equal(await names('prefix=f-'), all.join(' '));
  assert.equal(await names('prefix=f-5'), 'f-5');
  assert.equal(await names('project=shop'), 'f-5 f-6');
  assert.equal(await names('project=other'), '');
  for (const limit of [1, 2, 3, 7, 8]) {
    const pages: string[][] = [];
    let cursor: string | undefined;
    do {
      const query: string = cursor === undefined ? '' : `&cursor=${cursor}`;
      const response = await send('GET', `${path}?limit=${limit}${query}`);
      const page = (await response.json()) as Page<FunctionView>;
      pages.push(page.items.map(item => item.name));
      cursor = page.next;
    } while (cursor !== undefined);
    assert.deepEqual(pages.flat(), all);
    assert.equal(pages.length, Math.ceil(all.length / limit), `no empty page at ${limit}`);
  }
  const filtered = await listed.listFunctions({ labels: ['parity=odd'], limit: 2 });
  assert.deepEqual([filtered.items.length, filtered.next], [2, 'f-3']);
  assert.deepEqual((await client.inNamespace('nobody').listFunctions()).items, []);
});

test('identical content makes no version, also with its keys in another order', async () => {
  const definition = {
    runtime: 'node',
    source: { files: { 'handler.mjs': 'export default () => new Response("a")', 'b.txt': 'b' } },
    env: { A: '1', B: 2 },
    timeout: '30s',
    auth: 'none',
  };
  const first = await send('PUT', `${base}/same?wait=30s`, definition);
  assert.equal(first.status, 201);
  assert.equal(((await first.json()) as PutResult).outcome, 'created');
  const reordered = {
    auth: 'none',
    timeout: '30000ms',
    env: { B: '2', A: 1 },
    source: { files: { 'b.txt': 'b', 'handler.mjs': definition.source.files['handler.mjs'] } },
    runtime: 'node',
  };
  for (const body of [definition, reordered]) {
    const response = await send('PUT', `${base}/same`, body);
    assert.equal(response.status, 200);
    const result = (await response.json()) as PutResult;
    assert.deepEqual([result.outcome, result.version], ['unchanged', undefined]);
  }
  const before = await client.getFunction('same');
  const changed = await send('PUT', `${base}/same?wait=30s`, { ...definition, env: { A: '1' } });
  assert.equal(changed.status, 200);
  const result = (await changed.json()) as PutResult;
  assert.deepEqual([result.outcome, result.version], ['updated', 2]);
  assert.ok(result.function.revision > before.revision);
  assert.deepEqual(await versionsOf('same'), ['2 ready', '1 ready']);
});

test('each part of a version makes a new one when it changes', async () => {
  const first = says('parts');
  await put('parts', first);
  const { files } = first.source as { files: Record<string, string> };
  const changes = [
    { env: { A: '1' } },
    { timeout: '10s' },
    { memory: '200Mi' },
    { entry: 'handler.mjs' },
    { entry: 'handler.mjs:default' },
    { buildEnv: { A: '1' } },
    { stream: true },
    { allowScripts: true },
    { source: { files: { ...files, 'more.txt': '' } } },
  ];
  for (const [i, change] of changes.entries()) {
    const { version } = await put('parts', { ...first, ...change });
    assert.equal(version, i + 2, JSON.stringify(change));
  }
});

test('settings change at once and make no version', async () => {
  const code = `let calls = 0, most = 0, release = [];
export default async request => {
  if (request.url.endsWith('/most')) return Response.json(most);
  if (request.url.endsWith('/go')) { for (const go of release.splice(0)) go(); return new Response(); }
  most = Math.max(most, ++calls);
  await new Promise(resolve => release.push(resolve));
  calls--;
  return new Response('done');
};`;
  const definition = javascript(code, { instances: { max: 1 }, concurrency: 2 });
  await put('settings', definition);
  const held = async (count: number) => {
    const calls = Array.from({ length: count }, () => call('/function/settings/held'));
    await waitFor(
      async () => (await client.getFunction('settings')).running!.waiting > 0 || count < 2,
    );
    return calls;
  };
  const first = await held(3);
  assert.deepEqual((await client.getFunction('settings')).running!.waiting, 1);
  const more = { labels: { a: 'b' }, description: 'told', concurrency: 5, project: 'shop' };
  const { outcome, version, function: view } = await put('settings', { ...definition, ...more });
  assert.deepEqual([outcome, version, view.activeVersion], ['updated', undefined, 1]);
  assert.deepEqual([view.labels, view.description], [{ a: 'b' }, 'told']);
  assert.deepEqual([view.concurrency, view.project], [5, 'shop']);
  // Three fit now: the one that waited runs, and there is room to ask.
  await waitFor(async () => (await textOf('/function/settings/most')) === '3');
  await call('/function/settings/go');
  for (const response of await Promise.all(first)) assert.equal(await response.text(), 'done');
  // What is not said goes back to its default.
  const { function: plain } = await put('settings', definition);
  assert.deepEqual([plain.labels, plain.description, plain.project], [{}, '', undefined]);
  assert.deepEqual(await versionsOf('settings'), ['1 ready']);
});

test('a failed build keeps the old version answering, with its log on the new one', async () => {
  await put('kept', says('old'));
  const files = { 'handler.ts': 'export default () => {\n  return new Response(;\n};' };
  const broken: FunctionDefinition = { runtime: 'node', source: { files }, auth: 'none' };
  const result = await client.putFunction('kept', broken, { wait: '30s' });
  assert.deepEqual([result.outcome, result.version], ['updated', 2]);
  const { state, activeVersion, latestVersion } = result.function;
  assert.deepEqual([state, activeVersion, latestVersion.number], ['failed', 1, 2]);
  assert.deepEqual([latestVersion.failure?.file, latestVersion.failure?.line], ['handler.ts', 2]);
  assert.equal(await textOf('/function/kept'), 'old');
  const response = await send('GET', `${base}/kept/versions/2`);
  const version = (await response.json()) as VersionView;
  assert.equal(version.state, 'failed');
  assert.ok(version.settledAt);
  assert.equal(typeof version.buildLog, 'string');
  const pinned = await control('/function/kept@2');
  await problemOf(pinned, { status: 503, code: 'VERSION_NOT_READY' });
  // The same again is another try, not "unchanged".
  const retried = await client.putFunction('kept', broken, { wait: '30s' });
  assert.deepEqual([retried.outcome, retried.version], ['updated', 3]);
  await put('kept', says('new'));
  assert.equal(await textOf('/function/kept'), 'new');
  assert.deepEqual(await versionsOf('kept'), ['4 ready', '3 failed', '2 failed', '1 ready']);
});

test('a function whose first build fails answers 503 until one succeeds', async () => {
  const broken = javascript('export default (', { auth: 'none' });
  const { function: view } = await client.putFunction('late', broken, { wait: '30s' });
  assert.deepEqual([view.state, view.activeVersion], ['failed', undefined]);
  const response = await call('/function/late');
  assert.ok(Number(response.headers.get('retry-after')) >= 1);
  await problemOf(response, { status: 503, code: 'VERSION_NOT_READY' });
  await put('late', says('late'));
  assert.equal(await textOf('/function/late'), 'late');
});

test('versions are listed newest first and found by number', async () => {
  for (const text of ['one', 'two', 'three']) await put('listed', says(text));
  const { items, next } = await client.listVersions('listed');
  assert.deepEqual(
    items.map(item => item.number),
    [3, 2, 1],
  );
  assert.equal(next, undefined);
  assert.ok(items.every(item => item.buildLog === undefined));
  assert.equal((await client.getVersion('listed', 2)).number, 2);
  const missing = { status: 404, code: 'VERSION_NOT_FOUND' } as const;
  await problemOf(await send('GET', `${base}/listed/versions/4`), missing);
  for (const number of ['0', '-1', 'x', '1.5', '9'.repeat(20)]) {
    const response = await send('GET', `${base}/listed/versions/${number}`);
    assert.ok([400, 404].includes(response.status), number);
    await response.body?.cancel();
  }
});

test('a call may pin any ready version', async () => {
  for (const text of ['one', 'two', 'three']) await put('pinned', says(text));
  assert.equal(await textOf('/function/pinned'), 'three');
  const texts = ['one', 'two', 'three'];
  for (const [i, text] of texts.entries()) {
    assert.equal(await textOf(`/function/pinned@${i + 1}/path?q`), text);
    assert.equal(await textOf(`/function/pinned.default@${i + 1}`), text);
  }
  const missing = { status: 404, code: 'VERSION_NOT_FOUND' } as const;
  for (const number of ['4', '0', '01', 'x', '', '1.0', '-1', '1e0', '99999999999'])
    await problemOf(await call(`/function/pinned@${number}`), missing, number);
});

test('a removed function is gone with its versions, files and calls', async () => {
  const { function: view } = await put('gone', says('gone'));
  assert.ok(existsSync(join(gateway.data, 'code', view.id)));
  const response = await send('DELETE', `${base}/gone`);
  assert.equal(response.status, 204);
  assert.equal(await response.text(), '');
  const missing = { status: 404, code: 'FUNCTION_NOT_FOUND' } as const;
  for (const path of ['', '/versions', '/versions/1', '/token', '/logs'])
    await problemOf(await send('GET', `${base}/gone${path}`), missing, path);
  await problemOf(await send('DELETE', `${base}/gone`), missing);
  await problemOf(await control('/function/gone'), missing);
  await problemOf(await control('/function/gone@1'), missing);
  assert.ok(!existsSync(join(gateway.data, 'code', view.id)));
  // Another of the same name starts over.
  const { version, function: again } = await put('gone', says('again'));
  assert.equal(version, 1);
  assert.notEqual(again.id, view.id);
  assert.equal(await textOf('/function/gone'), 'again');
});

test('a function that is removed while it is built leaves nothing behind', async () => {
  const { function: view } = await client.putFunction('short', says('short'));
  await client.removeFunction('short');
  await put('short', says('long'));
  assert.equal(await textOf('/function/short'), 'long');
  assert.deepEqual(await versionsOf('short'), ['1 ready']);
  const files = join(gateway.data, 'code', view.id);
  await waitFor(() => !existsSync(files), { what: 'the end of its files', timeoutMs: 3000 });
});

test('a put answers before the build unless it is asked to wait', async () => {
  const slow = javascript(
    'await new Promise(resolve => setTimeout(resolve, 700));\nexport default () => new Response("x");',
  );
  const at = await client.putFunction('waits', slow);
  assert.deepEqual([at.function.state, at.version], ['building', 1]);
  const soon = await client.getVersion('waits', 1, { wait: '10ms' });
  assert.equal(soon.state, 'building', 'the time was up');
  assert.equal((await client.getVersion('waits', 1, { wait: '30s' })).state, 'ready');
  // An identical put waits for the build that is under way.
  const changed = { ...slow, env: { A: '1' } };
  await client.putFunction('waits', changed);
  const same = await client.putFunction('waits', changed, { wait: '30s' });
  assert.deepEqual([same.outcome, same.function.state], ['unchanged', 'ready']);
  for (const wait of ['11m', '-1s', 'x', '5', '1d']) {
    const response = await send('PUT', `${base}/waits?wait=${wait}`, slow);
    await problemOf(response, { status: 400, code: 'QUERY_INVALID' }, wait);
  }
});
