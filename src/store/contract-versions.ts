/**
 * The part of the store's suite about the life of versions: settling, activating, removing. See
 * contract.ts.
 */
import assert from 'node:assert/strict';
import {
  addFunction,
  addVersion,
  asRow,
  assertRefused,
  buildFunctionRow,
  buildSettlement,
  buildVersionRow,
  type Define,
  listAll,
} from './contract-rows.ts';
import type { VersionRow } from './store.ts';

export function defineSettling(define: Define): void {
  define('a version that settles as ready answers calls', async store => {
    const row = await addFunction(store, 1);
    const settled = asRow(await store.functions.settle(buildSettlement(row, 1)));
    const active: VersionRow = {
      ...buildVersionRow(row, 1),
      state: 'ready',
      sealedBuildLog: Uint8Array.of(3, 1),
      settledMs: 1_700_000_002_001,
    };
    const updatedMs = active.settledMs;
    assert.deepEqual(settled, {
      ...row,
      activeVersion: 1,
      updatedMs,
      revision: settled.revision,
    });
    assert.ok(settled.revision > row.revision);
    assert.deepEqual(await listAll(store), [{ row: settled, active }]);
  });

  define(
    'a version that settles as failed keeps why and leaves the function alone',
    async store => {
      const row = await addFunction(store, 1);
      const sealedFailure = Uint8Array.of(7, 0, 7);
      const settlement = buildSettlement(row, 1, {
        state: 'failed',
        sealedFailure,
        activate: false,
      });
      assert.deepEqual(await store.functions.settle(settlement), row);
      assert.deepEqual(await listAll(store), [{ row }]);
      const [version] = await store.functions.versions(row.id);
      assert.equal(version?.state, 'failed');
      assert.deepEqual(version?.sealedFailure, sealedFailure);
    },
  );

  define('a version that is settled stays as it is', async store => {
    const row = await addFunction(store, 1);
    const failed = buildSettlement(row, 1, { state: 'failed', activate: false });
    await store.functions.settle(failed);
    const before = await store.functions.versions(row.id);
    assert.equal(await store.functions.settle(buildSettlement(row, 1)), 'missing');
    assert.deepEqual(await store.functions.versions(row.id), before);
  });

  define('settling an unknown function or version gives missing', async store => {
    const row = await addFunction(store, 1);
    assert.equal(await store.functions.settle(buildSettlement(row, 2)), 'missing');
    const unknown = { id: buildFunctionRow(2).id };
    assert.equal(await store.functions.settle(buildSettlement(unknown, 1)), 'missing');
    assert.deepEqual(await listAll(store), [{ row }]);
  });
}

export function defineActivating(define: Define): void {
  define('a version may become ready without becoming active', async store => {
    const row = await addFunction(store, 1);
    const settlement = buildSettlement(row, 1, { activate: false });
    assert.deepEqual(await store.functions.settle(settlement), row);
    assert.equal((await store.functions.versions(row.id))[0]?.state, 'ready');
  });

  define('a slow build of an older version does not replace a newer one', async store => {
    const first = await addFunction(store, 1);
    const row = await addVersion(store, first, buildVersionRow(first, 2));
    const newer = asRow(await store.functions.settle(buildSettlement(row, 2)));
    assert.deepEqual(await store.functions.settle(buildSettlement(row, 1)), newer);
    const [listed] = await listAll(store);
    assert.equal(listed?.active?.number, 2);
    assert.equal((await store.functions.versions(row.id))[1]?.state, 'ready');
  });

  define('a choice of version holds against builds that were under way', async store => {
    const first = await addFunction(store, 1);
    const second = await addVersion(store, first, buildVersionRow(first, 2));
    const chosen = { ...second, activateAbove: 2 };
    const row = asRow(await store.functions.update(chosen, { revision: second.revision }));
    assert.equal(row.activateAbove, 2);
    assert.deepEqual(await store.functions.settle(buildSettlement(row, 2)), row);
    const third = await addVersion(store, row, buildVersionRow(row, 3));
    assert.equal(asRow(await store.functions.settle(buildSettlement(third, 3))).activeVersion, 3);
  });

  define('while calls are split, no build takes over', async store => {
    const first = await addFunction(store, 1);
    const active = asRow(await store.functions.settle(buildSettlement(first, 1)));
    const traffic = { shares: [{ version: 1, percent: 100 }], stickyHeader: 'x-user' };
    const split = asRow(
      await store.functions.update({ ...active, traffic }, { revision: active.revision }),
    );
    assert.deepEqual(split.traffic, traffic);
    const row = await addVersion(store, split, buildVersionRow(split, 2));
    assert.deepEqual(await store.functions.settle(buildSettlement(row, 2)), row);
    const [listed] = await listAll(store);
    assert.deepEqual(listed?.row, row);
    const { traffic: _, ...whole } = row;
    const ended = asRow(await store.functions.update(whole, { revision: row.revision }));
    assert.equal(ended.traffic, undefined);
  });

  define('a settlement between reading and updating gives conflict', async store => {
    const row = await addFunction(store, 1);
    await store.functions.settle(buildSettlement(row, 1));
    assert.equal(await store.functions.update(row, { revision: row.revision }), 'conflict');
  });

  define('activating a version that failed breaks an invariant', async store => {
    const row = await addFunction(store, 1);
    await assertRefused(store, /a version that failed/, () =>
      store.functions.settle(buildSettlement(row, 1, { state: 'failed' })),
    );
  });

  define('of many settlements of one version exactly one lands', async store => {
    const row = await addFunction(store, 1);
    const outcomes = await Promise.all(
      Array.from({ length: 20 }, () => store.functions.settle(buildSettlement(row, 1))),
    );
    assert.equal(outcomes.filter(outcome => outcome === 'missing').length, 19);
  });
}

export function defineReading(define: Define): void {
  define('the newest versions can be had alone', async store => {
    let row = await addFunction(store, 1);
    for (const n of [2, 3, 4]) row = await addVersion(store, row, buildVersionRow(row, n));
    const numbers = async (limit: number) =>
      (await store.functions.versions(row.id, { limit })).map(version => version.number);
    assert.deepEqual(
      [await numbers(1), await numbers(3), await numbers(9)],
      [[4], [4, 3, 2], [4, 3, 2, 1]],
    );
    assert.deepEqual(await store.functions.versions('fn_unknown', { limit: 1 }), []);
  });
}

export function defineRemoving(define: Define): void {
  define('a removed function is gone with its versions', async store => {
    const row = await addFunction(store, 1);
    const other = await addFunction(store, 2);
    await store.functions.settle(buildSettlement(row, 1));
    assert.equal(await store.functions.remove(row.id), true);
    assert.deepEqual(await store.functions.versions(row.id), []);
    assert.deepEqual(await listAll(store), [{ row: other }]);
    assert.equal((await store.functions.versions(other.id)).length, 1);
  });

  define('removing a function that is not there gives false', async store => {
    const row = await addFunction(store, 1);
    assert.equal(await store.functions.remove('fn_unknown'), false);
    await store.functions.remove(row.id);
    assert.equal(await store.functions.remove(row.id), false);
  });

  define('name and identity of a removed function are free again', async store => {
    const row = await addFunction(store, 1);
    await store.functions.remove(row.id);
    const again = await addFunction(store, 2, { name: row.name, identity: row.identity });
    assert.deepEqual(await listAll(store), [{ row: again }]);
  });

  define('removed versions are gone, but for the active and the newest', async store => {
    let row = await addFunction(store, 1);
    for (const n of [2, 3, 4, 5]) row = await addVersion(store, row, buildVersionRow(row, n));
    row = asRow(await store.functions.settle(buildSettlement(row, 2)));
    assert.equal(await store.functions.removeVersions(row.id, [1, 2, 3, 5]), 2);
    const numbers = (await store.functions.versions(row.id)).map(version => version.number);
    assert.deepEqual(numbers, [5, 4, 2]);
    const [listed] = await listAll(store);
    assert.deepEqual(listed?.row, row);
    assert.equal(listed?.active?.number, 2);
  });

  define('a number is not used twice when versions were removed', async store => {
    const first = await addFunction(store, 1);
    const row = await addVersion(store, first, buildVersionRow(first, 2));
    await store.functions.removeVersions(row.id, [1, 2]);
    const [newest] = await store.functions.versions(row.id);
    assert.equal(newest?.number, 2);
    await addVersion(store, row, buildVersionRow(row, 3));
  });

  define('removing versions counts only those that were there', async store => {
    const first = await addFunction(store, 1);
    await addVersion(store, first, buildVersionRow(first, 2));
    assert.equal(await store.functions.removeVersions(first.id, []), 0);
    assert.equal(await store.functions.removeVersions(first.id, [7, 0, -1]), 0);
    assert.equal(await store.functions.removeVersions('fn_unknown', [1]), 0);
    assert.equal(await store.functions.removeVersions(first.id, [1, 1]), 1);
  });

  define('settling a version that was removed gives missing', async store => {
    const first = await addFunction(store, 1);
    await addVersion(store, first, buildVersionRow(first, 2));
    await store.functions.removeVersions(first.id, [1]);
    assert.equal(await store.functions.settle(buildSettlement(first, 1)), 'missing');
  });
}
