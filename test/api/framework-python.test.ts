/**
 * Goal: a directory written for Cloud Functions answers as it does there, without a change. Method: the real
 * functions-framework serves the same directory beside the gateway, and every request goes to both; what a handler is
 * given is seen by handlers that answer with it.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { startTestGateway } from '../../src/testing/index.ts';
import { createFixture } from './framework-fixture.ts';

const gateway = await startTestGateway({ shared: true, env: { PATH: process.env.PATH! } });
const { call } = gateway;
const { deploy, startOracle } = createFixture(gateway);

const main = `import base64, json
import flask
import functions_framework
import functions_framework.aio
import starlette.exceptions
from lib.shown import show


@functions_framework.http
def web(request):
    from .lib import web
    return web.answer(request)


@functions_framework.aio.http
async def later(request):
    from .lib import later
    return await later.answer(request)


@functions_framework.aio.cloud_event
async def cloud_later(event):
    if event["id"] == "fails":
        raise ValueError("as told")
    raise starlette.exceptions.HTTPException(299, json.dumps(
        {"attributes": dict(event.get_attributes()), "data": event.data}))


@functions_framework.cloud_event
def cloud(event):
    if event["id"] == "fails":
        raise ValueError("as told")
    show({"attributes": dict(event.get_attributes()), "data": event.data})


def background(data, context):
    if context.event_id == "fails":
        raise ValueError("as told")
    if isinstance(data, bytes):
        data = data.decode()
    show({"data": data, "id": context.event_id, "time": context.timestamp,
          "type": context.event_type, "resource": context.resource, "all": str(context)})


class Order:
    def __init__(self, count):
        self.count = count

    @staticmethod
    def from_dict(given):
        return Order(given["count"])

    def to_dict(self):
        return {"count": self.count}


@functions_framework.typed(Order)
def order(given):
    if given.count == 0:
        return None
    if given.count < 0:
        raise ValueError("as told")
    return "many" if given.count > 9 else Order(given.count + 1)
`;

const files = {
  'main.py': main,
  'requirements.txt': 'functions-framework>=3\n',
  'lib/__init__.py': '',
  'lib/shown.py': `import flask
def show(what):
    """Answers with what the handler was given, in place of the OK that events get."""
    flask.abort(flask.make_response(flask.jsonify(what), 299))
`,
  'lib/later.py': `import asyncio
from starlette.responses import Response, StreamingResponse

async def echo(request):
    return {
        "method": request.method, "path": request.url.path, "query": request.url.query,
        "args": request.query_params.multi_items(), "body": (await request.body()).decode("latin-1"),
        "given": request.headers.getlist("x-given"), "scheme": request.url.scheme,
        "cookies": request.cookies,
    }

async def stream():
    for piece in ("one ", "two ", "three"):
        await asyncio.sleep(0)
        yield piece

def cookies():
    response = Response("set", 201)
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    return response

ANSWERS = {
    "/text": lambda: "täxt", "/dict": lambda: {"a": 1}, "/status": lambda: ("teapot", 418),
    "/none": lambda: None, "/raise": lambda: 1 / 0, "/cookies": cookies,
    "/empty": lambda: Response(status_code=204), "/stream": lambda: StreamingResponse(stream()),
}

async def answer(request):
    answer = ANSWERS.get(request.url.path)
    return answer() if answer else await echo(request)
`,
  'lib/web.py': `import base64
import flask

def echo(request):
    return {
        "method": request.method, "path": request.path, "full": request.full_path,
        "args": {k: request.args.getlist(k) for k in request.args},
        "form": request.form.to_dict(), "files": {k: f.read().decode() for k, f in request.files.items()},
        "body": base64.b64encode(request.get_data()).decode(),
        "json": request.get_json(silent=True), "type": request.content_type,
        "length": request.content_length, "query": request.query_string.decode("latin-1"),
        "cookies": request.cookies, "scheme": request.scheme, "root": request.root_path,
        "given": request.headers.getlist("X-Given"), "script": request.environ["SCRIPT_NAME"],
        "id": len(request.headers["Function-Execution-Id"]), "multi": request.headers.get("X-Multi"),
    }

def stream():
    yield "one "
    yield b"two "
    yield "three"

def broken():
    yield "one "
    raise ValueError("as told")

def cookies():
    response = flask.make_response("set", 201)
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    return response

ANSWERS = {
    "/text": lambda request: "täxt",
    "/bytes": lambda request: b"\\x00\\xff",
    "/status": lambda request: ("teapot", 418),
    "/headers": lambda request: ("h", 200, {"X-A": "1", "Content-Type": "text/x"}),
    "/pairs": lambda request: ("h", [("X-A", "1"), ("X-A", "2")]),
    "/dict": lambda request: {"a": [1, None, "ä"]},
    "/list": lambda request: [1, 2],
    "/none": lambda request: None,
    "/number": lambda request: 7,
    "/empty": lambda request: "",
    "/no-content": lambda request: ("", 204),
    "/not-modified": lambda request: ("", 304),
    "/redirect": lambda request: flask.redirect("/elsewhere"),
    "/abort": lambda request: flask.abort(403, description="not you"),
    "/raise": lambda request: 1 / 0,
    "/json": lambda request: flask.jsonify(request.get_json()),
    "/stream": lambda request: flask.Response(stream(), mimetype="text/plain"),
    "/cookies": lambda request: cookies(),
    "/url": lambda request: request.base_url.partition("://")[2].partition("/")[2],
}

def answer(request):
    return ANSWERS.get(request.path, echo)(request)
`,
};

/** What the two servers are by themselves: the date, how they frame bodies, what the gateway adds to every answer. */
const serversOwn =
  /^(?:date|server|connection|keep-alive|transfer-encoding|x-call-id|traceparent|x-content-type-options|content-security-policy)$/;

async function seen(response: Response) {
  const headers = [...response.headers]
    .filter(([name]) => !serversOwn.test(name))
    // A set, in the order of this process.
    .map(([name, value]) => [name, name === 'allow' ? value.split(', ').sort().join() : value]);
  let body = Buffer.from(await response.arrayBuffer()).toString('latin1');
  // A refused event's answer shows the headers as they came, the addresses among them.
  const shown = /Got HTTP headers: [\s\S]*?Got data/.exec(body);
  if (shown !== null) {
    body = body.replace(shown[0], '');
    headers.splice(headers.findIndex(isLength), 1);
  }
  return { status: response.status, headers, body };
}

const isLength = ([name]: string[]) => name === 'content-length';

type Request = [path: string, init?: RequestInit, status?: number];

/** Sends each request to both; gives what both answered. */
async function same(name: string, oracle: string, requests: readonly Request[]) {
  const answers = [];
  for (const [path, init = {}, status] of requests) {
    const options = { redirect: 'manual', ...init } as const;
    const [ours, theirs] = await Promise.all([
      call(`/function/${name}${path}`, options).then(seen),
      fetch(`${oracle}${path}`, options).then(seen),
    ]);
    // An application that tells no length is sent in chunks there; here it is counted when it comes whole.
    if (!theirs.headers.some(isLength)) ours.headers = ours.headers.filter(one => !isLength(one));
    assert.deepEqual(ours, theirs, `${options.method ?? 'GET'} ${path} ${String(options.body)}`);
    if (status !== undefined) assert.equal(ours.status, status, path);
    answers.push(ours);
  }
  return answers;
}

const json = (body: unknown, headers = {}): RequestInit => ({
  method: 'POST',
  headers: { 'content-type': 'application/json', ...headers },
  body: typeof body === 'string' ? body : JSON.stringify(body),
});

describe('the same answer as the real framework', { timeout: 240_000 }, () => {
  test('of an http function', async () => {
    const [oracle] = await Promise.all([
      startOracle(files, { target: 'web' }),
      deploy('web', { source: { files }, entry: 'main.py:web' }),
    ]);
    const form = new URLSearchParams({ a: '1', b: 'ü' });
    const answers = await same('web', oracle, [
      ['/', {}, 200],
      ['/a%2Fb/%C3%BC/?x=1&x=2&y=%20+&z', { headers: { 'x-given': 'é', cookie: 'a=1; b=2' } }, 200],
      ['/p', { method: 'PUT', body: Buffer.from([0, 255, 10]) }, 200],
      ['/p', { method: 'POST', body: form }, 200],
      ['/p', json({ a: 1 }), 200],
      ['/p', json('{broken'), 200],
      ['/p', { method: 'DELETE' }, 200],
      ['/p', { method: 'OPTIONS' }, 200],
      ['/p', { method: 'PATCH', body: '' }, 200],
      ['/text', { method: 'HEAD' }, 200],
      ['/stream', { method: 'HEAD' }, 200],
      ['/text', {}, 200],
      ['/bytes', {}, 200],
      ['/status', {}, 418],
      ['/headers', {}, 200],
      ['/pairs', {}, 200],
      ['/dict', {}, 200],
      ['/list', {}, 200],
      ['/none', {}, 500],
      ['/number', {}, 500],
      ['/empty', {}, 200],
      ['/no-content', {}, 204],
      ['/not-modified', {}, 304],
      ['/redirect', {}, 302],
      ['/abort', {}, 403],
      ['/raise', {}, 500],
      ['/json', json({ a: 1 }), 200],
      ['/json', json('{broken'), 400],
      ['/json', { method: 'POST', body: '{}' }, 415],
      ['/stream', {}, 200],
      ['/cookies', {}, 201],
      ['/robots.txt', {}, 404],
      ['/favicon.ico', { method: 'POST' }, 404],
    ]);
    const crashed = answers.filter(({ status }) => status === 500);
    for (const { headers } of crashed)
      assert.deepEqual(headers.find(([name]) => name === 'x-google-status')?.[1], 'crash');
  });

  const pushed = {
    message: {
      data: Buffer.from('{}').toString('base64'),
      attributes: { kind: 'new' },
      messageId: '7',
      publishTime: '2026-01-01T00:00:00.000Z',
    },
    subscription: 'projects/p/subscriptions/s',
  };
  const legacy = {
    context: {
      eventId: 'e1',
      timestamp: '2026-01-01T00:00:00.000Z',
      eventType: 'google.storage.object.finalize',
      resource: {
        service: 'storage.googleapis.com',
        name: 'projects/_/buckets/b/objects/dir/a.txt',
        type: 'storage#object',
      },
    },
    data: { bucket: 'b', name: 'dir/a.txt', kind: 'storage#object' },
  };
  const attributes = {
    'ce-specversion': '1.0',
    'ce-id': 'c1',
    'ce-time': '2026-01-01T00:00:00Z',
  };
  const ofStorage = {
    ...attributes,
    'ce-type': 'google.cloud.storage.object.v1.finalized',
    'ce-source': '//storage.googleapis.com/projects/_/buckets/b',
    'ce-subject': 'objects/dir/a.txt',
  };
  const ofTopic = {
    ...attributes,
    'ce-type': 'google.cloud.pubsub.topic.v1.messagePublished',
    'ce-source': '//pubsub.googleapis.com/projects/p/topics/t',
  };
  const custom = { ...attributes, 'ce-type': 'mine', 'ce-source': '/here', 'ce-more': 'yes' };
  const structured = {
    time: '2026-01-01T00:00:00Z',
    specversion: '1.0',
    id: 'c2',
    type: 'mine',
    source: '/here',
    data: { a: 1 },
  };
  const structuredType = { 'content-type': 'application/cloudevents+json' };
  const failing = { ...legacy, context: { ...legacy.context, eventId: 'fails' } };
  const events: Request[] = [
    ['/', json({ a: 1 }, custom)],
    ['/', json(legacy.data, ofStorage), 299],
    ['/', json({ message: pushed.message }, ofTopic), 299],
    ['/', json(structured, structuredType)],
    ['/', json(legacy), 299],
    ['/projects/p/topics/t', json(pushed), 299],
    ['/', json(pushed)],
    ['/', json(failing), 500],
    ['/', json({}, { ...custom, 'ce-id': 'fails' })],
    ['/', json({ a: 1 })],
    ['/', json('{broken')],
    ['/', json('')],
    ['/', { method: 'PUT', body: '{}' }, 405],
    ['/', {}],
    ['/deep', {}, 405],
  ];

  test('of a CloudEvent function, given CloudEvents and older events', async () => {
    const [oracle] = await Promise.all([
      startOracle(files, { target: 'cloud' }),
      deploy('cloud', { source: { files }, entry: 'main.py:cloud' }),
    ]);
    const answers = await same('cloud', oracle, events);
    const finalized = JSON.parse(answers[4]!.body).attributes;
    assert.equal(finalized.type, 'google.cloud.storage.object.v1.finalized');
    assert.equal(answers.at(-1)!.status, 405);
  });

  test('of a background function, given older events and CloudEvents', async () => {
    const [oracle] = await Promise.all([
      startOracle(files, { target: 'background', signature: 'event' }),
      deploy('background', {
        source: { files },
        entry: 'main.py:background',
        signature: 'event',
      }),
    ]);
    const answers = await same('background', oracle, events);
    const finalized = JSON.parse(answers[1]!.body);
    assert.deepEqual(
      [finalized.type, finalized.id],
      ['google.storage.object.finalize', 'c1'],
      'converted',
    );
  });

  test('of a typed function', async () => {
    const [oracle] = await Promise.all([
      startOracle(files, { target: 'order' }),
      deploy('order', { source: { files }, entry: 'main.py:order' }),
    ]);
    await same('order', oracle, [
      ['/', json({ count: 1 }), 200],
      ['/', json({ count: 0 }), 200],
      ['/', json({ count: 10 }), 200],
      ['/', json({ count: -1 }), 500],
      ['/', json({}), 500],
      ['/', json('{broken')],
      ['/', {}, 405],
    ]);
  });

  test('of functions registered by aio', async () => {
    const [http, cloud] = await Promise.all([
      startOracle(files, { target: 'later' }),
      startOracle(files, { target: 'cloud_later' }),
      deploy('later', { source: { files }, entry: 'main.py:later' }),
      deploy('cloud-later', { source: { files }, entry: 'main.py:cloud_later' }),
    ]);
    await same('later', http, [
      ['/', {}, 200],
      ['/a%2Fb/%C3%BC/?x=1&x=2&y=%20+&z', { headers: { 'x-given': 'é', cookie: 'a=1; b=2' } }, 200],
      ['/p', { method: 'PUT', body: Buffer.from([0, 255, 10]) }, 200],
      ['/p', { method: 'OPTIONS' }, 200],
      ['/text', { method: 'HEAD' }, 200],
      ['/text', {}, 200],
      ['/dict', {}, 200],
      ['/status', {}, 418],
      ['/none', {}, 500],
      ['/raise', {}, 500],
      ['/cookies', {}, 201],
      ['/empty', {}, 204],
      ['/stream', {}, 200],
      ['/robots.txt', {}, 404],
    ]);
    await same('cloud-later', cloud, [
      ['/', json({ a: 1 }, custom), 299],
      ['/', json(structured, structuredType), 299],
      ['/', json({}, { ...custom, 'ce-id': 'fails' }), 500],
      ['/', json({ a: 1 }), 400],
      ['/', {}, 405],
    ]);
  });
});
