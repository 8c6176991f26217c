/**
 * Goal: the commands against a real gateway, as somebody uses them in one directory. Method: the
 * real `fnway serve` on a free port, the real commands beside it with nothing of the machine's
 * settings; what they print and their exit codes are read.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { waitFor } from '../../src/testing/wait-for.ts';

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

test('serve without HTTP runs a project that has only schedules', limit, async () => {
  const project = mkdtempSync(join(tmpdir(), 'fnway-cli-project-'));
  const written = join(project, 'slots');
  writeFileSync(
    join(project, 'fnway.yaml'),
    `functions:
  tick: { script: 'echo "$(cat)" >> "$OUT"', env: { OUT: ${written} }, auth: none }
schedules:
  ticking: { function: tick, every: 1s, body: tock }
`,
  );
  writeFileSync(written, '');
  // Functions of a gateway that runs as root have users of their own.
  chmodSync(project, 0o755);
  chmodSync(written, 0o666);
  const flags = ['--data', join(project, 'data'), '--log-level', 'warn'];
  const serving = start(['serve', '--no-http', ...flags, '--apply', project]);
  try {
    const [line] = await once(serving.stdout!.setEncoding('utf8'), 'data');
    assert.equal(line, 'fnway running without HTTP\n');
    assert.equal(existsSync(join(project, 'data', 'address')), false);
    await waitFor(() => readFileSync(written, 'utf8').startsWith('tock\ntock\n'), {
      ...{ what: 'two slots', timeoutMs: 30_000 },
    });
  } finally {
    serving.kill('SIGTERM');
  }
  const [code] = await once(serving, 'close');
  assert.equal(code, 0);
  rmSync(project, { recursive: true, maxRetries: 10 });
});

describe('schedules of a project', limit, () => {
  const project = mkdtempSync(join(tmpdir(), 'fnway-cli-project-'));
  let gateway: ChildProcess;
  let env: { FNWAY_URL: string; FNWAY_TOKEN: string };
  const write = (schedules: string) =>
    writeFileSync(
      join(project, 'fnway.yaml'),
      `project: shop\nfunctions: { a: { script: cat } }\nschedules: ${schedules}\n`,
    );

  before(async () => {
    const data = join(project, 'data');
    gateway = start(['serve', '--port', '0', '--log-level', 'warn', '--data', data]);
    const [line] = await once(gateway.stdout!.setEncoding('utf8'), 'data');
    env = {
      FNWAY_URL: /http:\S+/.exec(line)![0],
      FNWAY_TOKEN: readFileSync(join(data, 'admin.token'), 'utf8').trim(),
    };
  }, limit);
  after(async () => {
    gateway.kill('SIGTERM');
    await once(gateway, 'close');
    rmSync(project, { recursive: true, force: true, maxRetries: 10 });
  });

  test('are planned, applied, changed and removed with it', limit, async () => {
    write(`{ nightly: { function: a, cron: "0 4 * * *" }, gone: { function: a, every: 1d } }`);
    const plan = await fnway(['plan', project], env);
    assert.match(plan.stdout, /^\+ schedule nightly {2}create$/m, plan.stderr);
    const applied = await fnway(['apply', project], env);
    assert.equal(applied.code, 0, applied.stderr);
    assert.match(applied.stdout, /3 created/);
    assert.match((await fnway(['apply', project], env)).stdout, /3 unchanged/);
    write(`{ nightly: { function: a, cron: "0 5 * * *", body: { secret: 1 } } }`);
    const change = await fnway(['plan', project], env);
    assert.match(change.stdout, /^ {4}cron: 0 4 \* \* \* → 0 5 \* \* \*$/m);
    assert.match(change.stdout, /^ {4}body changed$/m);
    assert.match(change.stdout, /^- schedule gone {2}remove: project shop no longer has it$/m);
    const changed = await fnway(['apply', project], env);
    assert.match(changed.stdout, /1 unchanged, 1 updated, 1 removed/);
  });

  test('are listed, run, paused and resumed', limit, async () => {
    write(`{ nightly: { function: a, cron: "0 4 * * *", timezone: Europe/Berlin, body: hi } }`);
    await fnway(['apply', project], env);
    const list = await fnway(['schedules', 'list'], env);
    assert.match(list.stdout, /^nightly {2}a {9}0 4 \* \* \* Europe\/Berlin {2}20\d\d-/m);
    const { stdout: id } = await fnway(['schedules', 'run', 'nightly'], env);
    const result = await fnway(['invocations', 'result', id.trim(), '--wait', '30s'], env);
    assert.equal(result.stdout, 'hi');
    const history = await fnway(['schedules', 'history', 'nightly'], env);
    assert.ok(history.stdout.includes(`by-hand  ${id.trim()}`), history.stdout);
    assert.equal((await fnway(['schedules', 'pause', 'nightly'], env)).stdout, 'nightly  paused\n');
    assert.match((await fnway(['schedules', 'list'], env)).stdout, /paused$/m);
    const resumed = await fnway(['schedules', 'resume', 'nightly'], env);
    assert.match(resumed.stdout, /^nightly {2}resumed {2}next /);
    assert.equal((await fnway(['schedules', 'run', 'none'], env)).code, 3);
  });

  test('a function that one calls is removed with it, not before it', limit, async () => {
    const early = await fnway(['remove', 'a'], env);
    assert.match(early.stderr, /used by schedule nightly/);
    const destroyed = await fnway(['destroy', project, '--yes'], env);
    assert.equal(destroyed.code, 0, destroyed.stderr);
    assert.match(destroyed.stdout, /2 removed/);
  });
});
