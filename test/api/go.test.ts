/**
 * Goal: functions written in Go are built where Go is installed, answer and fail like all others, and mistakes name file and
 * line. Method: a whole gateway with the machine's Go; most tests share one function that does what its path says. Handlers
 * that must wait do so for another call.
 */
import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import type { FunctionDefinition } from '../../client/api.ts';
import {
  findGo,
  go,
  goBuildWait,
  goCache,
  problemOf,
  startTestGateway,
  waitFor,
} from '../../src/testing/index.ts';

const { needsGo } = findGo(process.env.PATH ?? '');
const gateway = await startTestGateway({
  shared: true,
  env: { ...process.env, FNWAY_GO_CACHE: goCache },
});
const { call, client } = gateway;
const textOf = async (path: string, init: RequestInit = {}) => (await call(path, init)).text();

async function put(name: string, definition: FunctionDefinition) {
  const result = await client.putFunction(
    name,
    { auth: 'none', ...definition },
    { wait: goBuildWait },
  );
  const { state, latestVersion } = result.function;
  assert.equal(state, 'ready', JSON.stringify(latestVersion.failure));
}

async function failed(name: string, definition: FunctionDefinition) {
  const result = await client.putFunction(name, definition, { wait: goBuildWait });
  assert.equal(result.function.latestVersion.state, 'failed');
  return result.function.latestVersion.failure!;
}

/** Does what the path says. */
const everything = `package function

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"sync/atomic"
)

var running, cancelled, released int32
var release = make(chan struct{})

func init() { fmt.Println("initialised") }

func Handle(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/echo":
		body, _ := io.ReadAll(r.Body)
		w.Header().Add("X-Seen", r.Header.Get("X-Tag"))
		w.Header().Add("X-Seen", r.URL.RawQuery)
		w.WriteHeader(201)
		fmt.Fprintf(w, "%s %d %s", r.Method, r.ContentLength, body)
	case "/environment":
		where, _ := os.Getwd()
		fmt.Fprintf(w, "%s %s %t %s %v", os.Getenv("GREETING"), os.Getenv("FNWAY_FUNCTION"), os.Getenv("FNWAY_LINK") == "",
			where[strings.LastIndex(where, "/")+1:], os.Getuid())
	case "/upper":
		// Line by line, as they come.
		lines := bufio.NewScanner(r.Body)
		for lines.Scan() {
			fmt.Fprintln(w, strings.ToUpper(lines.Text()))
			w.(http.Flusher).Flush()
		}
	case "/long":
		piece := strings.Repeat("x", 100_000)
		for i := 0; i < 50; i++ {
			io.WriteString(w, piece)
		}
	case "/wait":
		atomic.AddInt32(&running, 1)
		<-release
		atomic.AddInt32(&running, -1)
		fmt.Fprint(w, "released")
	case "/running":
		fmt.Fprint(w, atomic.LoadInt32(&running))
	case "/release":
		close(release)
	case "/until-cancelled":
		atomic.AddInt32(&running, 1)
		<-r.Context().Done()
		atomic.AddInt32(&running, -1)
		if errors.Is(r.Context().Err(), context.DeadlineExceeded) {
			atomic.AddInt32(&cancelled, 10)
		} else {
			atomic.AddInt32(&cancelled, 1)
		}
	case "/cancelled":
		fmt.Fprint(w, atomic.LoadInt32(&cancelled))
	case "/panic":
		var nothing map[string]int
		nothing["a"] = 1
	case "/late-panic":
		io.WriteString(w, "first")
		w.(http.Flusher).Flush()
		panic("too late")
	case "/memory":
		fmt.Fprint(w, debug.SetMemoryLimit(-1))
	case "/hoard":
		var held [][]byte
		for {
			held = append(held, bytes.Repeat([]byte{1}, 1<<20))
		}
	case "/exit":
		fmt.Fprintln(os.Stderr, "last words")
		os.Exit(3)
	}
}

func Named(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "named") }
`;

describe('a function written in Go', { ...needsGo, timeout: 600_000 }, () => {
  before(() => put('all', { ...go(everything), env: { GREETING: 'Hi' }, timeout: '5s' }));

  test('answers with what its handler writes', async () => {
    const response = await call('/function/all/echo?a=b', {
      method: 'PUT',
      headers: { 'x-tag': 'tag' },
      body: 'body',
    });
    assert.equal(response.status, 201);
    assert.equal(response.headers.get('x-seen'), 'tag, a=b');
    assert.equal(response.headers.get('content-type'), 'text/plain; charset=utf-8');
    assert.equal(await response.text(), 'PUT 4 body');
    const empty = await call('/function/all/nothing');
    assert.deepEqual([empty.status, await empty.text()], [200, '']);
    assert.equal((await call('/function/all/echo', { method: 'HEAD' })).status, 201);
  });

  test('has its environment and directory, and a user of its own', async () => {
    const [greeting, name, isClean, directory, uid] = (
      await textOf('/function/all/environment')
    ).split(' ');
    assert.deepEqual([greeting, name, isClean, directory], ['Hi', 'all', 'true', '1']);
    if (process.getuid?.() === 0) assert.notEqual(uid, '0');
    const said = (await client.readLogs('all')).some(({ text }) => text === 'initialised');
    assert.ok(said, 'what it writes before it is loaded is in its log');
  });

  test('streams both ways: a line is answered before the next is sent', async () => {
    let send!: ReadableStreamDefaultController<Uint8Array>;
    const body = new ReadableStream<Uint8Array>({
      start(controller) {
        send = controller;
      },
    });
    const encode = (text: string) => new TextEncoder().encode(text);
    send.enqueue(encode('first\n'));
    const response = await call('/function/all/upper', { method: 'POST', body, duplex: 'half' });
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    assert.equal((await reader.read()).value, 'FIRST\n');
    send.enqueue(encode('second\n'));
    assert.equal((await reader.read()).value, 'SECOND\n');
    send.close();
    assert.ok((await reader.read()).done);
  });

  test('bodies of megabytes go through in both directions', async () => {
    assert.equal((await textOf('/function/all/long')).length, 5_000_000);
    const body = 'y'.repeat(5_000_000);
    const text = await textOf('/function/all/echo', { method: 'POST', body });
    assert.equal(text, `POST 5000000 ${body}`);
  });

  test('runs many calls at once in one instance', async () => {
    const waiting = Array.from({ length: 20 }, () => textOf('/function/all/wait'));
    await waitFor(async () => (await textOf('/function/all/running')) === '20');
    await call('/function/all/release');
    assert.deepEqual(new Set(await Promise.all(waiting)), new Set(['released']));
  });

  test('hears of a caller that leaves and of its deadline', async () => {
    const leave = new AbortController();
    const left = call('/function/all/until-cancelled', { signal: leave.signal });
    await waitFor(async () => (await textOf('/function/all/running')) === '1');
    leave.abort();
    await assert.rejects(left);
    await waitFor(async () => (await textOf('/function/all/cancelled')) === '1');
    const late = await call('/function/all/until-cancelled');
    await problemOf(late, { status: 504, code: 'CALL_DEADLINE_EXCEEDED' });
    await waitFor(async () => (await textOf('/function/all/cancelled')) === '11');
  });

  test('a panic fails its call with file and line, and the instance lives on', async () => {
    const response = await call('/function/all/panic');
    assert.equal(response.headers.get('x-fnway-failure'), 'threw');
    const problem = await problemOf(response, { status: 502, code: 'FUNCTION_FAILED' });
    assert.match(problem.detail, /assignment to entry in nil map/);
    const line = everything.split('\n').findIndex(text => text.includes('nothing["a"]')) + 1;
    assert.match(JSON.stringify(problem), new RegExp(`handler\\.go[^0-9]+${line}\\b`));
    assert.equal(await textOf('/function/all/cancelled'), '11', 'the same instance');
    const late = await call('/function/all/late-panic');
    await assert.rejects(late.text());
    assert.equal(await textOf('/function/all/cancelled'), '11', 'the same instance');
    const log = (await client.readLogs('all')).map(({ text }) => text).join('\n');
    assert.match(log, /panic: .*nil map\n.*Handle\n\thandler\.go:/);
  });

  test('an exit is a crash, and the next call gets a new instance', async () => {
    const response = await call('/function/all/exit');
    assert.equal(response.headers.get('x-fnway-failure'), 'crashed');
    const problem = await problemOf(response, { status: 502, code: 'FUNCTION_FAILED' });
    assert.deepEqual(problem.log?.at(-1), 'last words');
    assert.equal(await textOf('/function/all/cancelled'), '0');
  });

  test('is told of its memory, and ended when it takes more', async () => {
    assert.equal(await textOf('/function/all/memory'), String(Math.floor(256 * 1024 ** 2 * 0.8)));
    const response = await call('/function/all/hoard');
    assert.equal(response.headers.get('x-fnway-failure'), 'out-of-memory');
    await problemOf(response, { status: 502, code: 'FUNCTION_FAILED' });
    assert.equal(await textOf('/function/all/cancelled'), '0', 'another instance answers');
  });

  test('may be any exported function of the file', async () => {
    await put('named', { ...go(everything), entry: 'handler.go:Named' });
    assert.equal(await textOf('/function/named'), 'named');
  });
});

describe('sources in Go', { ...needsGo, timeout: 600_000 }, () => {
  test('sibling files, folders and embedded files belong to it', async () => {
    await put('siblings', {
      runtime: 'go',
      source: {
        files: {
          'handler.go': `package main
import (
	_ "embed"
	"net/http"
	"handler/function/words"
)
//go:embed greeting.txt
var greeting string
func main() {}
func Handle(w http.ResponseWriter, r *http.Request) { w.Write([]byte(greeting + words.World + mark)) }`,
          'mark.go': 'package main\nconst mark = "!"',
          'mark_test.go': 'package main\nthis is not compiled',
          'words/words.go': 'package words\nconst World = "world"',
          'greeting.txt': 'Hello ',
        },
      },
    });
    assert.equal(await textOf('/function/siblings'), 'Hello world!');
  });

  test('a go.mod names the module, and what it replaces by a folder', async () => {
    await put('module', {
      runtime: 'go',
      source: {
        files: {
          'go.mod':
            'module example.com/own\ngo 1.18\nrequire example.com/lib v1.0.0\nreplace example.com/lib => ./lib\n',
          'handler.go': `package own
import ("net/http"; "example.com/lib"; "example.com/own/internal/deep")
var Handle http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(lib.Name + deep.Name)) })`,
          'lib/go.mod': 'module example.com/lib\ngo 1.18\n',
          'lib/lib.go': 'package lib\nconst Name = "lib "',
          'internal/deep/deep.go': 'package deep\nconst Name = "deep"',
        },
      },
    });
    assert.equal(await textOf('/function/module'), 'lib deep');
  });

  test('handlers of OpenFaaS’ templates run as they are', async () => {
    const templates = ['openfaas/templates-sdk/go-http', 'openfaas-incubator/go-function-sdk'];
    for (const [i, sdk] of templates.entries()) {
      await put(
        `template-${i}`,
        go(`package function
import (
	"errors"
	"net/http"

	handler "github.com/${sdk}"
)

func Handle(req handler.Request) (handler.Response, error) {
	if req.QueryString == "fail" {
		return handler.Response{}, errors.New("as asked")
	}
	return handler.Response{
		Body:       append([]byte(req.Method+" "+req.Header.Get("X-Tag")+" "), req.Body...),
		StatusCode: http.StatusAccepted,
		Header:     map[string][]string{"X-From": {"template"}},
	}, req.Context().Err()
}`),
      );
      const response = await call(`/function/template-${i}`, {
        method: 'POST',
        headers: { 'x-tag': 'tag' },
        body: 'body',
      });
      assert.deepEqual([response.status, response.headers.get('x-from')], [202, 'template']);
      assert.equal(await response.text(), 'POST tag body');
      const problem = await problemOf(await call(`/function/template-${i}?fail`), {
        status: 502,
        code: 'FUNCTION_FAILED',
      });
      assert.match(problem.detail, /as asked/);
    }
    await put(
      'classic',
      go('package function\nfunc Handle(req []byte) string { return "got " + string(req) }'),
    );
    assert.equal(await textOf('/function/classic', { method: 'POST', body: 'it' }), 'got it');
  });

  test('what does not compile is refused with file, line and column', async () => {
    const failure = await failed('broken', {
      runtime: 'go',
      source: {
        files: {
          'handler.go': 'package main\nimport "handler/function/lib"\nfunc Handle() { lib.A() }',
          'lib/lib.go': 'package lib\n\nfunc A() int {\n\treturn undefinedThing\n}\n',
        },
      },
    });
    assert.equal(failure.code, 'BUILD_FAILED');
    assert.deepEqual([failure.file, failure.line, failure.column], ['lib/lib.go', 4, 9]);
    assert.match(failure.message, /undefined: undefinedThing/);
    const syntax = await failed('broken', go('package main\n\nfunc Handle( {\n}\n'));
    assert.deepEqual([syntax.file, syntax.line], ['handler.go', 3]);
    assert.match(syntax.message, /syntax error/);
    const module = { 'handler.go': 'package x', 'go.mod': 'module x\n\nnonsense here\n' };
    const unread = await failed('broken', { runtime: 'go', source: { files: module } });
    assert.deepEqual([unread.file, unread.line], ['go.mod', 3], unread.message);
  });

  test('a handler that is missing, not exported or of another kind is named', async () => {
    const other = 'package f\n\nfunc Other() {}\nfunc Handle(n int) {}\n';
    const missing = await failed('unhandled', { ...go(other), entry: 'handler.go:Lost' });
    assert.equal(
      missing.message,
      'there is no Lost. It exports Other, Handle. Name one: entry: handler.go:NAME',
    );
    assert.equal(missing.file, 'handler.go');
    const hidden = await failed('unhandled', { ...go(other), entry: 'handler.go:other' });
    assert.match(hidden.message, /other is not exported.*such as Other/);
    const wrong = await failed('unhandled', go(other));
    assert.equal(wrong.code, 'LOAD_FAILED');
    assert.deepEqual([wrong.file, wrong.line], ['handler.go', 4]);
    assert.match(
      wrong.message,
      /Handle is a func\(int\); write func Handle\(w http\.ResponseWriter/,
    );
  });

  test('a panic before it is loaded is its failure, with file and line', async () => {
    const failure = await failed(
      'initial',
      go(
        'package f\nimport "net/http"\nfunc init() {\n\tpanic("no settings")\n}\nfunc Handle(w http.ResponseWriter, r *http.Request) {}',
      ),
    );
    assert.equal(failure.code, 'LOAD_FAILED');
    assert.match(failure.message, /panic: no settings$/);
    assert.deepEqual([failure.file, failure.line], ['handler.go', 4]);
  });

  test('what a build is given cannot change the cache that all start from', async () => {
    // Flags that would have run as the gateway's user, or put something into all other functions.
    const buildEnv = {
      GOFLAGS: '-tags=mine',
      GOCACHE: '/nowhere/cache',
      NODE_OPTIONS: '--no-warnings',
    };
    const failure = await failed('cache', { ...go(everything), buildEnv });
    assert.match(failure.message, /nowhere/);
  });
});
