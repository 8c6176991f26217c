/**
 * Goal: the log of the queue is folded into its file while jobs are accepted, begins anew, and is gone when the file is closed;
 * what was accepted is there all the while. Method: real files and threads, and more than is written between two checkpoints.
 */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { newId } from '../../ids.ts';
import { waitFor } from '../../testing/wait-for.ts';
import { buildJob, noon } from '../contract-jobs.ts';
import { bytesBetween } from './checkpoints.ts';
import { openQueue } from './queue.ts';

const root = mkdtempSync(path.join(tmpdir(), 'fnway-checkpoints-'));
after(() => rmSync(root, { recursive: true }));

test('the log is folded into the file meanwhile, and begins anew', async () => {
  const file = path.join(root, 'queue.db');
  const queue = openQueue(file);
  const size = (name: string) => statSync(name).size;
  const lane = { id: 'fn_a', runningMax: 1, waitingMax: 1_000_000 };
  const sealedInput = new Uint8Array(1024).fill(7);
  // With what is counted for its row, a job is twice that.
  const jobsBetween = bytesBetween / (2 * sealedInput.length);
  let accepted = 0;
  for (let round = 1; round <= 5; round++) {
    for (let left = jobsBetween + 1; left > 0; left -= 256) {
      const jobs = Array.from({ length: 256 }, (_, i) =>
        buildJob({ id: newId('inv', noon + accepted + i), sealedInput, lane }),
      );
      assert.ok((await queue.jobs.enqueue(jobs, noon)).every(outcome => outcome === 'accepted'));
      accepted += jobs.length;
    }
    // What came while it was folded waits for the next.
    const folded = (accepted - 2 * jobsBetween) * sealedInput.length;
    await waitFor(() => size(file) >= folded, { what: 'a checkpoint' });
  }
  // It was written over.
  assert.ok(size(`${file}-wal`) < accepted * sealedInput.length);
  assert.equal((await queue.jobs.counts())[0]!.waiting, accepted);
  await queue.close();
  assert.equal(existsSync(`${file}-wal`), false);
  const again = openQueue(file);
  assert.equal((await again.jobs.counts())[0]!.waiting, accepted);
  await again.close();
});
