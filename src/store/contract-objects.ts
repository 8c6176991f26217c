/** What every store does with the objects of watched buckets. */
import assert from 'node:assert/strict';
import { buildJob, noon } from './contract-jobs.ts';
import type { Define } from './contract-rows.ts';

const state = (content: string, metadata = 'm') => ({ content, metadata });

export function objectsContract(define: Define): void {
  define('what a bucket holds is noted with the jobs that it brings', async ({ jobs, objects }) => {
    const [one, two] = [buildJob(), buildJob()];
    const seen = [
      { key: 'b', after: state('1'), jobs: [one] },
      { key: 'a/ü', after: state('2'), jobs: [] },
    ];
    assert.equal(await objects.observe('buc_a', seen, noon), 2);
    assert.deepEqual(await objects.watched(), ['buc_a']);
    assert.deepEqual(await objects.objects('buc_a', { limit: 9 }), [
      { key: 'a/ü', ...state('2') },
      { key: 'b', ...state('1') },
    ]);
    assert.deepEqual(await objects.objects('buc_a', { after: 'a/ü', limit: 9 }), [
      { key: 'b', ...state('1') },
    ]);
    const gone = [{ key: 'b', before: state('1'), jobs: [two] }];
    assert.equal(await objects.observe('buc_a', gone, noon), 1);
    assert.equal((await objects.objects('buc_a', { limit: 9 })).length, 1);
    const accepted = await jobs.list({ namespace: 'default', limit: 9 });
    assert.deepEqual(accepted.map(({ id }) => id).sort(), [one.id, two.id].sort());
  });

  define('a change that was noted before brings nothing again', async ({ jobs, objects }) => {
    const seen = { key: 'a', after: state('1'), jobs: [buildJob()] };
    assert.equal(await objects.observe('buc_a', [seen], noon), 1);
    const again = [
      { ...seen, jobs: [buildJob()] },
      { key: 'a', before: state('0'), after: state('2'), jobs: [buildJob()] },
      { key: 'a', before: state('1', 'other'), jobs: [buildJob()] },
      { key: 'none', before: state('1'), jobs: [buildJob()] },
    ];
    assert.equal(await objects.observe('buc_a', again, noon), 0);
    assert.equal((await jobs.list({ namespace: 'default', limit: 9 })).length, 1);
  });

  define('where as many jobs wait as may, nothing is noted', async ({ objects }) => {
    const lane = { id: 'fn_a', runningMax: 1, waitingMax: 1 };
    const seen = ['a', 'b'].map(key => ({ key, after: state('1'), jobs: [buildJob({ lane })] }));
    assert.equal(await objects.observe('buc_a', seen, noon), 'full');
    assert.deepEqual(await objects.objects('buc_a', { limit: 9 }), []);
  });

  define('a bucket that is no more is forgotten, however much it held', async ({ objects }) => {
    const seen = ['a', 'b', 'c'].map(key => ({ key, after: state('1'), jobs: [] }));
    await objects.observe('buc_a', seen, noon);
    await objects.observe('buc_b', [], noon);
    assert.equal(await objects.unwatch('buc_a', 2), 2);
    assert.deepEqual(await objects.watched(), ['buc_a', 'buc_b']);
    assert.equal(await objects.unwatch('buc_a', 2), 1);
    assert.equal(await objects.unwatch('buc_b', 2), 0);
    assert.deepEqual(await objects.watched(), []);
  });
}
