/**
 * Goal: where the gateway may write control groups, the kernel keeps an instance's memory limit, and nothing of a group
 * is left when it is released. Method: real groups, real processes that allocate when they are told to. Skipped where
 * no group can be made; that is found out here without the code under test.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, test } from 'node:test';
import { systemClock } from '../../clock.ts';
import { newSecret } from '../../ids.ts';
import { silentLog } from '../../log.ts';
import { waitFor } from '../../testing/wait-for.ts';
import { type Cgroups, cgroupPaths, openCgroups } from './cgroup.ts';

const mebi = 1024 ** 2;
const newMark = () => `test-${newSecret('').slice(0, 12)}`;

/** Why this machine shows nothing; false when it does. */
function whyNot(): string | false {
  const swap = existsSync('/proc/swaps') && readFileSync('/proc/swaps', 'utf8').split('\n').length;
  if (swap && swap > 2) return 'with swap, the kernel moves memory out before it ends a process';
  for (const path of cgroupPaths(newMark())) {
    try {
      mkdirSync(path);
    } catch {
      continue;
    }
    try {
      for (const name of ['memory.max', 'memory.limit_in_bytes']) {
        if (!existsSync(join(path, name))) continue;
        writeFileSync(join(path, name), String(64 * mebi));
        return false;
      }
    } catch {
      // Present and not for us.
    } finally {
      rmdirSync(path);
    }
  }
  return 'no control group with a memory limit can be made here';
}

const opened = new Set<Cgroups>();
const killers = new Set<() => void>();
afterEach(async () => {
  for (const kill of killers) kill();
  killers.clear();
  const left = [...opened];
  opened.clear();
  for (const cgroups of left) {
    const isGone = () => {
      cgroups.close();
      return !existsSync(cgroups.path);
    };
    await waitFor(isGone, { what: `the end of ${cgroups.path}` });
  }
});

function open(mark = newMark()): Cgroups {
  const cgroups = openCgroups({ mark, clock: systemClock, log: silentLog });
  assert.ok(cgroups !== undefined, 'a group can be made here, and the driver has none');
  opened.add(cgroups);
  return cgroups;
}

/** A process that runs a line of JavaScript whenever it is told to, and answers with its value. */
async function startPuppet() {
  const code = `require('readline').createInterface({ input: process.stdin })
    .on('line', line => console.log('=' + eval(line)));`;
  const child = spawn(process.execPath, ['-e', code], { stdio: ['pipe', 'pipe', 'ignore'] });
  child.stdin.on('error', () => {});
  killers.add(() => child.kill('SIGKILL'));
  let text = '';
  child.stdout.on('data', chunk => {
    text += chunk;
  });
  const ended = new Promise<string>(resolve =>
    child.once('exit', (status, signal) => resolve(signal ?? String(status))),
  );
  const tell = (line: string) => child.stdin.write(`${line}\n`);
  const ask = async (line: string) => {
    text = '';
    tell(line);
    return waitFor(() => /=(.*)\n/.exec(text)?.[1], { what: line });
  };
  await ask('globalThis.kept = []; 1');
  return { pid: child.pid!, ended, tell, ask };
}

const take = (bytes: number) => `kept.push(Buffer.alloc(${bytes}, 1)); kept.length`;

describe('control groups', { skip: whyNot() }, () => {
  test('a process within its limit runs on, and one over it is ended by the kernel', async () => {
    const puppet = await startPuppet();
    const group = await open().enclose(puppet.pid);
    assert.ok(group !== undefined);
    group.limit(128 * mebi);
    assert.equal(await puppet.ask(take(16 * mebi)), '1');
    assert.equal(group.outOfMemory(), false);
    puppet.tell(take(512 * mebi));
    assert.equal(await puppet.ended, 'SIGKILL');
    await waitFor(() => group.outOfMemory(), { what: 'the kernel says why' });
    group.release();
    assert.equal(group.outOfMemory(), true, 'known also after the release');
  });

  test('a group without a limit yet lets its process grow', async () => {
    const puppet = await startPuppet();
    const group = await open().enclose(puppet.pid);
    assert.equal(await puppet.ask(take(192 * mebi)), '1');
    assert.equal(group!.outOfMemory(), false);
    group!.release();
    assert.equal(await puppet.ended, 'SIGKILL');
    assert.equal(group!.outOfMemory(), false, 'ended by us, not for want of memory');
  });

  test('what a child of the process takes counts as well', async () => {
    const puppet = await startPuppet();
    const group = await open().enclose(puppet.pid);
    group!.limit(128 * mebi);
    const child = `require('child_process').spawn('/bin/sh', ['-c',
      'head -c ${512 * mebi} /dev/zero | tail -c ${512 * mebi} >/dev/null']); 1`;
    puppet.tell(child.replaceAll('\n', ' '));
    await waitFor(() => group!.outOfMemory(), { what: 'the end of the child' });
  });

  test('what the process started before it came is adopted, and counts', async () => {
    const puppet = await startPuppet();
    const spawned = `require('child_process').spawn('/bin/sh', ['-c',
      'read go; head -c ${512 * mebi} /dev/zero | tail -c ${512 * mebi} >/dev/null'],
      { stdio: ['pipe', 'ignore', 'ignore'] })`.replaceAll('\n', ' ');
    await puppet.ask(`globalThis.child = ${spawned}; child.pid`);
    const group = await open().enclose(puppet.pid);
    group!.limit(128 * mebi);
    await group!.adopt();
    puppet.tell("child.stdin.write('go\\n')");
    await waitFor(() => group!.outOfMemory(), { what: 'the end of the child' });
  });

  test('a release ends what left its process group, and removes the group', async () => {
    const puppet = await startPuppet();
    const cgroups = open();
    const group = await cgroups.enclose(puppet.pid);
    const spawned = `require('child_process').spawn('/usr/bin/env', ['-i', 'sleep', '1000'],
      { detached: true, stdio: 'ignore' }).pid`;
    const pid = Number(await puppet.ask(spawned.replaceAll('\n', ' ')));
    killers.add(() => isRunning(pid) && process.kill(pid, 'SIGKILL'));
    assert.ok(isRunning(pid));
    const directory = join(cgroups.path, String(puppet.pid));
    assert.ok(existsSync(directory));
    group!.release();
    await puppet.ended;
    await waitFor(() => !existsSync(directory), { what: 'the group is gone' });
    await waitFor(() => !isRunning(pid), { what: 'the daemon ends' });
  });

  test('a process that is gone gets no group and leaves none', async () => {
    const puppet = await startPuppet();
    const cgroups = open();
    process.kill(puppet.pid, 'SIGKILL');
    await puppet.ended;
    assert.equal(await cgroups.enclose(puppet.pid), undefined);
    assert.equal(existsSync(join(cgroups.path, String(puppet.pid))), false);
  });

  test('a successor clears the groups that a predecessor left', async () => {
    const puppet = await startPuppet();
    const mark = newMark();
    const first = open(mark);
    await first.enclose(puppet.pid);
    process.kill(puppet.pid, 'SIGKILL');
    await puppet.ended;
    const groups = () =>
      readdirSync(first.path, { withFileTypes: true }).filter(entry => entry.isDirectory()).length;
    assert.equal(groups(), 1);
    const second = open(mark);
    assert.equal(second.path, first.path);
    assert.equal(groups(), 0);
    second.close();
    assert.equal(existsSync(first.path), false);
  });
});

/** Not ended, nor kept in the table only until its parent asks. */
function isRunning(pid: number): boolean {
  try {
    return !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'latin1'));
  } catch {
    return false;
  }
}
