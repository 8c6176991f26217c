/**
 * Goal: scripts, inline or as source of the shell runtime, get a call as CGI programs do and answer with what they
 * print; their failures are told apart. Method: small scripts for several interpreters on a whole gateway.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { problemOf, startTestGateway, waitFor } from '../../src/testing/index.ts';

const gateway = await startTestGateway({
  shared: true,
  settings: { bufferedBodyBytesMax: '64Ki' },
});
const { call, put, client } = gateway;
const textOf = async (path: string, init: RequestInit = {}) => (await call(path, init)).text();

async function failed(path: string, init: RequestInit = {}) {
  const response = await call(path, init);
  assert.equal(response.headers.get('x-fnway-failure'), 'exit', path);
  return problemOf(response, { status: 502, code: 'FUNCTION_FAILED' }, path);
}

test('the body is on standard input, to the byte', async () => {
  await put('cat', { script: 'cat' });
  const all = Uint8Array.from({ length: 32_768 }, (_, i) => i & 255);
  const response = await call('/function/cat', { method: 'POST', body: all });
  assert.ok(Buffer.from(await response.arrayBuffer()).equals(all));
  assert.equal(await textOf('/function/cat'), '', 'no body is an empty one');
});

test('a script that does not read its input answers nevertheless', async () => {
  await put('deaf', { script: 'exec <&-; printf done' });
  for (let i = 0; i < 5; i++)
    assert.equal(
      await textOf('/function/deaf', { method: 'POST', body: 'x'.repeat(65_000) }),
      'done',
    );
});

test('the call is in the environment as in CGI', async () => {
  await put('cgi', {
    script: `printf '%s|' "$REQUEST_METHOD" "$PATH_INFO" "$QUERY_STRING" "$CONTENT_TYPE" \\
  "$HTTP_X_TAG" "$HTTP_X_CALL_ID" "$HTTP_HOST" "$FNWAY_FUNCTION" "$FNWAY_NAMESPACE" "$FNWAY_VERSION"`,
  });
  const response = await call('/function/cgi/a%20b?x=1&y=%20', {
    method: 'PUT',
    headers: { 'content-type': 'text/x', 'x-tag': 'tag; $(id) `id`', 'x-call-id': 'mine' },
    body: 'b',
  });
  const host = `127.0.0.1:${gateway.port}`;
  const expected = ['PUT', '/a%20b', 'x=1&y=%20', 'text/x', 'tag; $(id) `id`', 'mine', host];
  assert.equal(await response.text(), `${[...expected, 'cgi', 'default', '1'].join('|')}|`);
});

test('a client cannot set variables by headers, nor a proxy for the script', async () => {
  await put('env', { script: 'env', env: { PATH_MINE: 'own' } });
  const text = await textOf('/function/env', {
    headers: {
      proxy: 'http://evil',
      path: '/evil',
      'ld-preload': '/evil.so',
      'x-y': 'fine',
      authorization: 'Bearer foreign',
    },
  });
  const variables = new Map(text.split('\n').map(line => line.split('=', 2) as [string, string]));
  assert.equal(variables.get('HTTP_PROXY'), undefined, 'httpoxy');
  assert.equal(variables.get('http_proxy'), undefined);
  assert.ok(!variables.get('PATH')!.includes('evil'));
  assert.equal(variables.get('LD_PRELOAD'), undefined);
  assert.deepEqual([variables.get('HTTP_X_Y'), variables.get('PATH_MINE')], ['fine', 'own']);
});

test('an exit status other than 0 is a failure with the last lines of output', async () => {
  await put('exits', { script: 'echo told; echo why >&2; exit "$(cat)"' });
  for (const status of ['1', '3', '127', '255']) {
    const problem = await failed('/function/exits', { method: 'POST', body: status });
    assert.match(problem.detail, new RegExp(`\\b${status}\\b`));
    assert.deepEqual(problem.log, ['why']);
  }
  assert.equal(await textOf('/function/exits', { method: 'POST', body: '0' }), 'told\n');
});

test('a script that is killed or runs what does not exist fails and says so', async () => {
  await put('killed', { script: 'kill -9 $$' });
  const response = await call('/function/killed');
  assert.ok(['exit', 'crashed'].includes(response.headers.get('x-fnway-failure')!));
  const killed = await problemOf(response, { status: 502, code: 'FUNCTION_FAILED' });
  assert.match(killed.detail, /SIGKILL|137/);
  await put('unknown', { script: 'no-such-program' });
  const unknown = await failed('/function/unknown');
  assert.match(unknown.log?.join('\n') ?? '', /no-such-program/);
});

test('standard error goes to the log and not into the answer', async () => {
  await put('loud', { script: 'echo answer; echo logged >&2' });
  assert.equal(await textOf('/function/loud'), 'answer\n');
  const lines = await waitFor(async () => {
    const all = await client.readLogs('loud');
    return all.length > 0 && all;
  });
  assert.deepEqual(
    lines.map(({ stream, text }) => [stream, text]),
    [['stderr', 'logged']],
  );
});

test('an answer over the limit fails unless it is streamed', async () => {
  const script = 'head -c 100000 /dev/zero';
  await put('long', { script });
  const response = await call('/function/long');
  assert.ok(response.status >= 500 || response.status === 413, String(response.status));
  assert.match(response.headers.get('content-type')!, /problem/);
  await response.body?.cancel();
  await put('long', { script, stream: true });
  assert.equal((await (await call('/function/long')).arrayBuffer()).byteLength, 100_000);
});

test('with stream: true output is sent as it comes, and a late failure breaks it off', async () => {
  await put('streams', {
    script: 'printf first; read -r line; printf "%s" "$line"; exit "$line"',
    stream: true,
  });
  assert.equal(await textOf('/function/streams', { method: 'POST', body: '0\n' }), 'first0');
  await put('ticks', { script: 'printf first; sleep 1; printf second', stream: true });
  const startMs = performance.now();
  const response = await call('/function/ticks');
  const reader = response.body!.getReader();
  const { value } = await reader.read();
  assert.equal(Buffer.from(value!).toString(), 'first');
  assert.ok(performance.now() - startMs < 900, 'not held back until the end');
  await reader.cancel();
  await put('breaks', { script: 'printf first; sleep 0.1; exit 3', stream: true });
  const broken = await call('/function/breaks');
  assert.equal(broken.status, 200);
  await assert.rejects(broken.text());
});

test('the interpreter line is honoured, and sh is taken without one', async () => {
  const scripts: Record<string, string> = {
    none: '[ -z "$BASH_VERSION" ] && printf yes',
    sh: '#!/bin/sh\nprintf yes',
    bash: '#!/usr/bin/env bash\n[[ -n $BASH_VERSION ]] && printf yes',
    'bash-e': '#!/bin/bash -e\n[[ $- == *e* ]] && printf yes',
    python: '#!/usr/bin/env python3\nimport sys\nsys.stdout.write("yes")',
    awk: '#!/usr/bin/awk -f\nBEGIN { printf "yes" }',
  };
  for (const [name, script] of Object.entries(scripts)) {
    await put(`by-${name}`, { script });
    assert.equal(await textOf(`/function/by-${name}`), 'yes', name);
  }
});

test('a source of the shell runtime has its files beside it', async () => {
  const files = {
    'handler.sh': '#!/bin/sh\n. ./lib/words.sh\nword; cat data.txt; ./tool.py',
    'lib/words.sh': 'word() { printf "word "; }',
    'data.txt': 'data ',
    'tool.py': '#!/usr/bin/env python3\nprint("tool", end="")',
  };
  await put('files', { runtime: 'shell', source: { files } });
  assert.equal(await textOf('/function/files'), 'word data tool');
  await put('files-2', { runtime: 'shell', source: { files }, entry: 'tool.py' });
  assert.equal(await textOf('/function/files-2'), 'tool');
});

test('a script with a syntax error never replaces one that works', async () => {
  await put('kept', { script: 'printf old' });
  for (const script of ['if true; then', '#!/bin/bash\ncase x in', '#!/usr/bin/env gone\n', '"']) {
    const result = await client.putFunction('kept', { script, auth: 'none' }, { wait: '30s' });
    assert.equal(result.function.state, 'failed', script);
    const { failure } = result.function.latestVersion;
    assert.equal(failure?.file, 'script.sh', JSON.stringify(failure));
    assert.ok(failure.line! >= 1);
  }
  assert.equal(await textOf('/function/kept'), 'old');
});

test('what a script leaves running ends with its call', async () => {
  await put('daemon', { script: 'sleep 30 >/dev/null 2>&1 & printf %s $!' });
  const pid = Number(await textOf('/function/daemon'));
  assert.ok(pid > 1);
  await waitFor(() => !gateway.processes().includes(pid), { what: 'the end of what it left' });
});

test('ten scripts at once do not see each other', async () => {
  await put('apart', { script: 'cat; sleep 0.1; printf %s "$PATH_INFO"' });
  const texts = await Promise.all(
    Array.from({ length: 30 }, (_, i) =>
      textOf(`/function/apart/${i}`, { method: 'POST', body: `${i} ` }),
    ),
  );
  assert.deepEqual(
    texts,
    Array.from({ length: 30 }, (_, i) => `${i} /${i}`),
  );
});
