/** What every store does with what a manifest declares beside functions. */
import assert from 'node:assert/strict';
import type { Define } from './contract-rows.ts';
import type { ResourceRow } from './store.ts';

function buildResource(n: number, changes: Partial<ResourceRow> = {}) {
  return {
    ...{ id: `sch_${n}`, kind: 'schedule' as const, namespace: 'default', name: `s-${n}` },
    ...{ sealedSpec: Uint8Array.of(1, 0, 255), isPaused: false },
    ...{ sinceMs: 1_700_000_000_000, createdMs: 1_700_000_000_000, updatedMs: 5 },
    ...changes,
  };
}

export function resourcesContract(define: Define): void {
  define(
    'resources are added, changed, listed in order of id and removed',
    async ({ resources }) => {
      const b = await resources.put(buildResource(2), {});
      const a = await resources.put(buildResource(1), {});
      assert.ok(a !== 'conflict' && b !== 'conflict');
      assert.ok(a.revision > b.revision);
      assert.deepEqual(await resources.list(), [a, b]);
      const changes = {
        isPaused: true,
        sealedSpec: new Uint8Array(1000),
        sinceMs: 7,
        updatedMs: 8,
      };
      const changed = await resources.put({ ...buildResource(1), ...changes }, a);
      assert.ok(changed !== 'conflict' && changed.revision > a.revision);
      assert.deepEqual(await resources.list(), [changed, b]);
      assert.deepEqual(changed, { ...a, ...changes, revision: changed.revision });
      assert.equal(await resources.remove(a.id), true);
      assert.equal(await resources.remove(a.id), false);
      assert.deepEqual(await resources.list(), [b]);
    },
  );

  define(
    'a resource that was changed or removed meanwhile is left alone',
    async ({ resources }) => {
      const first = await resources.put(buildResource(1), {});
      assert.ok(first !== 'conflict');
      assert.equal(await resources.put(buildResource(1), {}), 'conflict');
      assert.equal(await resources.put(buildResource(2), { revision: 1 }), 'conflict');
      const second = await resources.put(buildResource(1), first);
      assert.equal(await resources.put(buildResource(1), first), 'conflict');
      assert.deepEqual(await resources.list(), [second]);
    },
  );

  define('a name is free in another namespace, and of another kind', async ({ resources }) => {
    await resources.put(buildResource(1), {});
    assert.equal(await resources.put(buildResource(2, { name: 's-1' }), {}), 'conflict');
    // Other kinds are other resources; which there are is not the store's affair.
    for (const changes of [{ namespace: 'team' }, { kind: 'other' as ResourceRow['kind'] }])
      assert.notEqual(
        await resources.put(
          buildResource(3, { id: `x_${JSON.stringify(changes)}`, name: 's-1', ...changes }),
          {},
        ),
        'conflict',
      );
  });
}
