/**
 * Goal: functions written for the `python3` template of KubeDiag, and of OpenFaaS before it, run as they are. Method:
 * their files, deployed inline under the names of the runtime that were in use; every form of answer that they know.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startTestGateway } from '../../src/testing/index.ts';

const gateway = await startTestGateway({ shared: true });
const { call, put, client } = gateway;

const files = {
  'handler.py': `from .hello import hello
def handle(event, context):
    return hello(event, context)
`,
  'hello.py': `import json
def hello(event, context):
    answers = {
        "/none": None,
        "/status": {"statusCode": 418},
        "/text": {"body": "text"},
        "/json": {"statusCode": 201, "body": {"a": "1"}},
        "/dict": {"body": "", "headers": {"x-a": "1", "X-B": "2"}},
        "/pairs": {"body": "", "headers": [("x-a", "1"), ["x-a", "2"]]},
        "/fail": {"statusCode": 500, "body": "no"},
    }
    if event.path in answers:
        return answers[event.path]
    return {"statusCode": 200, "body": {
        "type": type(event.body).__name__, "body": event.body.decode(),
        "parsed": json.loads(event.body) if event.body else None,
        "method": event.method, "path": event.path,
        "query": [event.query["a"], event.query.getlist("a"), event.query.get("none")],
        "header": [event.headers["X-Given"], event.headers.get("x-given")],
        "hostname": context.hostname,
    }}
`,
};

test('a function of the python3 template sees its request', async () => {
  await put('seed', { runtime: 'python3', source: { files }, env: { HOSTNAME: 'node-1' } });
  assert.equal((await client.getFunction('seed')).latestVersion.runtime, 'python');
  for (const method of ['GET', 'PUT', 'POST', 'PATCH', 'DELETE']) {
    const body = method === 'GET' ? {} : { body: '{"node": "n1"}' };
    const headers = { 'x-given': 'yes' };
    const answer = await call('/function/seed/deep/p%20q?a=1&a=2', { method, headers, ...body });
    assert.equal(answer.headers.get('content-type'), 'application/json');
    assert.deepEqual(await answer.json(), {
      type: 'bytes',
      body: body.body ?? '',
      parsed: body.body === undefined ? null : { node: 'n1' },
      method,
      path: '/deep/p q',
      query: ['1', ['1', '2'], null],
      header: ['yes', 'yes'],
      hostname: 'node-1',
    });
  }
});

test('each form of answer of the python3 template is sent', async () => {
  const wanted: Array<[path: string, status: number, body: string, a?: string]> = [
    ['/none', 200, ''],
    ['/status', 418, ''],
    ['/text', 200, 'text'],
    ['/json', 201, '{"a":"1"}'],
    ['/dict', 200, '', '1'],
    ['/pairs', 200, '', '1, 2'],
    ['/fail', 500, 'no'],
  ];
  for (const [path, status, body, a] of wanted) {
    const answer = await call(`/function/seed${path}`);
    assert.deepEqual(
      [answer.status, await answer.text(), answer.headers.get('x-a') ?? undefined],
      [status, body, a],
      path,
    );
  }
});

test('the same function under another name of its runtime is the same version', async () => {
  for (const runtime of ['Python3', 'python']) {
    const definition = { runtime, source: { files }, env: { HOSTNAME: 'node-1' } };
    assert.equal((await put('seed', definition)).outcome, 'unchanged', runtime);
  }
  await assert.rejects(client.putFunction('other', { runtime: 'Pyton3', source: { files } }), {
    code: 'RUNTIME_NOT_FOUND',
  });
});

test('a sibling file that is missing fails the version with its name', async () => {
  const { 'hello.py': _, ...alone } = files;
  const definition = { runtime: 'python3', source: { files: alone } };
  const result = await client.putFunction('lacks', definition, { wait: '30s' });
  const { failure } = result.function.latestVersion;
  assert.equal(failure?.code, 'LOAD_FAILED');
  assert.match(failure.message, /hello/);
  assert.deepEqual([failure.file, failure.line], ['handler.py', 1]);
});
