/**
 * Goal: the process driver passes the suite of drivers, for linked and for stdio runtimes, and leaves no process
 * behind. Method: the real runtimes; functions are small files in a directory of the test's own.
 */
import assert from 'node:assert/strict';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Masks } from '../../auth/masks.ts';
import { sleep, systemClock } from '../../clock.ts';
import type { Runtime } from '../../domain/runtime.ts';
import { CallSignal, type Version } from '../../invoke/invoke.ts';
import { silentLog } from '../../log.ts';
import { OutputLog } from '../../telemetry/output.ts';
import { type Behaviour, driverContract } from '../contract.ts';
import { mockCall, mockVersion } from '../mock.ts';
import { createExpress } from './framework.ts';
import { openProcessDriver, type ProcessDriver } from './process.ts';
import { readRuntimes } from './runtimes.ts';
import { Users } from './users.ts';

const runtimesDirectory = join(import.meta.dirname, '../../../runtimes');
const python = ['/usr/bin/python3', '/usr/local/bin/python3'].find(existsSync);

let directory: string;
before(() => {
  directory = mkdtempSync(join(tmpdir(), 'fnway-process-'));
});
after(() => rmSync(directory, { recursive: true, force: true }));

let marks = 0;

function openDriver(parts: { warm?: number; runtimes?: Map<string, Runtime>; mark?: string } = {}) {
  const output = new OutputLog(() => systemClock.now());
  const mark = parts.mark ?? `test-${process.pid}-${++marks}`;
  const driver = openProcessDriver({
    runtimes: parts.runtimes ?? readRuntimes([runtimesDirectory]),
    interpreters: { node: process.execPath, python },
    users: new Users(),
    mark,
    baseEnv: { PATH: '/usr/bin:/bin', LANG: 'C.UTF-8', HOME: '/tmp' },
    bufferedBodyBytesMax: 2 * 1024 ** 2,
    express: createExpress({ directory, esbuild: undefined }),
    loadMsMax: 10_000,
    warm: parts.warm ?? 0,
    clock: systemClock,
    log: silentLog,
    output,
    secretOf: () => undefined,
    masks: new Masks(),
  });
  return { driver, output, mark };
}

/** A driver for the suite; what it leaves is ended after the test, so that one failure stays one. */
async function opened(parts: { runtimes?: Map<string, Runtime> } = {}) {
  const { driver, mark } = openDriver(parts);
  const close = async () => {
    for (const pid of marked(mark)) process.kill(pid, 'SIGKILL');
  };
  return { driver: await driver, close };
}

let sources = 0;

function sourceVersion(runtime: string, entry: string, code: string): Version {
  const place = join(directory, `v${++sources}`);
  mkdirSync(place);
  if (code !== '') writeFileSync(join(place, entry), code);
  const version = mockVersion({}, { concurrency: 10 });
  const spec = { ...version.spec, kind: 'source' as const, runtime };
  return { ...version, spec, files: { directory: place, entry, home: directory } };
}

function scriptVersion(script: string): Version {
  const version = sourceVersion('shell', 'script.sh', script);
  return { ...version, spec: { ...version.spec, kind: 'script' } };
}

const nodeCode: Record<Exclude<Behaviour, 'unstartable'>, string> = {
  echo: 'export default request => new Response(request.body, { status: 201 })',
  slow: `export default () => new Promise(resolve =>
    setTimeout(() => resolve(new Response('late')), 300))`,
  silent: `export default request => new Promise((_, reject) =>
    request.signal.addEventListener('abort', () => reject(request.signal.reason)))`,
  stubborn: 'export default () => new Promise(() => {})',
  endless: `async function* parts(signal) {
      yield 'first';
      await new Promise((_, reject) =>
        signal.addEventListener('abort', () => reject(signal.reason)));
    }
    export default request => new Response(ReadableStream.from(parts(request.signal)));`,
  failing: 'export default () => { throw new Error("no luck") }',
  crashing: 'export default () => process.kill(process.pid, "SIGSEGV")',
  breaking: `async function* parts() { yield 'first'; throw new Error('it broke'); }
    export default () => new Response(ReadableStream.from(parts()));`,
  mistaken: 'export default (',
};

const broken: Runtime = {
  ...readRuntimes([join(runtimesDirectory, 'node')]).get('node')!,
  name: 'broken',
  command: ['/nonexistent/interpreter'],
};

function withBroken(): Map<string, Runtime> {
  return readRuntimes([runtimesDirectory]).set('broken', broken);
}

describe('the suite of drivers, on the node runtime', () => {
  driverContract(async () => ({
    ...(await opened({ runtimes: withBroken() })),
    version: behaviour =>
      behaviour === 'unstartable'
        ? sourceVersion('broken', 'handler.mjs', nodeCode.echo)
        : sourceVersion('node', 'handler.mjs', nodeCode[behaviour]),
  }));
});

const shellCode: Record<Behaviour, string> = {
  echo: 'cat',
  slow: 'sleep 0.3; printf late',
  silent: 'sleep 1000',
  stubborn: 'trap "" TERM INT; while :; do :; done',
  endless: 'printf first; sleep 1000',
  failing: 'exit 3',
  crashing: 'kill -9 $$',
  breaking: 'printf first; sleep 0.05; exit 3',
  mistaken: 'if then',
  unstartable: 'cat',
};

describe('the suite of drivers, on the shell runtime', () => {
  driverContract(
    async () => ({
      ...(await opened()),
      version(behaviour) {
        const version = scriptVersion(shellCode[behaviour]);
        const stream = behaviour === 'endless' || behaviour === 'breaking';
        const spec = { ...version.spec, stream };
        if (behaviour !== 'unstartable') return { ...version, spec };
        return { ...version, spec: { ...spec, kind: 'source', runtime: 'gone' } };
      },
    }),
    {
      skip: [
        { test: 'a call is answered with head', reason: 'a script cannot give a status' },
        { test: 'bodies stream both ways', reason: 'a script’s answer is one piece unless stream' },
        { test: 'an instance that crashes', reason: 'a process a call: the instance lives on' },
        {
          test: 'a request body that breaks off',
          reason: 'covered by the abort that comes with it',
        },
      ],
    },
  );
});

/** Living processes that carry a gateway's mark. */
function marked(mark: string): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter(pid => {
      if (!(pid > 0)) return false;
      try {
        return readFileSync(`/proc/${pid}/environ`, 'latin1').includes(`FNWAY_GATEWAY=${mark}\0`);
      } catch {
        return false;
      }
    });
}

async function until(what: string, holds: () => boolean, msMax = 5000): Promise<void> {
  for (let waitedMs = 0; !holds(); waitedMs += 10) {
    assert.ok(waitedMs < msMax, `${what} did not come within ${msMax} ms`);
    await sleep(systemClock, 10);
  }
}

const limit = { timeout: 20_000 };

async function startOn(driver: ProcessDriver, version: Version) {
  const started = await driver.start(version);
  assert.ok(started.ok, JSON.stringify(started));
  return started.instance;
}

describe('no process is left behind', limit, () => {
  const cases: Array<[string, () => Version]> = [
    [
      'a busy loop in node',
      () => sourceVersion('node', 'h.mjs', 'export default () => { for (;;); }'),
    ],
    ['a busy loop in a script', () => scriptVersion('while :; do :; done')],
    [
      'grandchildren, one in a session of its own',
      () => scriptVersion('sleep 1000 & setsid sleep 1000 & wait'),
    ],
  ];
  for (const [what, makeVersion] of cases) {
    test(`by close: ${what}`, limit, async () => {
      const { driver: opening, mark } = openDriver();
      const driver = await opening;
      const version = makeVersion();
      const instance = await startOn(driver, version);
      instance.invoke(mockCall(version), new CallSignal(), () => {}).catch(() => {});
      await sleep(systemClock, 200);
      await driver.close();
      await until('the end of all', () => marked(mark).length === 0, 1000).catch(error => {
        for (const pid of marked(mark)) process.kill(pid, 'SIGKILL');
        throw error;
      });
    });
  }

  test('by close: a warm pool', limit, async () => {
    const { driver: opening, mark } = openDriver({ warm: 2 });
    const driver = await opening;
    await driver.warmUp();
    assert.ok(marked(mark).length >= 2);
    await driver.close();
    await until('the end of all', () => marked(mark).length === 0, 1000);
  });

  test('by a load that closes its link and goes on', { ...limit, skip: !python }, async () => {
    const { driver: opening, mark } = openDriver();
    const driver = await opening;
    const code = 'import os\nos.closerange(3, 256)\nwhile True: pass\n';
    const started = await driver.start(sourceVersion('python', 'handler.py', code));
    assert.equal(started.ok, false);
    const only = () => marked(mark).length;
    try {
      // The fork server stays.
      await until('the end of the child', () => only() <= 1, 1500);
    } finally {
      await driver.close();
      for (const pid of marked(mark)) process.kill(pid, 'SIGKILL');
    }
  });

  test('by the next start with the same mark', limit, async () => {
    const { driver: first, mark } = openDriver({ warm: 1 });
    await (await first).warmUp();
    const old = marked(mark);
    assert.ok(old.length > 0);
    const second = await openDriver({ mark }).driver;
    await until('their end', () => !marked(mark).some(pid => old.includes(pid)));
    await second.close();
    await (await first).close();
  });
});

describe('a fork server', { ...limit, skip: !python }, () => {
  test('that could not be started is tried again by the next call', limit, async t => {
    const program = join(directory, 'later.sh');
    const pythonRuntime = readRuntimes([join(runtimesDirectory, 'python')]).get('python')!;
    const runtime = { ...pythonRuntime, name: 'later', command: [program] };
    const { driver: opening } = openDriver({ runtimes: new Map([['later', runtime]]) });
    const driver = await opening;
    const version = sourceVersion('later', 'handler.py', 'def handle(event): return "hi"');
    t.after(() => driver.close());
    await assert.rejects(driver.start(version), { code: 'INSTANCE_NOT_STARTED' });
    const run = pythonRuntime.command
      .map(word => word.replace('{python}', python!).replace('{runtime}', pythonRuntime.directory))
      .join(' ');
    writeFileSync(program, `#!/bin/sh\nexec ${run}\n`, { mode: 0o755 });
    const started = await driver.start(version);
    assert.equal(started.ok, true);
  });

  test('that ends while a child is wanted fails the start at once', limit, async () => {
    const pythonRuntime = readRuntimes([join(runtimesDirectory, 'python')]).get('python')!;
    const command = ['/bin/sh', '-c', 'read secret; exit 1'];
    const runtime = { ...pythonRuntime, name: 'dying', command };
    const { driver: opening } = openDriver({ runtimes: new Map([['dying', runtime]]) });
    const driver = await opening;
    const version = sourceVersion('dying', 'handler.py', 'def handle(event): return "hi"');
    const startedMs = systemClock.monotonicMs();
    const outcome = await Promise.race([
      driver.start(version).catch(error => error.code),
      sleep(systemClock, 2000).then(() => 'still waiting'),
    ]);
    await driver.close();
    assert.equal(outcome, 'INSTANCE_NOT_STARTED', `${systemClock.monotonicMs() - startedMs} ms`);
  });
});
