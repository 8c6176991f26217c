/** What is dead, named as what it is. Method: a memory store; the parts that neither kind here asks are not there. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { createSealer } from '../auth/seal.ts';
import { createMemoryBlobs } from '../blob/memory.ts';
import { callbackLane, callbacksRunningMax } from '../queue/callbacks.ts';
import { asInput, Payloads } from '../queue/payloads.ts';
import { buildJob, ending, noon } from '../store/contract-jobs.ts';
import type { JobKind, JobQuery, NewJob } from '../store/jobs.ts';
import { createMemoryJobs } from '../store/memory-jobs.ts';
import { FakeClock } from '../testing/fake-clock.ts';
import { DeadLetters, type DeadLettersOptions } from './dead-letters.ts';
import { notificationsRunningMax } from './notifications.ts';

test('callbacks and notifications have the name of their owner, and keep their room', async () => {
  const jobs = createMemoryJobs();
  const payloads = new Payloads({
    sealer: createSealer(randomBytes(32)),
    blobs: createMemoryBlobs(),
  });
  const submitted: NewJob[] = [];
  const named = (known: string, name: string) => (id: string) =>
    id === known ? { row: { name } } : undefined;
  const letters = new DeadLetters({
    queue: {
      dead: (namespace: string) => jobs.dead(namespace),
      list: (query: JobQuery) => jobs.list(query),
      find: (id: string) => jobs.find(id),
      submit: (given: NewJob[]) => {
        submitted.push(...given);
        return jobs.enqueue(given, noon);
      },
    },
    resources: { byId: named('not_a', 'ops') },
    registry: {
      byId: named('fn_a', 'bill'),
      get: (_: string, name: string) => (name === 'bill' ? { row: { id: 'fn_a' } } : undefined),
    },
    payloads,
    clock: new FakeClock(),
  } as unknown as DeadLettersOptions);

  const lanes: Array<[JobKind, string]> = [
    ['notification', 'not_a'],
    ['callback', `${callbackLane}fn_a`],
    ['notification', 'not_gone'],
  ];
  for (const [kind, laneId] of lanes) {
    const input = asInput(await payloads.keep({ event: 'dead-letter' }, new Uint8Array(0)));
    await jobs.enqueue([buildJob({ kind, laneId, ...input })], noon);
  }
  const { jobs: leased } = await jobs.claim({ limit: 10, nowMs: noon, leaseMs: 1000 });
  const sealedStory = undefined;
  await jobs.settle(leased.map(job => ({ ...ending(job, 'dead'), sealedStory })));

  const groups = await letters.groups('default');
  const owners = groups.map(({ kind, function: name, notification }) => [kind, name, notification]);
  assert.deepEqual(owners.sort(), [
    ['callback', 'bill', undefined],
    ['notification', undefined, 'not_gone'],
    ['notification', undefined, 'ops'],
  ]);
  const { items } = await letters.list({ namespace: 'default' }, { limit: 10 });
  assert.ok(items.some(({ notification }) => notification === 'ops'));

  // What tells of a function's calls is among its dead letters.
  const ofFunction = await letters.list({ namespace: 'default', function: 'bill' }, { limit: 10 });
  assert.deepEqual(
    ofFunction.items.map(({ kind }) => kind),
    ['callback'],
  );

  const { left } = await letters.redrive({ namespace: 'default' }, { isDry: false });
  assert.deepEqual(left, []);
  assert.deepEqual(submitted.map(({ kind, lane }) => `${kind} ${lane.runningMax}`).sort(), [
    `callback ${callbacksRunningMax}`,
    `notification ${notificationsRunningMax}`,
    `notification ${notificationsRunningMax}`,
  ]);
});
