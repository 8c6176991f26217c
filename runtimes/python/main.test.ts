/**
 * Goal: the python runtime keeps the link's protocol and the handler contract.
 *
 * Method: the test is the gateway's end. It listens on a Unix socket, starts the real main.py with
 * the machine's python3 (or FNWAY_TEST_PYTHON), forks instances, and reads and writes frames with
 * the small helper at the end of this file, which shares no code with src/link. Handlers that must
 * wait do so on an event another call sets, so nothing here depends on time.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';

const python = process.env.FNWAY_TEST_PYTHON ?? 'python3';
const mainProgram = join(import.meta.dirname, 'main.py');
const isRoot = process.getuid?.() === 0;
const windowBytes = 262_144;
const payloadBytesMax = 65_536;
const [HELLO, LOAD, LOADED, LOAD_FAILED, CALL, REPLY, DATA] = [1, 2, 3, 4, 5, 6, 7];
const [CREDIT, CANCEL, FAIL, PING, PONG, STOP] = [8, 9, 10, 11, 12, 13];
const END = 1;

let gateway: Gateway;
before(async () => {
  gateway = await startGateway();
});
after(() => gateway.stop(), { timeout: 30_000 });

describe('fork server', { timeout: 30_000 }, () => {
  test('a secret makes a child that says HELLO and leads its own session', async () => {
    const [one, two] = [await gateway.fork(), await gateway.fork()];
    assert.notEqual(one.hello.pid, two.hello.pid);
    for (const instance of [one, two]) {
      const { pid, ...hello } = instance.hello;
      assert.deepEqual(hello, { protocol: 1, secret: instance.secret, runtime: 'python' });
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
      assert.deepEqual(stat.slice(2, 4), [String(pid), String(pid)], 'process group and session');
    }
    one.close();
    two.close();
  });

  test('secrets that arrive in one write make one child each', async () => {
    const instances = await gateway.forkMany(3);
    const secrets = new Set(instances.map(instance => instance.hello.secret));
    assert.equal(secrets.size, 3);
    for (const instance of instances) instance.close();
  });

  test('a child that has ended leaves no zombie', async () => {
    const instance = await gateway.fork();
    instance.send(STOP);
    await instance.closed;
    await poll(() => !existsSync(`/proc/${instance.hello.pid}`));
  });

  test('an idle child answers PING', async () => {
    const instance = await gateway.fork();
    instance.send(PING, { arg: 77 });
    assert.equal((await instance.next(PONG)).arg, 77);
    instance.close();
  });

  test('the server exits with status 0 when its standard input ends', async () => {
    const other = await startGateway();
    const exited = once(other.process, 'exit');
    other.process.stdin!.end();
    assert.deepEqual(await exited, [0, null]);
    await other.stop();
  });
});

describe('loading', { timeout: 30_000 }, () => {
  test('environment, directory, umask and standard input are the instance’s', async () => {
    const instance = await gateway.load(
      `import os, sys
def handle(event, context):
    mask = os.umask(0)
    os.umask(mask)
    return {"env": dict(os.environ), "cwd": os.getcwd(), "umask": mask,
            "stdin": os.readlink("/proc/self/fd/0"), "path": sys.path[0],
            "isolated": sys.flags.isolated}`,
      { env: { GREETING: 'Hi' } },
    );
    const reply = JSON.parse((await instance.call()).text);
    assert.deepEqual(reply.env, { FNWAY_GATEWAY: gateway.folder, GREETING: 'Hi' });
    assert.equal(reply.cwd, instance.directory);
    assert.equal(reply.path, instance.directory);
    assert.equal(reply.umask, 0o022);
    assert.equal(reply.stdin, '/dev/null');
    assert.equal(reply.isolated, 1);
    instance.close();
  });

  test('each stream of output goes to the log socket, a call’s lines marked', async () => {
    const instance = await gateway.load(
      `import sys
print("loaded")
def handle(event):
    print("called")
    sys.stderr.write("err\\n")`,
    );
    await instance.logHas('loaded\n');
    await instance.call();
    await Promise.all([instance.logHas('called\n'), instance.logHas('err\n')]);
    assert.deepEqual(
      [instance.stdout, instance.stderr],
      ['loaded\n\x1einv_1\x1fcalled\n', '\x1einv_1\x1ferr\n'],
    );
    instance.close();
  });

  const needsRoot = isRoot ? {} : { skip: 'only root may change identity' };
  test('the identity is taken before user code runs', needsRoot, async () => {
    const instance = await gateway.load(
      `import os
at_import = [*os.getresuid(), *os.getresgid(), *os.getgroups()]
def handle(event, context): return at_import`,
      { uid: 300001, gid: 300002 },
    );
    const ids = [300001, 300001, 300001, 300002, 300002, 300002];
    assert.deepEqual(JSON.parse((await instance.call()).text), ids);
    instance.close();
  });

  const needsSetpriv = isRoot && existsSync('/usr/bin/setpriv') ? {} : { skip: 'needs setpriv' };
  test('supplementary groups of the gateway are dropped', needsSetpriv, async () => {
    const direct = await gateway.direct({}, ['/usr/bin/setpriv', '--groups', '4,5']);
    const code = 'import os\ndef handle(event): return os.getgroups()';
    await direct.load({ 'handler.py': code }, { uid: 300001, gid: 300002 });
    assert.equal((await direct.call()).text, '[]');
    direct.close();
    await direct.exited;
  });

  test('a handler sees the exit status of a process it runs', async () => {
    const instance = await gateway.load(`import subprocess
def handle(event): return subprocess.run(["sh", "-c", "exit 3"]).returncode`);
    assert.equal((await instance.call()).text, '3');
    instance.close();
  });

  test('an identity that cannot be taken fails the load before user code runs', async () => {
    const instance = await gateway.fork();
    const problem = await instance.loadFails(
      { 'handler.py': 'print("ran")\ndef handle(e, c): pass' },
      { uid: 2 ** 33, gid: 2 ** 33 },
    );
    assert.equal(problem.reason, 'identity');
    assert.ok(!instance.log.includes('ran'));
    instance.close();
  });

  test('a LOAD split over DATA frames is put together', async () => {
    const instance = await gateway.fork();
    const code = 'import os\ndef handle(event, context): return str(len(os.environ["LONG"]))';
    const message = instance.prepare({ 'handler.py': code }, { env: { LONG: 'x'.repeat(90_000) } });
    const bytes = Buffer.from(JSON.stringify(message));
    instance.send(LOAD, { payload: bytes.subarray(0, 50_000) });
    instance.send(DATA, { payload: bytes.subarray(50_000, 60_000) });
    instance.send(DATA, { payload: bytes.subarray(60_000), flags: END });
    await instance.next(LOADED);
    assert.equal((await instance.call()).text, '90000');
    instance.close();
  });

  test('LOADED asks for whole bodies', async () => {
    const instance = await gateway.fork();
    const message = instance.prepare({ 'handler.py': 'def handle(e, c): pass' });
    instance.send(LOAD, { payload: Buffer.from(JSON.stringify(message)), flags: END });
    assert.deepEqual(JSON.parse((await instance.next(LOADED)).payload.toString()), {
      body: 'whole',
    });
    instance.close();
  });

  test('a PING during a long import and a CALL before LOADED are answered', async () => {
    const instance = await gateway.fork();
    const release = join(instance.directory, 'release');
    const code = `import os
print("importing")
while not os.path.exists("release"): pass
def handle(event, context): return "late"`;
    const message = instance.prepare({ 'handler.py': code });
    instance.send(LOAD, { payload: Buffer.from(JSON.stringify(message)), flags: END });
    await instance.logHas('importing');
    instance.send(PING, { arg: 5 });
    const reply = instance.call();
    assert.equal((await instance.next(PONG)).arg, 5);
    writeFileSync(release, '');
    await instance.next(LOADED);
    assert.equal((await reply).text, 'late');
    instance.close();
  });

  test('plain and relative imports of siblings and dependencies work', async () => {
    for (const folder of ['', 'pkg/']) {
      const instance = await gateway.fork();
      await instance.load(
        {
          [`${folder}handler.py`]: `from .hello import hello
import other, dep
def handle(event, context): return hello() + other.name + dep.name`,
          [`${folder}hello.py`]: 'def hello(): return "hello "',
          [`${folder}other.py`]:
            'import handler\nname = "other " + str("fnway" in handler.__name__)',
          '.fnway/python/dep.py': 'name = " dep"',
        },
        { entry: `${folder}handler.py` },
      );
      assert.equal((await instance.call()).text, 'hello other True dep');
      instance.close();
    }
  });

  test('KubeDiag’s example runs as it is', async () => {
    const instance = await gateway.fork();
    await instance.load({
      'hello.py': 'def hello(): pass',
      'handler.py': `from .hello import hello
import json
def handle(event, context):
    data = dict()
    if len(event.body) != 0:
        data = json.loads(event.body)
    result = dict()
    for key in data:
        result[key] = data[key]
    result["a"] = "1"
    json_object = json.dumps(result)
    return {"statusCode": 200, "body": json_object}`,
    });
    const reply = await instance.call({ body: '{"x":1}' });
    assert.deepEqual(JSON.parse(reply.text), { x: 1, a: '1' });
    instance.close();
  });

  const handlers: [string, string, string | undefined, string][] = [
    ['named by the definition', 'def go(e, c): return "go"\ndef handle(e, c): pass', 'go', 'go'],
    ['handler when there is no handle', 'def handler(e, c): return "h"', undefined, 'h'],
    ['main when there is neither', 'def main(e, c): return "m"', undefined, 'm'],
    ['of one parameter', 'def handle(event): return event.method', undefined, 'GET'],
    ['of no parameter', 'def handle(): return "none"', undefined, 'none'],
    ['of any parameters', 'def handle(*all): return str(len(all))', undefined, '2'],
    ['that is a method', 'class A:\n  def go(self, e): return "A"\na = A()', 'a.go', 'A'],
  ];
  for (const [what, code, handler, text] of handlers) {
    test(`a handler ${what} is found`, async () => {
      const instance = await gateway.load(code, { handler });
      assert.equal((await instance.call()).text, text);
      instance.close();
    });
  }

  const good = 'def handle(e, c): pass';
  const failures: [string, Record<string, string>, object, Record<string, unknown>][] = [
    [
      'a syntax error',
      { 'handler.py': 'x = 1\ndef handle(:\n  pass' },
      {},
      { reason: 'syntax', file: 'handler.py', line: 2, column: 12, type: 'SyntaxError' },
    ],
    [
      'a syntax error in a sibling',
      { 'handler.py': 'import lib', 'lib.py': '\n\n)' },
      {},
      { reason: 'syntax', file: 'lib.py', line: 3 },
    ],
    [
      'a missing module',
      { 'handler.py': `\nimport lib\n${good}`, 'lib.py': 'import no_such_thing' },
      {},
      { reason: 'module-missing', file: 'lib.py', line: 1, message: /no_such_thing/ },
    ],
    [
      'an exception',
      { 'handler.py': 'def f():\n  return {}["k"]\nf()' },
      {},
      { reason: 'threw', type: 'KeyError', file: 'handler.py', line: 2, stack: /in f\n/ },
    ],
    [
      'sys.exit',
      { 'handler.py': 'import sys\nsys.exit("bye")' },
      {},
      { reason: 'threw', type: 'SystemExit', message: 'bye', line: 2 },
    ],
    [
      'no entry',
      { 'app.py': good, 'lib/x.py': '' },
      {},
      { reason: 'entry-missing', message: /no handler\.py.*app\.py, lib\/x\.py/ },
    ],
    [
      'no handler',
      { 'handler.py': 'import json\ndef hello(): pass\ndef _own(): pass' },
      {},
      { reason: 'handler-missing', message: /handle, handler or main.*It has: hello\.$/ },
    ],
    [
      'no handler of the given name',
      { 'handler.py': good },
      { handler: 'go' },
      { reason: 'handler-missing', message: /no go\. It has: handle\.$/ },
    ],
    [
      'a handler that is not callable',
      { 'handler.py': 'handle = 3' },
      {},
      { reason: 'handler-missing', message: 'handle in handler.py is not callable.' },
    ],
    [
      'a handler of three parameters',
      { 'handler.py': 'def handle(a, b, c): pass' },
      {},
      { reason: 'handler-missing', message: /must take \(event, context\).*\(a, b, c\)/ },
    ],
    [
      'a handler with a required keyword',
      { 'handler.py': 'def handle(a, b, *, c): pass' },
      {},
      { reason: 'handler-missing', message: /\(a, b, \*, c\)/ },
    ],
  ];
  for (const [what, files, message, expected] of failures) {
    test(`${what} fails the load with where and why`, async () => {
      const instance = await gateway.fork();
      matches(await instance.loadFails(files, message), expected);
      instance.close();
    });
  }

  test('a process whose load failed still answers STOP', async () => {
    const instance = await gateway.fork();
    await instance.loadFails({ 'handler.py': ')' });
    instance.send(STOP);
    await instance.closed;
  });
});

describe('the request', { timeout: 30_000 }, () => {
  test('an event has body, headers, method, query and path', async () => {
    const instance = await gateway.load(`
def handle(event, context):
    h, q = event.headers, event.query
    return {"body": event.body.decode(), "text": event.text, "json": event.json(),
            "method": event.method, "path": event.path, "target": event.target,
            "host": h["HOST"], "get": h.get("Nope", "x"), "in": "hOsT" in h,
            "many": h.getlist("x-many"), "first": h["X-Many"], "names": list(h),
            "items": list(h.items()), "binary": h["x-binary"],
            "q": q["a"], "qs": q.getlist("a"), "empty": q.get("e"), "query": dict(q)}`);
    const reply = await instance.call({
      method: 'PUT',
      target: '/caf%C3%A9/x%20y?a=1&a=2&e=&s=%C3%A9+z',
      headers: ['Host', 'h', 'X-Many', '1', 'x-many', '2', 'X-Binary', '\xff'],
      body: '{"k":"é"}',
    });
    assert.deepEqual(JSON.parse(reply.text), {
      body: '{"k":"é"}',
      text: '{"k":"é"}',
      json: { k: 'é' },
      method: 'PUT',
      path: '/café/x y',
      target: '/caf%C3%A9/x%20y?a=1&a=2&e=&s=%C3%A9+z',
      host: 'h',
      get: 'x',
      in: true,
      many: ['1', '2'],
      first: '1',
      names: ['host', 'x-many', 'x-binary'],
      items: Object.entries({ host: 'h', 'x-many': '1', 'x-binary': 'ÿ' }),
      binary: 'ÿ',
      q: '1',
      qs: ['1', '2'],
      empty: '',
      query: { a: '1', e: '', s: 'é z' },
    });
    instance.close();
  });

  test('a context has the function’s names, the call’s id and the time left', async () => {
    const instance = await gateway.load(
      `def handle(event, c):
    return [c.hostname, c.function, c.namespace, c.version, c.call_id, c.remaining_ms(),
            c.cancelled]`,
      { env: { HOSTNAME: 'box' } },
    );
    const first = JSON.parse((await instance.call({ id: 'inv_7', timeoutMs: 60_000 })).text);
    const [remaining] = first.splice(5, 1);
    assert.deepEqual(first, ['box', 'hello', 'default', 3, 'inv_7', false]);
    assert.ok(remaining > 0 && remaining <= 60_000, `${remaining}`);
    assert.equal(JSON.parse((await instance.call({ timeoutMs: 0 })).text)[5], null);
    instance.close();
  });

  test('a body in many frames is collected, and credit given as it arrives', async () => {
    const instance = await gateway.load('def handle(event): return str(len(event.body))');
    const reply = instance.call({ body: 'x'.repeat(100), incomplete: true });
    const stream = instance.lastStream;
    let credit = windowBytes - 100;
    let sent = 100;
    while (sent < 1_000_000) {
      while (credit < payloadBytesMax) credit += (await instance.next(CREDIT, stream)).arg;
      instance.send(DATA, { stream, payload: Buffer.alloc(payloadBytesMax) });
      credit -= payloadBytesMax;
      sent += payloadBytesMax;
    }
    instance.send(DATA, { stream, flags: END });
    assert.equal((await reply).text, String(sent));
    instance.close();
  });

  test('a body over the limit fails the call and leaves the instance usable', async () => {
    const instance = await gateway.load('def handle(event): return str(len(event.body))', {
      bufferedBodyBytesMax: 1000,
    });
    for (const incomplete of [false, true]) {
      const { problem } = await instance.call({ body: 'x'.repeat(1001), incomplete });
      matches(problem!, { reason: 'body-too-large', message: /1000 bytes/ });
    }
    assert.equal((await instance.call({ body: 'x'.repeat(1000) })).text, '1000');
    instance.close();
  });
});

describe('the reply', { timeout: 60_000 }, () => {
  const text = 'text/plain; charset=utf-8';
  const forms: [string, number, string, string | undefined][] = [
    ['None', 200, '', undefined],
    ['"hé"', 200, 'hé', text],
    ['b"raw"', 200, 'raw', 'application/octet-stream'],
    ['bytearray(b"raw")', 200, 'raw', 'application/octet-stream'],
    ['{"a": [1, "é"]}', 200, '{"a":[1,"é"]}', 'application/json'],
    ['{}', 200, '{}', 'application/json'],
    ['[1, 2]', 200, '[1,2]', 'application/json'],
    ['12', 200, '12', 'application/json'],
    ['1.5', 200, '1.5', 'application/json'],
    ['True', 200, 'true', 'application/json'],
    ['{"statusCode": 201}', 201, '', undefined],
    ['{"statusCode": "404", "body": "no"}', 404, 'no', text],
    ['{"body": {"a": 1}}', 200, '{"a":1}', 'application/json'],
    ['{"body": [1]}', 200, '[1]', 'application/json'],
    ['{"statusCode": 200, "other": 1}', 200, '{"statusCode":200,"other":1}', 'application/json'],
    ['{"body": "<p>", "headers": {"Content-Type": "text/html"}}', 200, '<p>', 'text/html'],
    ['("made", 201)', 201, 'made', text],
    ['("made", 201, {"content-type": "a/b"})', 201, 'made', 'a/b'],
    ['({"a": 1}, http.HTTPStatus.ACCEPTED, [])', 202, '{"a":1}', 'application/json'],
    ['("", {"content-type": "a/b"})', 200, '', 'a/b'],
    ['("dropped", 204)', 204, '', undefined],
    ['iter(["a", "b"])', 200, 'ab', text],
    ['(c for c in [b"a", b"b"])', 200, 'ab', 'application/octet-stream'],
    ['{"statusCode": 206, "body": iter(["x"])}', 206, 'x', text],
    ['iter([])', 200, '', undefined],
    ['coroutine()', 200, 'awaited', text],
  ];
  test('every documented form of a return value is sent as documented', async () => {
    const instance = await gateway.load(evaluator);
    for (const [expression, status, body, contentType] of forms) {
      const reply = await instance.call({ body: expression });
      assert.equal(reply.problem, undefined, expression);
      const got = [reply.status, reply.text, reply.header('content-type')];
      assert.deepEqual(got, [status, body, contentType], expression);
    }
    instance.close();
  });

  test('headers may repeat and be numbers, and HEAD gets what GET gets', async () => {
    const instance = await gateway.load(evaluator);
    const expression =
      '{"headers": {"Set-Cookie": ["a=1", "b=2"], "X-N": 5, "x-l": "\\xff"}, "body": "b"}';
    const reply = await instance.call({ body: expression });
    const pairs = ['Set-Cookie', 'a=1', 'Set-Cookie', 'b=2', 'X-N', '5', 'x-l', 'ÿ'];
    assert.deepEqual(reply.headers, [...pairs, 'content-type', text]);
    const head = await instance.call({ body: expression, method: 'HEAD' });
    assert.deepEqual([head.status, head.headers], [reply.status, reply.headers]);
    const list = await instance.call({ body: '("", 200, [("a", "1"), ("a", "2")])' });
    assert.deepEqual(list.headers.slice(0, 4), ['a', '1', 'a', '2']);
    instance.close();
  });

  const invalid: [string, RegExp][] = [
    ['object()', /object object/],
    ['{1, 2}', /\{1, 2\} \(set\)/],
    ['{"a": object()}', /not JSON serializable/],
    ['[float("nan")]', /not JSON/],
    ['"\\ud800"', /not Unicode/],
    ['(1, 2, 3, 4)', /tuple of 4/],
    ['("a", 99)', /status 99/],
    ['("a", 101)', /status 101/],
    ['("a", True)', /status True/],
    ['{"statusCode": None}', /status None/],
    ['{"headers": {"a b": "1"}}', /named 'a b'/],
    ['{"headers": {"a\\r\\nb": "1"}}', /named/],
    ['{"headers": {"": "1"}}', /named ''/],
    ['{"headers": {"a": "1\\r\\nSet-Cookie: x"}}', /header a with the value/],
    ['{"headers": {"a": "1\\x002"}}', /header a/],
    ['{"headers": {"a": "\\u20ac"}}', /Latin-1/],
    ['{"headers": {"a": None}}', /header a/],
    ['{"headers": "abc"}', /must be a dict or a list/],
    ['{"headers": {"a": "x" * 70000}}', /bytes of headers/],
    ['iter([1])', /yielded 1 \(int\)/],
  ];
  test('a value that cannot be sent fails the call and says what was returned', async () => {
    const instance = await gateway.load(evaluator);
    for (const [expression, message] of invalid) {
      const { problem } = await instance.call({ body: expression });
      assert.ok(problem, expression);
      matches(problem, { reason: 'reply-invalid', message });
    }
    instance.close();
  });

  test('an exception fails the call with its place, and its traceback is logged', async () => {
    const instance = await gateway.fork();
    await instance.load({
      'handler.py': 'import lib\ndef handle(event):\n    return lib.divide(1, 0)',
      'lib.py': 'def divide(a, b):\n\n    return a / b',
    });
    const { problem } = await instance.call();
    matches(problem!, {
      reason: 'threw',
      type: 'ZeroDivisionError',
      message: 'division by zero',
      file: 'lib.py',
      line: 3,
      stack: /^Traceback[\s\S]*handler\.py", line 3, in handle[\s\S]*in divide/,
    });
    assert.ok(!String(problem!.stack).includes(mainProgram), 'the runtime’s frames are left out');
    await instance.logHas('ZeroDivisionError: division by zero');
    instance.close();
  });

  test('an exception with a huge message still fits a frame', async () => {
    const instance = await gateway.load('def handle(e): raise Exception("\\u20ac" * 10**6)');
    matches((await instance.call()).problem!, { reason: 'threw', type: 'Exception' });
    instance.close();
  });

  test('sys.exit in a handler fails the call and leaves the instance usable', async () => {
    const instance = await gateway.load(evaluator);
    const { problem } = await instance.call({ body: 'sys.exit(3)' });
    matches(problem!, { reason: 'threw', type: 'SystemExit' });
    assert.equal((await instance.call({ body: '"ok"' })).text, 'ok');
    instance.close();
  });

  test('a small reply is one frame, a large one waits for credit', async () => {
    const instance = await gateway.load('def handle(event): return b"x" * int(event.body)');
    const small = instance.start({ body: '1000' });
    const only = await instance.next(REPLY, small);
    assert.deepEqual([only.flags, only.payload.length - only.arg], [END, 1000]);

    const stream = instance.start({ body: '1000000' });
    let frame = await instance.next(REPLY, stream);
    let received = frame.payload.length - frame.arg;
    while (received < windowBytes) {
      frame = await instance.next(DATA, stream);
      received += frame.payload.length;
    }
    assert.equal(received, windowBytes);
    instance.send(PING, { arg: 1 });
    await instance.next(PONG);
    assert.equal(instance.pending(stream), 0, 'nothing is sent beyond the window');
    instance.send(CREDIT, { stream, arg: 10 });
    assert.equal((await instance.next(DATA, stream)).payload.length, 10);
    instance.send(CREDIT, { stream, arg: 1_000_000 });
    received += 10;
    do {
      frame = await instance.next(DATA, stream);
      received += frame.payload.length;
    } while (!(frame.flags & END));
    assert.equal(received, 1_000_000);
    instance.close();
  });
});

describe('streams', { timeout: 30_000 }, () => {
  // A call of /set sets the event; every other handler here may wait on it.
  const withEvent = (code: string) => `import threading
event = threading.Event()
def handle(request, context):
    if request.path == "/set":
        event.set()
        return "set"
    return answer(context)
${code}`;

  test('the head and the first item are sent before the second is asked for', async () => {
    const instance = await gateway.load(
      withEvent('def answer(c):\n    yield "one"\n    event.wait()\n    yield "two"'),
    );
    const stream = instance.start();
    const first = await instance.next(REPLY, stream);
    assert.equal(first.payload.subarray(first.arg).toString(), 'one');
    assert.equal(first.flags, 0);
    await instance.call({ target: '/set' });
    assert.equal((await instance.next(DATA, stream)).payload.toString(), 'two');
    assert.equal((await instance.next(DATA, stream)).flags, END);
    instance.close();
  });

  test('a generator that raises fails or, after an item, breaks the call', async () => {
    const instance = await gateway.load(`def handle(event):
    if event.path == "/late": yield "one"
    raise ValueError("no more")`);
    const early = (await instance.call()).problem!;
    matches(early, { reason: 'threw', type: 'ValueError', file: 'handler.py', line: 3 });
    const stream = instance.start({ target: '/late' });
    await instance.next(REPLY, stream);
    const cancel = await instance.next(CANCEL, stream);
    assert.equal(cancel.payload.toString(), 'ValueError: no more');
    await instance.logHas('ValueError: no more');
    instance.close();
  });

  test('an item that cannot be sent breaks the reply off', async () => {
    const instance = await gateway.load('def handle(event):\n    yield "one"\n    yield 2');
    const stream = instance.start();
    await instance.next(REPLY, stream);
    assert.match((await instance.next(CANCEL, stream)).payload.toString(), /yielded 2 \(int\)/);
    instance.close();
  });

  test('CANCEL closes a generator that waits for credit', async () => {
    const instance = await gateway.load(`def handle(event):
    try:
        while True: yield b"x" * 65536
    finally: print("generator closed")`);
    const stream = instance.start();
    await instance.next(REPLY, stream);
    instance.send(CANCEL, { stream, payload: Buffer.from('gone') });
    await instance.logHas('generator closed');
    instance.close();
  });

  test('CANCEL calls close of an iterator that is not a generator', async () => {
    const instance = await gateway.load(`class Items:
    def __next__(self): return b"x" * 65536
    def close(self): print("iterator closed")
items = Items()
def handle(event): return items`);
    const stream = instance.start();
    await instance.next(REPLY, stream);
    instance.send(CANCEL, { stream });
    await instance.logHas('iterator closed');
    instance.close();
  });

  test('CANCEL shows in context.cancelled, and the call ends with CANCEL once its handler has returned', async () => {
    const instance = await gateway.load(
      withEvent(`def answer(c):
    print("waiting", c.cancelled)
    event.wait()
    print("cancelled", c.cancelled)
    return "dropped"`),
    );
    const stream = instance.start();
    await instance.logHas('waiting False');
    instance.send(CANCEL, { stream });
    await instance.call({ target: '/set' });
    await instance.logHas('cancelled True');
    const end = await instance.next(CANCEL, stream);
    assert.equal(end.payload.length, 0);
    instance.close();
  });

  test('coroutines of all calls share one event loop', async () => {
    const instance = await gateway.load(`import asyncio
loops, gate = set(), None
async def handle(event, context):
    global gate
    loops.add(asyncio.get_running_loop())
    if event.path == "/set":
        gate.set()
        return str(len(loops))
    gate = asyncio.Event()
    print("waiting")
    await gate.wait()
    return "done"`);
    const first = instance.call();
    await instance.logHas('waiting');
    assert.equal((await instance.call({ target: '/set' })).text, '1');
    assert.equal((await first).text, 'done');
    instance.close();
  });

  test('an async generator is streamed, and a failing coroutine fails the call', async () => {
    const instance = await gateway.load(`import asyncio
async def stream():
    for item in ("a", "b"):
        await asyncio.sleep(0)
        yield item
async def fail(): raise ValueError("async")
def handle(event): return stream() if event.path == "/stream" else fail()`);
    assert.equal((await instance.call({ target: '/stream' })).text, 'ab');
    const { problem } = await instance.call();
    matches(problem!, { reason: 'threw', message: 'async', file: 'handler.py', line: 6 });
    instance.close();
  });

  test('CANCEL cancels a coroutine and closes an async generator', async () => {
    const instance = await gateway.load(`import asyncio
async def stream():
    try:
        yield "one"
        await asyncio.Event().wait()
    finally: print("generator closed")
async def wait():
    try:
        print("waiting")
        await asyncio.Event().wait()
    finally: print("coroutine ended")
def handle(event): return stream() if event.path == "/stream" else wait()`);
    const coroutine = instance.start();
    await instance.logHas('waiting');
    instance.send(CANCEL, { stream: coroutine });
    await instance.logHas('coroutine ended');
    await instance.next(CANCEL, coroutine);
    const stream = instance.start({ target: '/stream' });
    await instance.next(REPLY, stream);
    instance.send(CANCEL, { stream });
    await instance.logHas('generator closed');
    instance.close();
  });
});

describe('many calls', { timeout: 60_000 }, () => {
  test('as many calls run at once as concurrency says; the rest wait', async () => {
    const instance = await gateway.load(
      `import threading
barrier = threading.Barrier(4)
lock, running, most = threading.Lock(), 0, 0
def handle(event):
    global running, most
    with lock:
        running += 1
        most = max(most, running)
    barrier.wait()
    with lock: running -= 1
    return str(most)`,
      { concurrency: 4 },
    );
    const replies = await Promise.all(Array.from({ length: 12 }, () => instance.call()));
    assert.equal(replies.at(-1)!.text, '4');
    instance.close();
  });

  test('with concurrency 1 handlers run one at a time in the main thread', async () => {
    const instance = await gateway.load(
      `import signal, threading
def handle(event):
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    return threading.current_thread() is threading.main_thread()`,
      { concurrency: 1 },
    );
    const replies = await Promise.all(Array.from({ length: 5 }, () => instance.call()));
    for (const reply of replies) assert.equal(reply.text, 'true');
    instance.close();
  });

  test('thousands of calls in flight get each their own answer', async () => {
    const instance = await gateway.load('def handle(event): return event.body');
    const calls = Array.from({ length: 3000 }, (_, index) => instance.call({ body: `b${index}` }));
    for (const [index, reply] of (await Promise.all(calls)).entries())
      assert.equal(reply.text, `b${index}`);
    instance.close();
  });

  test('an answer is not held back by a slow call behind it', async () => {
    const instance = await gateway.load(`import threading
event = threading.Event()
def handle(request):
    if request.path == "/wait": event.wait()
    if request.path == "/set": event.set()
    return "ok"`);
    // Enough quick calls that the instance counts as quick and sends answers together.
    for (let index = 0; index < 300; index++) await instance.call();
    const quick = Array.from({ length: 4 }, () => instance.start());
    const slow = Array.from({ length: 5 }, () => instance.start({ target: '/wait' }));
    const behind = instance.start();
    for (const stream of [...quick, behind]) await instance.next(REPLY, stream);
    await instance.call({ target: '/set' });
    for (const stream of slow) await instance.next(REPLY, stream);
    instance.close();
  });

  test('PING is answered while a handler computes', async () => {
    const instance = await gateway.load(`done = False
def handle(event):
    global done
    if event.path == "/set": done = True
    else: print("computing")
    while not done: pass`);
    const busy = instance.call();
    await instance.logHas('computing');
    instance.send(PING, { arg: 9 });
    assert.equal((await instance.next(PONG)).arg, 9);
    await instance.call({ target: '/set' });
    await busy;
    instance.close();
  });
});

describe('ending', { timeout: 30_000 }, () => {
  test('a process whose link closes exits though a handler is busy', async () => {
    for (const busy of ['while True: pass', 'import threading; threading.Event().wait()']) {
      const instance = await gateway.load(`def handle(event):\n    print("busy")\n    ${busy}`);
      instance.start();
      await instance.logHas('busy');
      instance.close();
      await instance.logClosed;
      await poll(() => !existsSync(`/proc/${instance.hello.pid}`));
    }
  });

  test('a process whose link closes with a reply unread exits', async () => {
    // The kernel then says ECONNRESET. Whether the reply is there yet is up to it: so several times.
    for (let i = 0; i < 10; i++) {
      const instance = await gateway.load(`def handle(event):\n    print("ran")\n    return "x"`);
      instance.socket.pause();
      for (let calls = 0; calls < 3; calls++) instance.start();
      await instance.logHas('ran\nran\nran');
      instance.close();
      await instance.logClosed;
      await poll(() => !existsSync(`/proc/${instance.hello.pid}`));
    }
  });

  test('a process whose link closes during the import exits', async () => {
    const instance = await gateway.fork();
    const code = 'print("importing")\nwhile True: pass';
    const message = instance.prepare({ 'handler.py': code });
    instance.send(LOAD, { payload: Buffer.from(JSON.stringify(message)), flags: END });
    await instance.logHas('importing');
    instance.close();
    await instance.logClosed;
  });

  test('a process the function forks does not keep the link open', async () => {
    const instance = await gateway.load(`import os
def handle(event):
    if os.fork() == 0:
        os.read(os.open("fifo", os.O_RDONLY), 1)
        os._exit(0)
    return "forked"
os.mkfifo("fifo")`);
    await instance.call();
    instance.send(STOP);
    await instance.closed;
    // Lets the grandchild end; opening waits until it has opened its end.
    await poll(() => {
      writeFileSync(join(instance.directory, 'fifo'), 'x');
      return true;
    });
    await instance.logClosed;
  });

  test('STOP lets calls finish, runs atexit handlers, then exits with status 0', async () => {
    const direct = await gateway.direct();
    await direct.load({
      'handler.py': `import atexit, threading
event = threading.Event()
atexit.register(lambda: print("at exit"))
def handle(request):
    if request.path == "/set": event.set()
    else:
        print("waiting")
        event.wait()
    print("unfinished", end="")
    return "finished"`,
    });
    const reply = direct.call();
    await direct.logHas('waiting');
    direct.send(STOP);
    direct.start({ target: '/set' });
    assert.equal((await reply).text, 'finished');
    assert.deepEqual(await direct.exited, [0, null]);
    await direct.logClosed;
    assert.match(direct.log, /unfinished\nat exit\n$/);
  });

  test('STOP waits for calls in other threads after the main thread has become idle', async () => {
    const direct = await gateway.direct();
    const code = `import threading
events = {"/a": threading.Event(), "/b": threading.Event()}
meeting = threading.Barrier(2)
def handle(event):
    if event.path == "/meet": meeting.wait()
    elif event.method == "PUT": events[event.path].set()
    elif event.path in events:
        print("waiting", event.path, threading.current_thread().name)
        events[event.path].wait()
    return threading.current_thread().name`;
    await direct.load({ 'handler.py': code }, { concurrency: 3 });
    const first = direct.call({ target: '/a' });
    await direct.logHas('waiting /a MainThread');
    const second = direct.call({ target: '/b' });
    await direct.logHas('waiting /b call-1');
    await direct.call({ target: '/a', method: 'PUT' });
    await first;
    direct.send(STOP);
    // Two calls that need both free workers: the main thread runs one of them.
    const met = await Promise.all([1, 2].map(() => direct.call({ target: '/meet' })));
    assert.ok(met.some(reply => reply.text === 'MainThread'));
    const set = direct.call({ target: '/b', method: 'PUT' });
    assert.equal((await second).text, 'call-1');
    await set;
    assert.deepEqual(await direct.exited, [0, null]);
  });

  const bad: [string, Buffer][] = [
    ['an unknown type', encode(99)],
    ['a type only a runtime sends', encode(REPLY, { stream: 1 })],
    ['a payload over 65536 bytes', rawHeader(65_537, DATA)],
    ['a CALL whose head is longer than its payload', encode(CALL, { stream: 1, arg: 5 })],
    [
      'a CALL without the four fields',
      encode(CALL, { stream: 1, arg: 1, payload: Buffer.from('G') }),
    ],
    ['a CALL on stream 0', encode(CALL, callFrame({}))],
    ['a second LOAD', encode(LOAD, { payload: Buffer.from('{}'), flags: END })],
  ];
  for (const [what, bytes] of bad) {
    test(`${what} ends the process with status 1 and one line`, async () => {
      const direct = await gateway.direct();
      await direct.load({ 'handler.py': 'def handle(event): pass' });
      direct.socket.write(bytes);
      assert.deepEqual(await direct.exited, [1, null]);
      await direct.logClosed;
      assert.match(direct.stderr, /^fnway: the gateway sent [^\n]+\n$/);
    });
  }

  test('frames for streams that are over are ignored', async () => {
    const instance = await gateway.load('def handle(event): return "ok"');
    const { stream } = await instance.call();
    for (const type of [DATA, CREDIT, CANCEL]) instance.send(type, { stream, arg: 0 });
    instance.send(DATA, { flags: END });
    assert.equal((await instance.call()).text, 'ok');
    instance.close();
  });

  test('a direct instance honours PYTHON variables of its environment', async () => {
    const direct = await gateway.direct({ PYTHONPATH: '/somewhere/else', PYTHONHASHSEED: '0' });
    await direct.load({
      'handler.py': `import os, sys
def handle(event):
    paths = [sys.path[0], sys.path[1], os.getsid(0) == os.getpid()]
    return [*paths, "/somewhere/else" in sys.path, hash("a"), "main" in sys.modules]`,
    });
    const [first, second, leads, found, hash, leaked] = JSON.parse((await direct.call()).text);
    assert.equal(first, direct.directory);
    assert.notEqual(second, dirname(mainProgram));
    assert.deepEqual([leads, found, leaked], [true, true, false]);
    const other = await gateway.direct({ PYTHONHASHSEED: '0' });
    await other.load({ 'handler.py': 'def handle(event): return hash("a")' });
    assert.equal(JSON.parse((await other.call()).text), hash);
    for (const one of [direct, other]) {
      one.close();
      await one.exited;
    }
  });
});

// ------------------------------------------------------------------ the gateway's end of the link

const evaluator = `import http, sys
async def coroutine(): return "awaited"
def handle(event, context): return eval(event.text)`;

interface Frame {
  type: number;
  flags: number;
  stream: number;
  arg: number;
  payload: Buffer;
}
interface FrameOptions {
  flags?: number;
  stream?: number;
  arg?: number;
  payload?: Buffer;
}
interface CallOptions {
  method?: string;
  target?: string;
  id?: string;
  timeoutMs?: number;
  headers?: string[];
  body?: string;
  incomplete?: boolean;
}
type Problem = Record<string, unknown>;

function rawHeader(length: number, type: number, options: FrameOptions = {}): Buffer {
  const header = Buffer.alloc(16);
  header.writeUInt32LE(length, 0);
  header[4] = type;
  header[5] = options.flags ?? 0;
  header.writeUInt32LE(options.stream ?? 0, 8);
  header.writeUInt32LE(options.arg ?? 0, 12);
  return header;
}

function encode(type: number, options: FrameOptions = {}): Buffer {
  const payload = options.payload ?? Buffer.alloc(0);
  return Buffer.concat([rawHeader(payload.length, type, options), payload]);
}

function callFrame(options: CallOptions): FrameOptions {
  const { method = 'GET', target = '/', id = 'inv_1', timeoutMs = 0, headers = [] } = options;
  const fields = [method, target, id, String(timeoutMs), ...headers];
  const head = Buffer.from(fields.join('\0'), 'latin1');
  const payload = Buffer.concat([head, Buffer.from(options.body ?? '')]);
  return { arg: head.length, payload, flags: options.incomplete ? 0 : END };
}

class Reply {
  readonly stream: number;
  readonly problem: Problem | undefined;
  readonly status: number;
  readonly headers: string[];
  readonly text: string;
  constructor(stream: number, head: string, body: Buffer, problem?: Problem) {
    const [status, ...headers] = head.split('\0');
    this.stream = stream;
    this.status = Number(status);
    this.headers = headers;
    this.text = body.toString();
    this.problem = problem;
  }
  header(name: string): string | undefined {
    const at = this.headers.findIndex((value, i) => i % 2 === 0 && value.toLowerCase() === name);
    return at < 0 ? undefined : this.headers[at + 1];
  }
}

type OnText = (text: string, stream: 'stdout' | 'stderr') => void;

/** One linked process, seen from the gateway. */
class Instance {
  readonly secret: string;
  readonly socket: Socket;
  readonly directory: string;
  readonly closed: Promise<unknown>;
  logClosed: Promise<unknown> = Promise.resolve();
  exited: Promise<unknown[]> = Promise.resolve([]);
  hello = { protocol: 0, secret: '', pid: 0, runtime: '' };
  /** Both streams, as they come, without the marks of calls. */
  log = '';
  stdout = '';
  stderr = '';
  lastStream = 0;
  #gateway: Gateway;
  #frames: Frame[] = [];
  #waiting: { type: number; stream: number; give: (frame: Frame) => void }[] = [];
  #logWaiting: (() => void)[] = [];

  constructor(gateway: Gateway, socket: Socket, secret: string) {
    this.#gateway = gateway;
    this.socket = socket;
    this.secret = secret;
    this.closed = once(socket, 'close');
    this.directory = mkdtempSync(join(gateway.folder, 'code-'));
    chmodSync(this.directory, 0o755);
  }

  send(type: number, options: FrameOptions = {}): void {
    this.socket.write(encode(type, options));
  }

  receive(frame: Frame): void {
    const length = frame.payload.length;
    assert.ok(length <= payloadBytesMax, `a payload of ${length} bytes`);
    const matching = (one: { type: number; stream: number }) =>
      one.stream === frame.stream && (one.type === frame.type || one.type === 0);
    const at = this.#waiting.findIndex(matching);
    if (at < 0) this.#frames.push(frame);
    else this.#waiting.splice(at, 1)[0]!.give(frame);
  }

  /** The next frame of this type (0: any) on this stream. */
  next(type: number, stream = 0): Promise<Frame> {
    const at = this.#frames.findIndex(
      one => one.stream === stream && (type === 0 || one.type === type),
    );
    if (at >= 0) return Promise.resolve(this.#frames.splice(at, 1)[0]!);
    return new Promise(give => this.#waiting.push({ type, stream, give }));
  }

  pending(stream: number): number {
    return this.#frames.filter(frame => frame.stream === stream).length;
  }

  prepare(files: Record<string, string>, message: object = {}): object {
    for (const [name, content] of Object.entries(files)) {
      const path = join(this.directory, name);
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, content);
    }
    this.logClosed = this.#gateway.expectLog(this.secret, (text, stream) => {
      // biome-ignore lint/suspicious/noControlCharactersInRegex: these are the mark
      this.log += text.replaceAll(/\x1e[^\x1f]*\x1f/g, '');
      this[stream] += text;
      for (const look of this.#logWaiting) look();
    });
    return {
      function: 'hello',
      namespace: 'default',
      version: 3,
      directory: this.directory,
      entry: 'handler.py',
      env: {},
      concurrency: 10,
      bufferedBodyBytesMax: 16_777_216,
      log: this.#gateway.logPath,
      ...message,
    };
  }

  async load(files: Record<string, string>, message: object = {}): Promise<void> {
    const payload = Buffer.from(JSON.stringify(this.prepare(files, message)));
    this.send(LOAD, { payload, flags: END });
    const answer = await this.next(0);
    assert.equal(answer.type, LOADED, answer.payload.toString());
  }

  async loadFails(files: Record<string, string>, message: object = {}): Promise<Problem> {
    const payload = Buffer.from(JSON.stringify(this.prepare(files, message)));
    this.send(LOAD, { payload, flags: END });
    const answer = await this.next(0);
    assert.equal(answer.type, LOAD_FAILED);
    return JSON.parse(answer.payload.toString());
  }

  logHas(text: string): Promise<void> {
    return new Promise(resolve => {
      const look = () => this.log.includes(text) && resolve();
      this.#logWaiting.push(look);
      look();
    });
  }

  start(options: CallOptions = {}): number {
    const stream = ++this.lastStream;
    this.send(CALL, { ...callFrame(options), stream });
    return stream;
  }

  /** Calls and collects the whole answer, giving all the credit it may want. */
  async call(options: CallOptions = {}): Promise<Reply> {
    const stream = this.start(options);
    let frame = await this.#answer(stream);
    if (frame.type === FAIL) {
      return new Reply(stream, '', Buffer.alloc(0), JSON.parse(frame.payload.toString()));
    }
    const head = frame.payload.toString('latin1', 0, frame.arg);
    const parts = [frame.payload.subarray(frame.arg)];
    while (!(frame.flags & END)) {
      frame = await this.next(DATA, stream);
      parts.push(frame.payload);
    }
    return new Reply(stream, head, Buffer.concat(parts));
  }

  async #answer(stream: number): Promise<Frame> {
    const answers = [this.next(REPLY, stream), this.next(FAIL, stream)];
    const frame = await Promise.race(answers);
    this.#waiting = this.#waiting.filter(one => one.stream !== stream);
    return frame;
  }

  close(): void {
    this.socket.destroy();
  }
}

interface Gateway {
  readonly folder: string;
  readonly logPath: string;
  readonly process: ChildProcess;
  fork(): Promise<Instance>;
  forkMany(count: number): Promise<Instance[]>;
  direct(env?: Record<string, string>, wrapper?: string[]): Promise<Instance>;
  load(code: string, message?: object): Promise<Instance>;
  expectLog(secret: string, onText: OnText): Promise<void>;
  stop(): Promise<void>;
}

async function startGateway(): Promise<Gateway> {
  const folder = mkdtempSync(join(tmpdir(), 'fnway-python-'));
  chmodSync(folder, 0o755);
  const [linkPath, logPath] = [join(folder, 'link'), join(folder, 'log')];
  const expected = new Map<string, (instance: Instance) => void>();
  const logs = new Map<string, { onText: OnText; onClose: () => void }>();
  const sockets = new Set<Socket>();
  const children: ChildProcess[] = [];
  let secrets = 0;

  const links = createServer(socket => {
    keep(socket);
    let instance: Instance | undefined;
    readFrames(socket, frame => {
      if (instance !== undefined) return instance.receive(frame);
      assert.equal(frame.type, HELLO);
      const hello = JSON.parse(frame.payload.toString());
      instance = new Instance(gateway, socket, hello.secret);
      instance.hello = hello;
      expected.get(hello.secret)!(instance);
    });
  });
  const logServer = createServer(socket => {
    keep(socket);
    let name: string[] | undefined;
    let text = '';
    socket.setEncoding('utf8');
    socket.on('data', (piece: string) => {
      text += piece;
      if (name === undefined && text.includes('\n')) {
        name = text.slice(0, text.indexOf('\n')).split(' ');
        text = text.slice(text.indexOf('\n') + 1);
      }
      if (name === undefined) return;
      const [secret, stream] = name;
      assert.ok(stream === 'stdout' || stream === 'stderr', stream);
      logs.get(secret!)!.onText(text, stream);
      text = '';
    });
    socket.on('close', () => name !== undefined && logs.get(name[0]!)!.onClose());
  });
  function keep(socket: Socket): void {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => {}); // a reset is the end of a process we test, seen as its close
  }
  await Promise.all([listen(links, linkPath), listen(logServer, logPath)]);
  const env = { PATH: process.env.PATH, FNWAY_LINK: linkPath, FNWAY_GATEWAY: folder };

  function expectInstance(): { secret: string; arrives: Promise<Instance> } {
    const secret = `secret-${++secrets}`;
    return { secret, arrives: new Promise(resolve => expected.set(secret, resolve)) };
  }

  const gateway: Gateway = {
    folder,
    logPath,
    process: start([python, '-I', mainProgram], env),
    async fork() {
      return (await gateway.forkMany(1))[0]!;
    },
    forkMany(count) {
      const wanted = Array.from({ length: count }, expectInstance);
      gateway.process.stdin!.write(wanted.map(one => `${one.secret}\n`).join(''));
      return Promise.all(wanted.map(one => one.arrives));
    },
    async direct(variables = {}, wrapper = []) {
      const { secret, arrives } = expectInstance();
      const child = start([...wrapper, python, mainProgram, '--direct'], {
        ...env,
        ...variables,
        FNWAY_LINK_SECRET: secret,
      });
      const exited = once(child, 'exit');
      const instance = await arrives;
      instance.exited = exited;
      return instance;
    },
    async load(code, message) {
      const instance = await gateway.fork();
      await instance.load({ 'handler.py': code }, message);
      return instance;
    },
    expectLog(secret, onText) {
      let open = 2;
      return new Promise(resolve =>
        logs.set(secret, { onText, onClose: () => --open === 0 && resolve() }),
      );
    },
    async stop() {
      for (const socket of sockets) socket.destroy();
      for (const child of children) {
        child.stdin!.end();
        if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
      }
      links.close();
      logServer.close();
      // A process that is left over fails the suite, by its time limit.
      await poll(() => marked(folder).length === 0);
      rmSync(folder, { recursive: true });
    },
  };

  function start([command, ...args]: string[], variables: NodeJS.ProcessEnv): ChildProcess {
    const child = spawn(command!, args, { env: variables, stdio: ['pipe', 'inherit', 'inherit'] });
    children.push(child);
    return child;
  }
  return gateway;
}

async function listen(server: Server, path: string): Promise<void> {
  server.listen(path);
  await once(server, 'listening');
}

function readFrames(socket: Socket, onFrame: (frame: Frame) => void): void {
  let rest: Buffer = Buffer.alloc(0);
  socket.on('data', (chunk: Buffer) => {
    rest = Buffer.concat([rest, chunk]);
    while (rest.length >= 16 && rest.length >= 16 + rest.readUInt32LE(0)) {
      const end = 16 + rest.readUInt32LE(0);
      const [stream, arg] = [rest.readUInt32LE(8), rest.readUInt32LE(12)];
      const payload = rest.subarray(16, end);
      onFrame({ type: rest[4]!, flags: rest[5]!, stream, arg, payload });
      rest = rest.subarray(end);
    }
  });
}

/** Processes that carry a gateway's mark. */
function marked(mark: string): string[] {
  return readdirSync('/proc').filter(entry => {
    try {
      return readFileSync(`/proc/${entry}/environ`, 'latin1').includes(`FNWAY_GATEWAY=${mark}\0`);
    } catch {
      return false;
    }
  });
}

/** Waits for a state that nothing announces, such as a process id that is gone. */
async function poll(isReached: () => boolean): Promise<void> {
  const lateMs = performance.now() + 20_000;
  while (!isReached()) {
    assert.ok(performance.now() < lateMs, `not reached: ${isReached}`);
    await new Promise(resolve => setImmediate(resolve));
  }
}

function matches(problem: Problem, expected: Record<string, unknown>): void {
  for (const [key, value] of Object.entries(expected)) {
    if (value instanceof RegExp) assert.match(String(problem[key]), value);
    else assert.deepEqual(problem[key], value, `${key} of ${JSON.stringify(problem)}`);
  }
}
