/**
 * Goal: whatever is killed, no process of a function outlives its gateway by a second, and the next start finds a
 * clean machine. Method: the real `fnway serve` in a process of its own, real functions that do their worst, kill -9;
 * /proc is read for processes that carry the gateway's mark and for the pids that functions reported.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

const cli = join(import.meta.dirname, '../../src/cli/cli.ts');
const isRoot = process.getuid?.() === 0;
const python = ['/usr/bin/python3', '/usr/local/bin/python3'].some(existsSync);

const directories: string[] = [];
const running = new Set<Gateway>();
after(() => {
  for (const gateway of running) gateway.endAll();
  for (const directory of directories) rmSync(directory, { recursive: true, force: true });
});

function newDirectory(mode = 0o755): string {
  const directory = mkdtempSync(join(tmpdir(), 'fnway-kill-'));
  chmodSync(directory, mode);
  directories.push(directory);
  return directory;
}

class Gateway {
  readonly child: ChildProcess;
  readonly url: string;
  readonly data: string;

  constructor(child: ChildProcess, url: string, data: string) {
    this.child = child;
    this.url = url;
    this.data = data;
    running.add(this);
  }

  get mark(): string {
    return readFileSync(join(this.data, 'gateway-id'), 'utf8').trim();
  }

  /** Processes of functions: they carry the mark. */
  marked(): number[] {
    const line = `FNWAY_GATEWAY=${this.mark}\0`;
    return pids().filter(pid => read(`/proc/${pid}/environ`).includes(line));
  }

  keeper(): number | undefined {
    const name = `fnway-keeper\0${this.mark}\0`;
    return pids().find(pid => read(`/proc/${pid}/cmdline`).includes(name));
  }

  async request(method: string, path: string, body?: unknown): Promise<Response> {
    const token = readFileSync(join(this.data, 'admin.token'), 'utf8').trim();
    return fetch(`${this.url}${path}`, {
      method,
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
  }

  async deploy(name: string, definition: unknown, wait = '30s'): Promise<void> {
    const path = `/v1/namespaces/default/functions/${name}?wait=${wait}`;
    const response = await this.request('PUT', path, { auth: 'none', ...(definition as object) });
    assert.ok(response.ok, await response.clone().text());
  }

  async call(name: string): Promise<string> {
    const response = await fetch(`${this.url}/function/${name}`, { method: 'POST', body: 'x' });
    const text = await response.text();
    assert.ok(response.ok, `${name}: ${response.status} ${text}`);
    return text;
  }

  /** Calls a function that never answers. */
  provoke(name: string): void {
    fetch(`${this.url}/function/${name}`, { method: 'POST' }).catch(() => {});
  }

  async kill(): Promise<void> {
    this.child.kill('SIGKILL');
    if (this.child.exitCode === null && this.child.signalCode === null)
      await once(this.child, 'exit');
    running.delete(this);
  }

  async stop(): Promise<void> {
    this.child.kill('SIGTERM');
    if (this.child.exitCode === null) await once(this.child, 'exit');
    running.delete(this);
  }

  /** After a failed test. */
  endAll(): void {
    this.child.kill('SIGKILL');
    try {
      for (const pid of this.marked()) process.kill(pid, 'SIGKILL');
    } catch {}
  }
}

function pids(): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter(pid => pid > 0);
}

function read(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}

async function serve(data = join(newDirectory(), 'data')): Promise<Gateway> {
  const child = spawn(
    process.execPath,
    [cli, 'serve', '--data', data, '--port', '0', '--log-level', 'warn'],
    { stdio: ['ignore', 'pipe', 'pipe'], env: { PATH: process.env.PATH } },
  );
  let text = '';
  const gather = (chunk: Buffer) => {
    text += chunk;
  };
  child.stdout!.on('data', gather);
  child.stderr!.on('data', gather);
  for (let waitedMs = 0; waitedMs < 15_000; waitedMs += 20) {
    const url = /http:\/\/127\.0\.0\.1:\d+/.exec(text)?.[0];
    if (url !== undefined) return new Gateway(child, url, data);
    if (child.exitCode !== null) break;
    await sleep(20);
  }
  child.kill('SIGKILL');
  throw new Error(`the gateway did not start:\n${text}`);
}

async function until(what: string, msMax: number, holds: () => boolean): Promise<void> {
  const endMs = performance.now() + msMax;
  while (!holds()) {
    assert.ok(performance.now() < endMs, `${what}: not within ${msMax} ms`);
    await sleep(20);
  }
}

/** No process with the mark is left a second after now. */
async function assertAllEnd(gateway: Gateway): Promise<void> {
  await until('no process is left', 1000, () => gateway.marked().length === 0).catch(error => {
    const left = gateway.marked().map(pid => read(`/proc/${pid}/cmdline`).replaceAll('\0', ' '));
    gateway.endAll();
    throw new Error(`${error.message}; left: ${left.join(' | ')}`);
  });
}

const nodeFunction = (code: string) => ({
  runtime: 'node',
  source: { files: { 'handler.mjs': code } },
});
const pythonFunction = (code: string) => ({
  runtime: 'python',
  source: { files: { 'handler.py': code } },
});

const limit = { timeout: 60_000 };

const worst: Array<[string, object, boolean]> = [
  ['node-loop', nodeFunction('export default () => { for (;;); }'), true],
  ['shell-loop', { script: 'while :; do :; done' }, true],
  ['shell-children', { script: 'sleep 1000 & setsid sleep 1000 & wait' }, true],
  [
    'node-children',
    nodeFunction(`import { spawn } from 'node:child_process';
      export default () => {
        spawn('sleep', ['1000']);
        spawn('sleep', ['1000'], { detached: true });
        for (;;);
      };`),
    true,
  ],
  ['python-loop', pythonFunction('def handle(event):\n    while True: pass\n'), python],
  [
    'python-children',
    pythonFunction(`import subprocess
def handle(event):
    subprocess.Popen(['sleep', '1000'])
    subprocess.Popen(['sleep', '1000'], start_new_session=True)
    while True: pass
`),
    python,
  ],
];

/** Starts every function at its worst and waits until all of that runs. */
async function provokeAll(gateway: Gateway): Promise<void> {
  const functions = worst.filter(([, , there]) => there);
  await Promise.all(functions.map(([name, definition]) => gateway.deploy(name, definition)));
  for (const [name] of functions) gateway.provoke(name);
  const sleeping = () =>
    gateway.marked().filter(pid => read(`/proc/${pid}/cmdline`).startsWith('sleep\0')).length;
  await until('every child runs', 15_000, () => sleeping() === (python ? 6 : 4));
}

describe('kill -9', limit, () => {
  test('of the gateway ends every process of its functions within a second', limit, async () => {
    const gateway = await serve();
    await provokeAll(gateway);
    await gateway.kill();
    await assertAllEnd(gateway);
  });

  test('of the keeper brings a new one, which does the same', limit, async () => {
    const gateway = await serve();
    await provokeAll(gateway);
    const first = gateway.keeper()!;
    process.kill(first, 'SIGKILL');
    await until('a new keeper', 2000, () => ![undefined, first].includes(gateway.keeper()));
    await gateway.kill();
    await assertAllEnd(gateway);
  });

  test('of gateway and keeper together leaves it to the next start', limit, async () => {
    const gateway = await serve();
    await provokeAll(gateway);
    const keeper = gateway.keeper()!;
    // Held first: it would start another keeper in the moment between the two.
    process.kill(gateway.child.pid!, 'SIGSTOP');
    process.kill(keeper, 'SIGKILL');
    await gateway.kill();
    const left = gateway.marked();
    assert.ok(left.length > 0, 'otherwise this shows nothing');
    const next = await serve(gateway.data);
    await until('the leftovers end', 1000, () => !next.marked().some(pid => left.includes(pid)));
    await next.deploy('after', { script: 'printf fine' });
    assert.equal(await next.call('after'), 'fine');
    await next.stop();
    await assertAllEnd(next);
  });

  test(
    'during a build ends the build’s processes, and the next start resumes it',
    limit,
    async () => {
      const gateway = await serve();
      const source = {
        'package.json': JSON.stringify({ name: 'f', dependencies: { slow: 'file:./slow' } }),
        'slow/package.json': JSON.stringify({
          name: 'slow',
          version: '1.0.0',
          scripts: { install: 'sleep 987; true' },
        }),
        'handler.mjs': 'export default () => new Response("built")',
      };
      const definition = { runtime: 'node', source: { files: source }, allowScripts: true };
      await gateway.deploy('built', definition, '0s');
      const building = () =>
        pids().filter(pid => read(`/proc/${pid}/cmdline`) === 'sleep\x00987\x00');
      let began = true;
      await until('the build runs', 10_000, () => building().length > 0).catch(() => {
        began = false;
      });
      await gateway.kill();
      const orphans = await until('the build ends', 1000, () => building().length === 0).then(
        () => [],
        () => building(),
      );
      for (const pid of orphans) process.kill(pid, 'SIGKILL');
      const next = await serve(gateway.data);
      try {
        let answer = '';
        for (let tries = 0; answer !== 'built' && tries < 100; tries++) {
          answer = await next.call('built').catch(() => '');
          if (answer !== 'built') await sleep(100);
          for (const pid of building()) process.kill(pid, 'SIGKILL');
        }
        assert.equal(answer, 'built');
      } finally {
        await next.stop();
      }
      assert.equal(began, true, 'the install script did not run: this shows less than it should');
      assert.deepEqual(orphans, [], 'processes of the build outlived the gateway');
    },
  );
});

describe('kill -9 while a source is written', limit, () => {
  test('leaves nothing that keeps the next gateway from building it', limit, async () => {
    const gateway = await serve();
    const files = Object.fromEntries(
      Array.from({ length: 900 }, (_, i) => [`lib/${i % 30}/${i}.txt`, 'x'.repeat(500)]),
    );
    const source = {
      files: { ...files, 'handler.mjs': 'export default () => new Response("hi")' },
    };
    const put = gateway.deploy('torn', { runtime: 'node', source }, '0s').catch(() => {});
    const code = join(gateway.data, 'code');
    const isWriting = () =>
      readdirSync(code).some(
        name => name.startsWith('fn_') && readdirSync(join(code, name)).includes('.writing-1'),
      );
    await until('its files are written', 10_000, isWriting);
    await gateway.kill();
    await put;
    assert.ok(isWriting(), 'otherwise this shows nothing');
    const next = await serve(gateway.data);
    let answer = '';
    for (let tries = 0; answer !== 'hi' && tries < 100; tries++) {
      answer = await next.call('torn').catch(() => '');
      if (answer !== 'hi') await sleep(100);
    }
    assert.equal(answer, 'hi');
    await next.request('DELETE', '/v1/namespaces/default/functions/torn');
    assert.deepEqual(
      readdirSync(code).filter(name => name.startsWith('fn_')),
      [],
    );
    await next.stop();
  });
});

describe('SIGTERM', limit, () => {
  test('ends every process too', limit, async () => {
    const gateway = await serve();
    await gateway.deploy('kept', { ...nodeFunction('export default () => new Response("hi")') });
    await gateway.deploy('script', { script: 'printf hi' });
    assert.equal(await gateway.call('kept'), 'hi');
    assert.equal(await gateway.call('script'), 'hi');
    await gateway.stop();
    assert.equal(gateway.child.exitCode, 0);
    await assertAllEnd(gateway);
    assert.equal(gateway.keeper(), undefined);
  });
});

describe('as root', { ...limit, skip: !isRoot }, () => {
  test(
    'functions have users of their own and read nothing of others or the gateway',
    limit,
    async () => {
      const gateway = await serve();
      const spy = nodeFunction(`
      import { execFileSync } from 'node:child_process';
      import { readFileSync, readdirSync } from 'node:fs';
      export default async request => {
        const { paths } = await request.json();
        const seen = {};
        for (const path of paths) {
          try { readFileSync(path); seen[path] = 'read'; } catch (error) { seen[path] = error.code; }
        }
        return Response.json({ uid: process.getuid(), directory: process.cwd(), seen });
      };`);
      const secret = nodeFunction('export default () => new Response(process.cwd())');
      await gateway.deploy('spy', spy);
      await gateway.deploy('secret', secret);
      await gateway.deploy('script', { script: 'id -u; pwd' });
      const other = await gateway.call('secret');
      const [scriptUid, scriptDirectory] = (await gateway.call('script')).trim().split('\n');
      const paths = [
        join(other, 'handler.mjs'),
        join(scriptDirectory!, 'script.sh'),
        ...['admin.token', 'key', 'fnway.db', 'lock', 'gateway-id', 'fnway.db-wal'].map(name =>
          join(gateway.data, name),
        ),
        `/proc/${gateway.child.pid}/environ`,
      ];
      const response = await fetch(`${gateway.url}/function/spy`, {
        method: 'POST',
        body: JSON.stringify({ paths }),
      });
      const { uid, seen } = (await response.json()) as {
        uid: number;
        seen: Record<string, string>;
      };
      assert.ok(uid >= 1_900_000_000);
      assert.notEqual(Number(scriptUid), uid);
      assert.ok(Number(scriptUid) >= 1_900_000_000);
      for (const path of paths) assert.match(seen[path]!, /^(?:EACCES|EPERM|ENOENT)$/, path);
      for (const path of paths.slice(0, 5)) assert.equal(seen[path], 'EACCES', path);
      await gateway.stop();
    },
  );

  test('a data directory below a 0700 directory works', limit, async () => {
    const home = newDirectory(0o700);
    const gateway = await serve(join(home, 'project', '.fnway'));
    await gateway.deploy('deep', nodeFunction('export default () => new Response("deep")'));
    await gateway.deploy('script', { script: 'printf deeper' });
    assert.equal(await gateway.call('deep'), 'deep');
    assert.equal(await gateway.call('script'), 'deeper');
    await gateway.stop();
    rmSync(join('/var/lib/fnway', gateway.mark), { recursive: true, force: true });
  });
});
