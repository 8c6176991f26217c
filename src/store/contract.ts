/**
 * The suite that every store passes. Goal: callers cannot tell one store from another. Method: each
 * test gets a store of its own from `create`, speaks to it through the port alone, and states one
 * behaviour. What only a store with a file can do (opening again, damage) is in that store's own
 * tests.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { jobsContract } from './contract-jobs.ts';
import { messagesContract } from './contract-messages.ts';
import { objectsContract } from './contract-objects.ts';
import { resourcesContract } from './contract-resources.ts';
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
import { schedulesContract } from './contract-schedules.ts';
import { secretsContract } from './contract-secrets.ts';
import {
  defineActivating,
  defineReading,
  defineRemoving,
  defineSettling,
} from './contract-versions.ts';
import type { FunctionRow, NewRow, Store } from './store.ts';

export interface StoreContractOptions {
  /** Tests that an implementation cannot pass, by name, each with the reason. */
  skip?: Array<{ test: string; reason: string }>;
}

/** Registers the suite with node:test. `create` is called once a test and gives an empty store. */
export function storeContract(
  create: () => Promise<Store> | Store,
  options: StoreContractOptions = {},
): void {
  const skips = new Map(options.skip?.map(skip => [skip.test, skip.reason]));
  const define: Define = (name, body) => {
    const reason = skips.get(name);
    skips.delete(name);
    test(name, { skip: reason ?? false }, async () => {
      const store = await create();
      try {
        await body(store);
      } finally {
        await store.close();
      }
    });
  };
  defineCreating(define);
  defineRefusing(define);
  defineUpdating(define);
  defineConflicts(define);
  defineUpdateRules(define);
  defineSettling(define);
  defineActivating(define);
  defineListing(define);
  defineReading(define);
  defineRemoving(define);
  defineKeeping(define);
  secretsContract(define);
  resourcesContract(define);
  schedulesContract(define);
  messagesContract(define);
  objectsContract(define);
  jobsContract(define);
  assert.deepEqual([...skips.keys()], [], 'every skipped test exists');
}

function defineCreating(define: Define): void {
  define('a created function is listed with every field', async store => {
    const row = buildFunctionRow(1, {
      settings: {
        auth: 'none',
        concurrency: 8,
        instances: { min: 1, max: 2, idleMs: 0 },
        labels: {},
        description: '',
        project: 'shop',
      },
    });
    const created = asRow(await store.functions.create(row, buildVersionRow(row, 1)));
    assert.deepEqual(created, { ...row, revision: created.revision });
    assert.deepEqual(await listAll(store), [{ row: created }]);
  });

  define('a created version is listed with every field', async store => {
    const row = buildFunctionRow(1);
    const version = buildVersionRow(row, 1, {
      state: 'failed',
      sourceDigest: 'sha256:source',
      sealedFailure: Uint8Array.of(1, 0, 255),
      sealedBuildLog: Uint8Array.of(9, 0, 9),
      settledMs: 1_700_000_003_000,
    });
    await store.functions.create(row, version);
    assert.deepEqual(await store.functions.versions(row.id), [version]);
  });

  define('a function may be created with its first version active', async store => {
    const row = buildFunctionRow(1, { activeVersion: 1 });
    const version = buildVersionRow(row, 1, { state: 'ready', settledMs: 5 });
    const created = asRow(await store.functions.create(row, version));
    assert.deepEqual(await listAll(store), [{ row: created, active: version }]);
  });
}

function defineRefusing(define: Define): void {
  define('a name that is taken in its namespace gives exists and changes nothing', async store => {
    const first = await addFunction(store, 1);
    const other = buildFunctionRow(2, { name: first.name });
    assert.equal(await store.functions.create(other, buildVersionRow(other, 1)), 'exists');
    assert.deepEqual(await listAll(store), [{ row: first }]);
    assert.deepEqual(await store.functions.versions(other.id), []);
  });

  define('a taken name is told before a taken identity', async store => {
    const first = await addFunction(store, 1);
    const other = buildFunctionRow(2, { name: first.name, identity: first.identity });
    assert.equal(await store.functions.create(other, buildVersionRow(other, 1)), 'exists');
  });

  define('one name lives in two namespaces', async store => {
    await addFunction(store, 1, { name: 'same', namespace: 'a' });
    await addFunction(store, 2, { name: 'same', namespace: 'b' });
    assert.equal((await listAll(store)).length, 2);
  });

  define('an identity that is taken breaks an invariant', async store => {
    const first = await addFunction(store, 1);
    await assertRefused(store, /an identity belongs to at most one living function/, () =>
      addFunction(store, 2, { identity: first.identity }),
    );
  });

  define('an id that is taken breaks an invariant', async store => {
    const first = await addFunction(store, 1);
    await assertRefused(store, /the id of a function is new/, () =>
      addFunction(store, 2, { id: first.id }),
    );
  });

  define('a first version with another number, owner or state breaks an invariant', async store => {
    const row = buildFunctionRow(1);
    const active = { ...row, activeVersion: 1 };
    const { functions } = store;
    const other = buildFunctionRow(2);
    await assertRefused(store, /number 1/, () => functions.create(row, buildVersionRow(row, 2)));
    await assertRefused(store, /belongs/, () => functions.create(row, buildVersionRow(other, 1)));
    await assertRefused(store, /ready/, () => functions.create(active, buildVersionRow(row, 1)));
  });

  define('of many creates of one name exactly one succeeds', async store => {
    const rows = Array.from({ length: 20 }, (_, n) => buildFunctionRow(n, { name: 'same' }));
    const outcomes = await Promise.all(
      rows.map(row => store.functions.create(row, buildVersionRow(row, 1))),
    );
    assert.equal(outcomes.filter(outcome => outcome !== 'exists').length, 1);
    assert.equal((await listAll(store)).length, 1);
  });
}

function defineUpdating(define: Define): void {
  define('an update changes settings, token and time', async store => {
    const row = await addFunction(store, 1);
    await addFunction(store, 2);
    const settings: FunctionRow['settings'] = { ...row.settings, auth: 'none', labels: { x: 'y' } };
    const changed = { ...row, settings, sealedToken: Uint8Array.of(7), updatedMs: 9 };
    const updated = asRow(await store.functions.update(changed, { revision: row.revision }));
    assert.deepEqual(updated, { ...changed, revision: updated.revision });
    assert.deepEqual((await listAll(store))[0], { row: updated });
  });

  define('an update adds the next version', async store => {
    const row = await addFunction(store, 1);
    const version = buildVersionRow(row, 2);
    await addVersion(store, row, version);
    assert.deepEqual(await store.functions.versions(row.id), [version, buildVersionRow(row, 1)]);
  });

  define('an update may add a version that is ready and activate it', async store => {
    const row = await addFunction(store, 1);
    const version = buildVersionRow(row, 2, { state: 'ready' });
    const updated = await addVersion(store, { ...row, activeVersion: 2 }, version);
    assert.deepEqual(await listAll(store), [{ row: updated, active: version }]);
  });

  define('an update moves the active version back to an earlier one', async store => {
    const first = await addFunction(store, 1);
    const one = asRow(await store.functions.settle(buildSettlement(first, 1)));
    const version = buildVersionRow(first, 2, { state: 'ready' });
    const two = await addVersion(store, { ...one, activeVersion: 2 }, version);
    const back = { ...two, activeVersion: 1 };
    await store.functions.update(back, { revision: two.revision });
    assert.equal((await listAll(store))[0]?.active?.number, 1);
  });
}

function defineConflicts(define: Define): void {
  define('an update at an old revision gives conflict and changes nothing', async store => {
    const row = await addFunction(store, 1);
    const { revision } = row;
    const updated = asRow(await store.functions.update({ ...row, updatedMs: 8 }, { revision }));
    const late = { ...row, updatedMs: 9 };
    const version = buildVersionRow(row, 2);
    assert.equal(await store.functions.update(late, { revision, version }), 'conflict');
    assert.deepEqual(await listAll(store), [{ row: updated }]);
    assert.equal((await store.functions.versions(row.id)).length, 1);
  });

  define('an update of an unknown function gives missing', async store => {
    const row = buildFunctionRow(1);
    const options = { revision: 1, version: buildVersionRow(row, 1) };
    assert.equal(await store.functions.update(row, options), 'missing');
    assert.deepEqual(await store.functions.versions(row.id), []);
  });

  define('of many updates at one revision exactly one succeeds', async store => {
    const row = await addFunction(store, 1);
    const outcomes = await Promise.all(
      Array.from({ length: 20 }, () =>
        store.functions.update(row, {
          revision: row.revision,
          version: buildVersionRow(row, 2),
        }),
      ),
    );
    assert.equal(outcomes.filter(outcome => outcome === 'conflict').length, 19);
    assert.equal((await store.functions.versions(row.id)).length, 2);
  });

  define('every change of a definition has a greater revision than all before', async store => {
    const one = await addFunction(store, 1);
    const two = await addFunction(store, 2);
    const changed = asRow(await store.functions.update(one, { revision: one.revision }));
    const settled = asRow(await store.functions.settle(buildSettlement(two, 1)));
    await store.functions.remove(settled.id);
    const again = await addFunction(store, 3, { name: two.name });
    const revisions = [one, two, changed, settled, again].map(row => row.revision);
    assert.ok(revisions[0]! > 0);
    assert.deepEqual(
      revisions,
      [...new Set(revisions)].sort((a, b) => a - b),
    );
  });
}

function defineUpdateRules(define: Define): void {
  define('an update that changes what never changes breaks an invariant', async store => {
    const row = await addFunction(store, 1);
    const { revision } = row;
    const changes = [{ namespace: 'b' }, { name: 'b' }, { identity: 99 }, { createdMs: 1 }];
    for (const change of changes) {
      await assertRefused(store, /never change/, () =>
        store.functions.update({ ...row, ...change }, { revision }),
      );
    }
  });

  define(
    'a version with another number or owner than the next breaks an invariant',
    async store => {
      const row = await addFunction(store, 1);
      const other = await addFunction(store, 2);
      for (const number of [1, 3]) {
        await assertRefused(store, /next number/, () =>
          addVersion(store, row, buildVersionRow(row, number)),
        );
      }
      await assertRefused(store, /belongs/, () =>
        addVersion(store, row, buildVersionRow(other, 2)),
      );
    },
  );

  define('an active version that is unknown, not ready or taken away is refused', async store => {
    const row = await addFunction(store, 1);
    const { revision } = row;
    for (const activeVersion of [1, 2]) {
      await assertRefused(store, /exists and is ready/, () =>
        store.functions.update({ ...row, activeVersion }, { revision }),
      );
    }
    const active = asRow(await store.functions.settle(buildSettlement(row, 1)));
    await assertRefused(store, /keeps having one/, () =>
      store.functions.update(row, { revision: active.revision }),
    );
  });
}

function defineListing(define: Define): void {
  define('an empty store lists nothing', async store => {
    assert.deepEqual(await listAll(store), []);
    assert.deepEqual(await store.functions.versions('fn_unknown'), []);
    assert.deepEqual(await store.functions.sourceDigests(), new Set());
  });

  define('pages give every function once, in order of id', async store => {
    for (const n of [5, 2, 9, 1, 7, 3, 8]) {
      await addFunction(store, n, { namespace: n % 2 === 0 ? 'even' : 'odd' });
    }
    const seen: string[] = [];
    let after: string | undefined;
    for (;;) {
      const page = await store.functions.list({ limit: 3, ...(after !== undefined && { after }) });
      seen.push(...page.map(({ row }) => row.id));
      if (page.length < 3) break;
      after = page.at(-1)?.row.id;
    }
    assert.deepEqual(
      seen,
      [1, 2, 3, 5, 7, 8, 9].map(n => buildFunctionRow(n).id),
    );
  });

  define('a page goes on after an id that is gone meanwhile', async store => {
    for (const n of [1, 2, 3]) await addFunction(store, n);
    const after = buildFunctionRow(2).id;
    await store.functions.remove(after);
    const page = await store.functions.list({ after, limit: 10 });
    assert.deepEqual(
      page.map(({ row }) => row.identity),
      [3],
    );
  });

  define('a page with a limit below 1 breaks an invariant', async store => {
    for (const limit of [0, -1, 1.5, Number.NaN]) {
      await assert.rejects(() => store.functions.list({ limit }), /limit of a page/);
    }
  });

  define('versions are listed newest first, also beyond nine', async store => {
    let row = await addFunction(store, 1);
    for (let n = 2; n <= 12; n++) row = await addVersion(store, row, buildVersionRow(row, n));
    const numbers = (await store.functions.versions(row.id)).map(version => version.number);
    assert.deepEqual(numbers, [12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]);
  });

  define('source digests are those that living versions name, each once', async store => {
    const digests = ['sha256:a', 'sha256:b', 'sha256:a', undefined];
    for (const [n, sourceDigest] of digests.entries()) {
      const row = buildFunctionRow(n + 1);
      const source = sourceDigest === undefined ? {} : { sourceDigest };
      await store.functions.create(row, buildVersionRow(row, 1, source));
    }
    assert.deepEqual(await store.functions.sourceDigests(), new Set(['sha256:a', 'sha256:b']));
    await store.functions.remove(buildFunctionRow(2).id);
    await store.functions.remove(buildFunctionRow(3).id);
    assert.deepEqual(await store.functions.sourceDigests(), new Set(['sha256:a']));
  });
}

function defineKeeping(define: Define): void {
  define('changing a row after the call does not change the store', async store => {
    const row = buildFunctionRow(1);
    const version = buildVersionRow(row, 1);
    const created = asRow(await store.functions.create(row, version));
    const before = structuredClone(created);
    for (const given of [row, created]) {
      given.settings.labels.team = 'red';
      given.sealedToken.fill(0);
    }
    version.sealedSpec.fill(0);
    const [listed] = await listAll(store);
    assert.deepEqual(listed?.row, before);
    listed!.row.settings.instances.max = 99;
    assert.deepEqual(await listAll(store), [{ row: before }]);
    const versions = await store.functions.versions(row.id);
    assert.deepEqual(versions, [buildVersionRow(row, 1)]);
  });

  define('a field that is undefined is absent afterwards', async store => {
    const plain = buildFunctionRow(1);
    const undefinedRow: NewRow = {
      ...plain,
      settings: { ...plain.settings, concurrency: undefined, project: undefined },
      activeVersion: undefined,
    };
    const version = buildVersionRow(plain, 1);
    const absent = { sourceDigest: undefined, sealedFailure: undefined, settledMs: undefined };
    await store.functions.create(undefinedRow, { ...version, ...absent });
    const [listed] = await listAll(store);
    assert.deepEqual(listed, { row: { ...plain, revision: listed?.row.revision } });
    assert.deepEqual(await store.functions.versions(plain.id), [version]);
  });

  define('bytes come back as they were, none or a mebibyte of them', async store => {
    const row = buildFunctionRow(1, { sealedToken: new Uint8Array(0) });
    const sealedSpec = Uint8Array.from({ length: 1024 ** 2 }, (_, i) => (i * 7) & 255);
    // A part of a larger buffer, as `Buffer.from` gives: only the part is meant.
    const sealedBuildLog = new Uint8Array(sealedSpec.buffer, 100, 50);
    await store.functions.create(row, buildVersionRow(row, 1, { sealedSpec, sealedBuildLog }));
    const [listed] = await listAll(store);
    assert.deepEqual(listed?.row.sealedToken, new Uint8Array(0));
    const [version] = await store.functions.versions(row.id);
    assert.deepEqual(version?.sealedSpec, sealedSpec);
    assert.deepEqual(version?.sealedBuildLog, sealedSpec.slice(100, 150));
  });

  define('texts come back as they were, whatever is in them', async store => {
    const text = '\0 \u{1f642} \u2028 "\' \\ é\n';
    const row = buildFunctionRow(1);
    row.settings.description = text;
    row.settings.labels = JSON.parse('{"__proto__":"x","constructor":"y"}');
    await store.functions.create(row, buildVersionRow(row, 1));
    const [listed] = await listAll(store);
    assert.equal(listed?.row.settings.description, text);
    assert.deepEqual(Object.entries(listed!.row.settings.labels), [
      ['__proto__', 'x'],
      ['constructor', 'y'],
    ]);
  });

  define('a store is closed more than once without harm, and then refuses calls', async store => {
    const row = await addFunction(store, 1);
    await store.close();
    await store.close();
    await assert.rejects(() => listAll(store), /a closed store is not called/);
    await assert.rejects(() => store.functions.remove(row.id), /a closed store is not called/);
  });
}
