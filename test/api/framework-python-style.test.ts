/**
 * Goal: which Python functions are called by the Functions Framework, by what name and signature, and how they run behind
 * the gateway: their output, streams, mistakes. Method: one small main.py each, with packages from a directory; how the
 * answers look is compared with the real framework in framework-python.test.ts.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { FunctionDefinition } from '../../client/api.ts';
import { frameworkRequirement } from '../../src/build/python-framework.ts';
import { startTestGateway, waitFor } from '../../src/testing/index.ts';
import { createFixture } from './framework-fixture.ts';

const gateway = await startTestGateway({ shared: true, env: { PATH: process.env.PATH! } });
const { call, client } = gateway;
const { buildEnv, deploy } = createFixture(gateway);
const textOf = async (path: string) => (await call(path)).text();

const main = (code: string, more: FunctionDefinition = {}): FunctionDefinition => ({
  source: { files: { 'main.py': code } },
  ...more,
});

/** Deploys what fails; gives why. */
async function failureOf(name: string, definition: FunctionDefinition) {
  const given = { runtime: 'python', buildEnv, ...definition };
  const result = await client.putFunction(name, given, { wait: '60s' });
  return result.function.latestVersion.failure!;
}

/** How a function is called shows in what it answers: only http takes GET, and only event an event of no known type. */
async function signatureOf(name: string): Promise<string> {
  const headers = { 'content-type': 'application/json' };
  const event = { method: 'POST', headers, body: '{"data": 1, "context": {"eventId": "e"}}' };
  const got = await call(`/function/${name}/x`);
  if (got.status === 200) return 'http';
  const posted = await call(`/function/${name}/x`, event);
  return posted.status === 200 ? 'event' : 'cloudevent';
}

describe('a Python function of the Functions Framework', { timeout: 240_000 }, () => {
  test('is one by its single parameter, and gets the library', async () => {
    const code = 'def hello(request):\n    return f"Hello {request.args.get(\'name\')}"';
    await deploy('plain', main(code, { entry: 'main.py:hello' }));
    assert.equal(await textOf('/function/plain?name=Ada'), 'Hello Ada');
    const { buildLog } = await client.getVersion('plain', 1);
    assert.ok(buildLog!.includes(frameworkRequirement), buildLog);
  });

  test('is not what takes an event and a context', async () => {
    const code = 'def bar(event, context):\n    return type(event).__name__ + event.method';
    await deploy('own', main(code, { entry: 'main.py:bar' }));
    assert.equal(await textOf('/function/own'), 'EventGET');
    assert.equal((await client.getVersion('own', 1)).buildLog, '');
  });

  test('is called by what it is registered as, then the setting, then the environment', async () => {
    const code = `import functions_framework
@functions_framework.http
def web(request): return "OK"
@functions_framework.cloud_event
def cloud(event): pass
def any(*given): return "OK"`;
    const env = { FUNCTION_SIGNATURE_TYPE: 'event' };
    const wanted: Array<[how: FunctionDefinition, signature: string]> = [
      [{ entry: 'main.py:web', signature: 'event', env }, 'http'],
      [{ entry: 'main.py:cloud', signature: 'http', env }, 'cloudevent'],
      [{ entry: 'main.py:any', signature: 'http', env }, 'http'],
      [{ entry: 'main.py:any', env }, 'event'],
      [{ entry: 'main.py:any' }, 'http'],
      [{ env: { FUNCTION_TARGET: 'cloud' } }, 'cloudevent'],
      [{ entry: 'main.py:web', env: { FUNCTION_TARGET: 'cloud' } }, 'http'],
    ];
    await Promise.all(
      wanted.map(async ([how, signature], i) => {
        await deploy(`by-${i}`, main(code, how));
        assert.equal(await signatureOf(`by-${i}`), signature, JSON.stringify(how));
      }),
    );
  });

  test('is found without a name: called as the function, or the only one', async () => {
    const two = `import functions_framework
@functions_framework.http
def my_first(request): return "first"
@functions_framework.http
def second(request): return "second"
def helper(): pass`;
    const one = `from functions_framework import http
def helper(): pass
@http
def only(request): return "only"`;
    await Promise.all([deploy('my-first', main(two)), deploy('single', main(one))]);
    assert.equal(await textOf('/function/my-first'), 'first');
    assert.equal(await textOf('/function/single'), 'only');
    const failure = await failureOf('neither', main(two));
    assert.match(failure.message, /Name it: entry: main\.py:NAME/);
  });

  test('that does not load says why, and where', async () => {
    const library = 'import functions_framework\n';
    const wanted: Array<
      [name: string, definition: FunctionDefinition, message: RegExp, line?: number]
    > = [
      [
        'absent',
        main(`${library}def here(r): pass`, { entry: 'main.py:gone' }),
        /^main\.py is expected to contain a function named 'gone'\. Found: 'here'/,
      ],
      [
        'uncallable',
        main(`${library}x = 1`, { entry: 'main.py:x' }),
        /'x' needs to be of type function/,
      ],
      ['syntax', main(`${library}def x(request) pass`, { entry: 'main.py:x' }), /expected ':'/, 2],
      ['raises', main(`${library}\n1 / 0`, { entry: 'main.py:x' }), /ZeroDivisionError/, 3],
      [
        'package',
        main(`${library}import gone_x`, { entry: 'main.py:x' }),
        /No module named 'gone_x'; add its package/,
        2,
      ],
      [
        'untyped',
        main(`${library}@functions_framework.typed\ndef x(y): pass`, { entry: 'main.py:x' }),
        /must provide the type/,
        2,
      ],
      [
        'signature',
        main(`${library}def x(y): pass`, {
          entry: 'main.py:x',
          env: { FUNCTION_SIGNATURE_TYPE: 'odd' },
        }),
        /Invalid signature type: odd/,
      ],
    ];
    await Promise.all(
      wanted.map(async ([name, definition, message, line]) => {
        const failure = await failureOf(name, definition);
        assert.equal(failure.code, 'LOAD_FAILED', name);
        assert.match(failure.message, message);
        assert.equal(failure.line, line, name);
      }),
    );
  });

  test('whose other packages do not go with the library is told how to choose another', async () => {
    const files = { 'main.py': 'import functions_framework', 'requirements.txt': 'flask<2\n' };
    const failure = await failureOf('conflict', { source: { files } });
    assert.equal(failure.code, 'BUILD_FAILED');
    assert.match(failure.message, /was added for the function's style; name the version that fits/);
  });

  test('prints to its log, and what it raises is there with its place', async () => {
    const code = `import functions_framework, logging
@functions_framework.http
def says(request):
    print("said", flush=True)
    logging.warning("warned")
    raise ValueError("as told")`;
    // ENTRY_POINT makes the library replace the streams.
    await deploy('says', main(code, { env: { ENTRY_POINT: 'says' } }));
    assert.equal((await call('/function/says')).status, 500);
    const lines = await waitFor(async () => {
      const found = await client.readLogs('says');
      return found.some(line => line.text.includes('as told')) && found;
    });
    const said = lines.find(line => line.text === 'said');
    assert.equal(said?.stream, 'stdout');
    const others = lines.filter(line => line.stream === 'stderr').map(line => line.text);
    assert.match(others.join('\n'), /warned[\s\S]*main\.py\W+line 6[\s\S]*ValueError: as told/);
  });

  test('answers calls at once, each with its own request', async () => {
    const code = `import functions_framework, threading
barrier = threading.Barrier(3, timeout=20)
@functions_framework.http
def meets(request):
    barrier.wait()
    return request.args["who"]`;
    await deploy('meets', main(code));
    const who = ['a', 'b', 'c'];
    assert.deepEqual(await Promise.all(who.map(w => textOf(`/function/meets?who=${w}`))), who);
  });

  for (const kind of ['http', 'aio.http']) {
    const isAsync = kind !== 'http';
    const name = isAsync ? 'later' : 'now';
    const [def, response] = isAsync
      ? ['async def', 'starlette.responses.StreamingResponse']
      : ['def', 'flask.Response'];
    const code = `import asyncio, flask, gc, functions_framework, functions_framework.aio, starlette.responses
closed = 0
${def} endless():
    global closed
    try:
        while True:
            yield b"x" * 50_000
            ${isAsync ? 'await asyncio.sleep(0)' : ''}
    finally:
        closed += 1
${def} breaking():
    yield b"one"
    raise ValueError("as told")
@functions_framework.${kind}
${def} ${name}(request):
    path = ${isAsync ? 'request.url.path' : 'request.path'}
    if path == "/closed":
        gc.collect()  # an asynchronous generator that is given up is closed by the collector
        return str(closed)
    if path == "/long":
        return ${response}(b"%06d" % i * 10_000 for i in range(100))
    return ${response}(endless() if path == "/endless" else breaking())`;

    test(`of ${kind} streams, and ends its stream when the client leaves`, async () => {
      await deploy(name, main(code));
      const long = Buffer.from(await (await call(`/function/${name}/long`)).arrayBuffer());
      assert.equal(long.length, 6_000_000);
      assert.equal(long.subarray(-6).toString(), '000099');

      const leaving = new AbortController();
      const { body } = await call(`/function/${name}/endless`, { signal: leaving.signal });
      await body!.getReader().read();
      leaving.abort();
      await waitFor(async () => (await textOf(`/function/${name}/closed`)) === '1');

      await assert.rejects(textOf(`/function/${name}/breaking`), /terminated/);
    });
  }
});
