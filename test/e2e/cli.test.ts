/**
 * Goal: the commands against a real gateway, as somebody uses them in one directory. Method: the
 * real `fnway serve` on a free port, the real commands beside it with nothing of the machine's
 * settings; what they print and their exit codes are read.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';

const cli = join(import.meta.dirname, '../../src/cli/cli.ts');
const directory = mkdtempSync(join(tmpdir(), 'fnway-cli-e2e-'));
const limit = { timeout: 60_000 };

after(() => rmSync(directory, { recursive: true, force: true, maxRetries: 10 }));

interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

function start(args: readonly string[], env: object = {}): ChildProcess {
  return spawn(process.execPath, [cli, ...args], {
    cwd: directory,
    env: { PATH: process.env.PATH, HOME: directory, ...env },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
}

async function fnway(args: readonly string[], env: object = {}): Promise<Ended> {
  const child = start(args, env);
  child.stdin!.end();
  const output = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    child[name]!.setEncoding('utf8').on('data', text => {
      output[name] += text;
    });
  }
  const [code] = await once(child, 'close');
  return { code, ...output };
}

describe('the commands beside a gateway', limit, () => {
  let gateway: ChildProcess;
  let url: string;
  const address = join(directory, '.fnway', 'address');

  before(async () => {
    gateway = start(['serve', '--port', '0', '--log-level', 'warn']);
    const [line] = await once(gateway.stdout!.setEncoding('utf8'), 'data');
    url = /http:\S+/.exec(line)![0];
  }, limit);
  after(async () => {
    if (gateway.exitCode === null) gateway.kill('SIGKILL');
  });

  test('find it by the address that it left', limit, async () => {
    assert.equal(readFileSync(address, 'utf8'), `${url}\n`);
    const { code, stdout, stderr } = await fnway(['list', '--json']);
    assert.deepEqual([code, stdout, stderr], [0, '[]\n', '']);
  });

  test('a wrong token is 4, and what was asked with which token is told', limit, async () => {
    const { code, stderr } = await fnway(['list'], { FNWAY_TOKEN: 'wrong' });
    assert.equal(code, 4);
    assert.match(stderr, /^✗ No access\n/);
    assert.ok(stderr.includes(`The gateway at ${url} refused`), stderr);
    assert.match(stderr, /→ Correct FNWAY_TOKEN/);
  });

  test('a clean stop takes the address back', limit, async () => {
    gateway.kill('SIGTERM');
    const [code] = await once(gateway, 'close');
    assert.equal(code, 0);
    assert.equal(existsSync(address), false);
  });
});

test('serve applies a project to the namespace that it is given', limit, async () => {
  const project = mkdtempSync(join(tmpdir(), 'fnway-cli-project-'));
  writeFileSync(join(project, 'fnway.yaml'), 'functions:\n  a: { script: echo a, auth: none }\n');
  const flags = ['--data', join(project, 'data'), '--port', '0', '--log-level', 'warn'];
  const serving = start(['serve', ...flags, '--apply', project, '-n', 'team']);
  try {
    const [line] = await once(serving.stdout!.setEncoding('utf8'), 'data');
    const url = /http:\S+/.exec(line)![0];
    assert.equal(await (await fetch(`${url}/function/a.team`)).text(), 'a\n');
    assert.equal((await fetch(`${url}/function/a`)).status, 401);
  } finally {
    serving.kill('SIGTERM');
  }
  const [code] = await once(serving, 'close');
  assert.equal(code, 0);
  rmSync(project, { recursive: true, maxRetries: 10 });
});
