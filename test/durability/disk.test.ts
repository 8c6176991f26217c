/**
 * Goal: a disk that is full or cannot be written costs no job that was accepted, and no call that needs none. Method: a gateway
 * whose data directory is a small file system of its own, which is filled, and made read-only; it needs root.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { startTestGateway, type TestGateway } from '../../src/testing/test-gateway.ts';
import { waitFor } from '../../src/testing/wait-for.ts';

const mount = (...args: string[]) => spawnSync('mount', args).status === 0;
const disks: string[] = [];

/** A small file system of its own; undefined where this user may not make one. */
function makeDisk(): string | undefined {
  const disk = mkdtempSync(join(tmpdir(), 'fnway-disk-'));
  // Room for a copy of Node, which functions' users have to reach.
  if (process.getuid?.() === 0 && mount('-t', 'tmpfs', '-o', 'size=320m', 'none', disk)) {
    disks.push(disk);
    return disk;
  }
  rmSync(disk, { recursive: true });
  return undefined;
}

after(() => {
  for (const disk of disks) {
    spawnSync('umount', ['-l', disk]);
    rmSync(disk, { recursive: true, force: true });
  }
});
const canMount = makeDisk() !== undefined;
const skip = canMount ? false : 'only root can make a file system';

async function accept(gateway: TestGateway, body: string): Promise<string | number> {
  const response = await gateway.call('/async-function/echo', { method: 'POST', body });
  if (response.status !== 202) {
    assert.equal(((await response.json()) as { code: string }).code, 'DATA_DIRECTORY_UNUSABLE');
    return response.status;
  }
  return ((await response.json()) as { id: string }).id;
}

async function answers(gateway: TestGateway): Promise<void> {
  const response = await gateway.call('/function/echo', { method: 'POST', body: 'x' });
  assert.equal(await response.text(), 'x');
}

test('a full disk: calls go on, nothing more is accepted, nothing accepted is lost', {
  skip,
}, async () => {
  const disk = makeDisk()!;
  const data = join(disk, 'full');
  mkdirSync(data);
  const gateway = await startTestGateway({ data });
  const filler = join(disk, 'filler');
  try {
    await gateway.put('echo', { script: 'cat' });
    const before = (await accept(gateway, 'before')) as string;
    const { bavail, bsize } = statfsSync(disk);
    writeFileSync(filler, Buffer.alloc(bavail * bsize));
    const outcomes: Array<string | number> = [];
    // What is in the log of the database already may still be overwritten.
    await waitFor(
      async () => {
        const outcome = await accept(gateway, 'y'.repeat(30_000));
        outcomes.push(outcome);
        return outcome === 503;
      },
      { timeoutMs: 20_000 },
    );
    await answers(gateway);
    rmSync(filler);
    const afterwards = await waitFor(async () => {
      const outcome = await accept(gateway, 'after');
      return typeof outcome === 'string' && outcome;
    });
    const accepted = [before, ...outcomes.filter(id => typeof id === 'string'), afterwards];
    for (const id of accepted) {
      const { state } = await gateway.client.getInvocation(id, { wait: '30s' });
      assert.equal(state, 'succeeded', id);
    }
  } finally {
    rmSync(filler, { force: true });
    await gateway.stop();
  }
});

test('a disk that cannot be written: the same', { skip }, async () => {
  const data = join(makeDisk()!, 'read-only');
  mkdirSync(data);
  const gateway = await startTestGateway({ data });
  try {
    await gateway.put('echo', { script: 'cat' });
    const before = (await accept(gateway, 'before')) as string;
    await gateway.client.getInvocation(before, { wait: '30s' });
    // Files that are open for writing hold it off otherwise: what is bound elsewhere can be.
    assert.ok(mount('--bind', data, data) && mount('-o', 'remount,ro,bind', data));
    const readOnly = await startTestGateway({ data: join(data, 'other') }).then(
      () => assert.fail('it started'),
      error => error as { code: string; message: string },
    );
    assert.equal(readOnly.code, 'DATA_DIRECTORY_UNUSABLE');
    await answers(gateway);
  } finally {
    spawnSync('umount', ['-l', data]);
    await gateway.stop();
  }
});
