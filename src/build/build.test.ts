/**
 * Goal: the entry is found, and no tool outlives or exceeds its build, nor learns more than it is
 * told. Method: stand-ins for npm that hang, flood or print what they see. The real tools:
 * typescript, npm and pip tests.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, it } from 'node:test';
import { type Clock, systemClock } from '../clock.ts';
import { isGatewayError } from '../errors.ts';
import { type BuildRequest, buildLimits, createBuilder } from './build.ts';
import { createFixture, identity, needsNpm, never, toolUid, waitUntil } from './build-fixture.ts';
import { BuildLog } from './build-log.ts';

const { requestFor, built, failed, toolsWithNpm } = createFixture(process.env.PATH ?? '');

describe('the entry', () => {
  it('is the first default that exists', async () => {
    const request = await requestFor({ 'index.js': '', 'handler.js': '' });
    assert.equal((await built(request)).entry, 'handler.js');
  });

  it('is the one the definition names', async () => {
    const request = await requestFor({ 'src/x.js': '', 'handler.js': '' }, { entry: './src/x.js' });
    assert.equal((await built(request)).entry, 'src/x.js');
  });

  it('that is not there is named with the files that are', async () => {
    const request = await requestFor({ 'b.py': '', 'a/c.js': '' }, { entry: 'x.js' });
    const { code, file, message } = await failed(request);
    assert.equal(code, 'BUILD_FAILED');
    assert.equal(file, 'x.js');
    assert.match(
      message,
      /no file x\.js in the source; it has a\/c\.js, b\.py\. Name one: entry: FILE$/,
    );
  });

  it('missing among many files names only the first twenty', async () => {
    const names = Array.from({ length: 25 }, (_, at) => `f${String(at).padStart(2, '0')}`);
    const request = await requestFor(Object.fromEntries(names.map(name => [name, ''])));
    const { message } = await failed(request);
    assert.match(
      message,
      /none of handler\.ts, handler\.js, index\.js .*f19 and 5 more\. Name one/,
    );
    assert.equal(buildLimits.filesNamedMax, 20);
  });

  it('outside of the source is not there', async () => {
    for (const entry of ['../1/handler.js', '/etc/passwd', 'handler.js/x', '.', '']) {
      const request = await requestFor({ 'handler.js': '' }, { entry });
      assert.equal((await failed(request)).code, 'BUILD_FAILED');
    }
  });
});

describe('a build', () => {
  /** Starts a child of its own, names both in the file and never ends. */
  const hang = `
    const { spawn } = require('node:child_process');
    process.on('SIGTERM', () => {});
    const forever = ['-e', 'setInterval(() => {}, 1000)'];
    const child = spawn(process.execPath, forever, { stdio: 'inherit' });
    fs.writeFileSync('pids.part', process.pid + ' ' + child.pid + ' ' + process.env.HOME);
    fs.renameSync('pids.part', 'pids');
    setInterval(() => {}, 1000);
  `;

  async function hanging(request: BuildRequest): Promise<{ pids: number[]; home: string }> {
    const file = path.join(request.directory, 'pids');
    await waitUntil('the tool runs', () => existsSync(file));
    const [parent, child, home] = readFileSync(file, 'utf8').split(' ');
    return { pids: [Number(parent), Number(child)], home: home! };
  }

  it('that is aborted ends its tools with their children and rejects with the reason', async () => {
    const request = await requestFor(needsNpm);
    const builder = createBuilder({ tools: await toolsWithNpm(hang), clock: systemClock });
    const abort = new AbortController();
    const result = builder.build(request, abort.signal);
    const { pids, home } = await hanging(request);
    assert.ok(pids.every(isAlive) && existsSync(home));
    const reason = new Error('no longer wanted');
    abort.abort(reason);
    await assert.rejects(result, error => error === reason);
    await waitUntil('both processes are gone', () => !pids.some(isAlive));
    assert.ok(!existsSync(home));
  });

  it('that takes too long ends its tools and names the limit', async () => {
    const request = await requestFor(needsNpm);
    const alarms: { delayMs: number; fn: () => void }[] = [];
    const clock: Clock = {
      ...systemClock,
      after: (delayMs, fn) => {
        alarms.push({ delayMs, fn });
        return { cancel: () => {} };
      },
    };
    const result = failed(request, { tools: await toolsWithNpm(hang), clock });
    const { pids } = await hanging(request);
    assert.equal(alarms[0]!.delayMs, buildLimits.buildTimeoutMsMax);
    alarms[0]!.fn();
    const { code, message, log } = await result;
    assert.equal(code, 'BUILD_TIMED_OUT');
    assert.match(message, /600000 ms \(FNWAY_BUILD_MS_MAX\)/);
    assert.match(log, /npm-cli\.js install/);
    await waitUntil('both processes are gone', () => !pids.some(isAlive));
  });

  it('that ends leaves no process of its tools behind', async () => {
    const request = await requestFor(needsNpm);
    const tools = await toolsWithNpm(`${hang}\nprocess.exit(0);`);
    await built(request, { tools });
    const { pids } = await hanging(request);
    await waitUntil('the child is gone', () => !pids.some(isAlive));
  });

  it('does not wait for a process that left its group', async () => {
    const script = `
      const { spawn } = require('node:child_process');
      const options = { detached: true, stdio: 'inherit' };
      const left = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], options);
      console.log('left ' + left.pid);
      process.exit(0);
    `;
    // The pipes that it holds open are given up at once instead of after a moment.
    const clock: Clock = {
      ...systemClock,
      after: (delayMs, fn) => systemClock.after(delayMs < 10_000 ? 0 : delayMs, fn),
    };
    const tools = await toolsWithNpm(script);
    const { log } = await built(await requestFor(needsNpm), { tools, clock });
    const pid = Number(/left (\d+)/.exec(log)![1]);
    assert.ok(isAlive(pid));
    process.kill(pid, 'SIGKILL');
  });

  it('is ended by closing the builder, which takes no more', async () => {
    const request = await requestFor(needsNpm);
    const builder = createBuilder({
      tools: await toolsWithNpm(hang),
      clock: systemClock,
      buildsMax: 1,
    });
    const isStopping = (error: unknown) =>
      isGatewayError(error) && error.code === 'GATEWAY_STOPPING';
    const results = [
      assert.rejects(builder.build(request, never), isStopping),
      assert.rejects(builder.build(request, never), isStopping),
    ];
    const { pids } = await hanging(request);
    await builder.close();
    await builder.close();
    await Promise.all(results);
    await waitUntil('both processes are gone', () => !pids.some(isAlive));
    await assert.rejects(builder.build(request, never), isStopping);
  });

  it('waits for its turn when as many run as may', async () => {
    const script = `
      fs.writeFileSync('started', '');
      const timer = setInterval(() => fs.existsSync('go') && process.exit(0), 5);
    `;
    const requests = [
      await requestFor(needsNpm),
      await requestFor(needsNpm),
      await requestFor(needsNpm),
    ];
    const tools = await toolsWithNpm(script);
    const builder = createBuilder({ tools, clock: systemClock, buildsMax: 1 });
    const leaving = new AbortController();
    const first = builder.build(requests[0]!, never);
    const second = builder.build(requests[1]!, leaving.signal);
    const third = builder.build(requests[2]!, never);
    const started = (at: number) => existsSync(path.join(requests[at]!.directory, 'started'));
    const go = (at: number) => writeFile(path.join(requests[at]!.directory, 'go'), '');
    await waitUntil('the first runs', () => started(0));
    leaving.abort(new Error('left'));
    await assert.rejects(second, /left/);
    assert.ok(!started(2));
    await go(0);
    assert.ok((await first).ok);
    await waitUntil('the third runs', () => started(2));
    await go(2);
    assert.ok((await third).ok);
    assert.ok(!started(1));
  });

  it("gives its tools nothing of the gateway's environment but what it is told to", async () => {
    process.env.SECRET = 'of the gateway';
    const request = await requestFor(needsNpm, { buildEnv: { MINE: '1', THEIRS: 'mine' } });
    const tools = await toolsWithNpm(
      'const seen = [process.env, process.getuid(), process.getgroups(), process.cwd()];' +
        'fs.writeFileSync("seen", JSON.stringify(seen));',
    );
    await built(request, { tools, toolEnv: { THEIRS: 'x', PIP_CERT: 'y' } });
    const seen = await readFile(path.join(request.directory, 'seen'), 'utf8');
    const [{ PATH, HOME, TMPDIR, ...env }, uid, groups, cwd] = JSON.parse(seen);
    assert.deepEqual(env, { LANG: 'C.UTF-8', MINE: '1', THEIRS: 'mine', PIP_CERT: 'y' });
    assert.ok(PATH.startsWith(`${path.dirname(process.execPath)}:`));
    assert.ok(HOME === TMPDIR && !existsSync(HOME));
    assert.equal(cwd, request.directory);
    assert.equal(uid, toolUid);
    if (identity !== undefined) assert.deepEqual(groups, [identity.gid]);
  });

  it('keeps the beginning and the end of a long log', async () => {
    const request = await requestFor(needsNpm);
    const tools = await toolsWithNpm(`
      fs.writeSync(1, 'first\\n' + 'x'.repeat(50000) + '\\n');
      fs.writeSync(2, 'npm error last\\n');
      process.exit(1);
    `);
    const { log, message } = await failed(request, { tools, outputBytesMax: 1000 });
    assert.ok(Buffer.byteLength(log) < 1100);
    assert.match(
      log,
      /^\$ .*npm-cli\.js install[\s\S]*first\n[\s\S]*bytes left out[\s\S]*npm error last\n$/,
    );
    assert.match(message, /last$/);
  });

  it('with an installer that the gateway does not have says so', async () => {
    const files = { 'handler.go': '', 'go.mod': '' };
    const go = { installer: 'go', dependenciesFile: 'go.mod', entry: 'handler.go' };
    const { code, message } = await failed(await requestFor(files, go));
    assert.equal(code, 'BUILD_TOOL_MISSING');
    assert.match(message, /installer "go"/);
    await built(await requestFor(files, { ...go, installer: 'none' }));
  });
});

it('a log within its limit is whole', () => {
  const log = new BuildLog(10);
  for (const part of ['abc', 'def', 'ghij']) log.append(part);
  assert.equal(log.text(), 'abcdefghij');
  log.append('k');
  assert.equal(log.text(), 'abcde\n… 1 bytes left out …\nghijk');
});

/** A process that nobody has reaped yet is not alive. */
function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return !/^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}
