/**
 * The SQLite store. Goal: it behaves as the port says, like the memory store, and what it says
 * about files holds. Method: the suite of the port; random calls compared with the memory store;
 * then real files that are opened again, shared, new, damaged, of another program or of a newer
 * fnway.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import { storeContract } from '../contract.ts';
import { buildFunctionRow, buildVersionRow } from '../contract-rows.ts';
import { createMemoryStore } from '../memory.ts';
import type { FunctionRow, Store } from '../store.ts';
import { applicationId, migrations } from './migrations.ts';
import { openSqliteStore } from './sqlite.ts';

const root = mkdtempSync(path.join(tmpdir(), 'fnway-sqlite-'));
after(() => rmSync(root, { recursive: true }));

let files = 0;
function newPath(): string {
  const directory = path.join(root, String(files++));
  mkdirSync(directory);
  return path.join(directory, 'fnway.db');
}

storeContract(() => openSqliteStore({ path: newPath() }));

async function addFunction(store: Store, n: number): Promise<FunctionRow> {
  const row = buildFunctionRow(n, { activeVersion: 1 });
  const version = buildVersionRow(row, 1, { state: 'ready' });
  const outcome = await store.functions.create(row, version);
  assert.ok(outcome !== 'exists');
  return outcome;
}

async function withStore<T>(file: string, body: (store: Store) => Promise<T>): Promise<T> {
  const store = openSqliteStore({ path: file });
  try {
    return await body(store);
  } finally {
    await store.close();
  }
}

/** Few names, numbers and revisions, so that calls meet one another. */
function commandArbitrary() {
  const n = fc.integer({ min: 1, max: 3 });
  const number = fc.integer({ min: 1, max: 4 });
  const state = fc.constantFrom('building' as const, 'ready' as const, 'failed' as const);
  const active = fc.option(number, { nil: undefined });
  return fc.oneof(
    fc.record({ call: fc.constant('create' as const), n, name: n, identity: n, active, state }),
    fc.record({
      call: fc.constant('update' as const),
      n,
      stale: fc.boolean(),
      active,
      version: fc.option(number, { nil: undefined }),
      state,
    }),
    fc.record({ call: fc.constant('settle' as const), n, number, state, activate: fc.boolean() }),
    fc.record({ call: fc.constant('remove' as const), n }),
    fc.record({
      call: fc.constant('removeVersions' as const),
      n,
      numbers: fc.array(number, { maxLength: 4 }),
    }),
  );
}
type Command = ReturnType<typeof commandArbitrary> extends fc.Arbitrary<infer T> ? T : never;

/** A call and its outcome; a broken invariant is an outcome too, and must read the same. */
async function runCommand(store: Store, command: Command): Promise<unknown> {
  const { functions } = store;
  const row = buildFunctionRow(command.n);
  const { id } = row;
  try {
    switch (command.call) {
      case 'create': {
        const { identity, active: activeVersion, state } = command;
        const created = { ...row, name: `f${command.name}`, identity, activeVersion };
        return await functions.create(created, buildVersionRow(row, 1, { state }));
      }
      case 'update': {
        const stored = (await functions.list({ limit: 9 })).find(item => item.row.id === id)?.row;
        const revision = (stored?.revision ?? 1) - (command.stale ? 1 : 0);
        const changed = { ...(stored ?? row), activeVersion: command.active };
        const { state, version } = command;
        const added =
          version === undefined ? {} : { version: buildVersionRow(row, version, { state }) };
        return await functions.update(changed, { revision, ...added });
      }
      case 'settle': {
        const { number, activate } = command;
        const state = command.state === 'building' ? 'ready' : command.state;
        const sealedBuildLog = Uint8Array.of(number);
        const times = { sealedBuildLog, settledMs: 1_700_000_005_000 };
        return await functions.settle({ functionId: id, number, state, activate, ...times });
      }
      case 'remove':
        return await functions.remove(id);
      case 'removeVersions':
        return await functions.removeVersions(id, command.numbers);
    }
  } catch (error) {
    return String(error);
  }
}

async function readAll(store: Store): Promise<unknown> {
  const rows = await store.functions.list({ limit: 100 });
  const versions = await Promise.all(rows.map(({ row }) => store.functions.versions(row.id)));
  return { rows, versions, digests: await store.functions.sourceDigests() };
}

test('any sequence of calls has the outcomes of the memory store', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(commandArbitrary(), { maxLength: 40 }), async commands => {
      const memory = createMemoryStore();
      await withStore(newPath(), async sqlite => {
        for (const command of commands) {
          const outcome = await runCommand(sqlite, command);
          assert.deepEqual(outcome, await runCommand(memory, command), JSON.stringify(command));
        }
        assert.deepEqual(await readAll(sqlite), await readAll(memory));
      });
    }),
    { numRuns: 100 },
  );
});

test('a store that is opened again finds everything', async () => {
  const file = newPath();
  const before = await withStore(file, async store => {
    const row = await addFunction(store, 1);
    const version = buildVersionRow(row, 2, { sourceDigest: 'sha256:a' });
    await store.functions.update(row, { revision: row.revision, version });
    await addFunction(store, 2);
    return readAll(store);
  });
  await withStore(file, async store => {
    assert.deepEqual(await readAll(store), before);
    const next = await addFunction(store, 3);
    assert.equal(next.revision, 4);
  });
});

test('what was acknowledged is found after the process was killed', async () => {
  const file = newPath();
  const script = `
    const { openSqliteStore } = await import(${JSON.stringify(`${import.meta.dirname}/sqlite.ts`)});
    const contract = await import(${JSON.stringify(`${import.meta.dirname}/../contract-rows.ts`)});
    const store = openSqliteStore({ path: ${JSON.stringify(file)} });
    const row = contract.buildFunctionRow(1);
    await store.functions.create(row, contract.buildVersionRow(row, 1));
    process.kill(process.pid, 'SIGKILL');
  `;
  const child = spawnSync(process.execPath, ['--input-type=module', '-e', script]);
  assert.equal(child.signal, 'SIGKILL', String(child.stderr));
  await withStore(file, async store => {
    assert.equal((await store.functions.list({ limit: 10 })).length, 1);
  });
});

test('opening prints no warning', () => {
  const script = `
    const { openSqliteStore } = await import(${JSON.stringify(`${import.meta.dirname}/sqlite.ts`)});
    await openSqliteStore({ path: ${JSON.stringify(newPath())} }).close();
  `;
  const child = spawnSync(process.execPath, ['--input-type=module', '-e', script]);
  assert.equal(`${child.stdout}${child.stderr}`, '');
  assert.equal(child.status, 0);
});

test('two stores on one file see each other and never overwrite', async () => {
  const file = newPath();
  await withStore(file, one =>
    withStore(file, async two => {
      const row = await addFunction(one, 1);
      assert.deepEqual((await two.functions.list({ limit: 10 }))[0]?.row, row);
      const { revision } = row;
      const outcomes = await Promise.all(
        [one, two].map(store => store.functions.update({ ...row, updatedMs: 9 }, { revision })),
      );
      assert.equal(outcomes.filter(outcome => outcome === 'conflict').length, 1);
      assert.equal(await two.functions.remove(row.id), true);
      assert.deepEqual(await one.functions.list({ limit: 10 }), []);
    }),
  );
});

test('two threads that write to one file at once wait for each other', async () => {
  const file = newPath();
  const script = `
    const { workerData, parentPort } = require('node:worker_threads');
    (async () => {
      const { openSqliteStore } = await import(workerData.directory + '/sqlite.ts');
      const contract = await import(workerData.directory + '/../contract-rows.ts');
      const store = openSqliteStore({ path: workerData.file });
      for (let n = workerData.first; n < workerData.first + 100; n++) {
        const row = contract.buildFunctionRow(n);
        await store.functions.create(row, contract.buildVersionRow(row, 1));
      }
      await store.close();
    })();
  `;
  const exits = [1000, 2000].map(first => {
    const workerData = { directory: import.meta.dirname, file, first };
    const worker = new Worker(script, { eval: true, workerData });
    return new Promise((resolve, reject) => worker.once('error', reject).once('exit', resolve));
  });
  assert.deepEqual(await Promise.all(exits), [0, 0]);
  const listed = await withStore(file, store => store.functions.list({ limit: 1000 }));
  const revisions = listed.map(({ row }) => row.revision).sort((a, b) => a - b);
  assert.deepEqual(
    revisions,
    Array.from({ length: 200 }, (_, i) => i + 1),
  );
});

test('the files are for their owner only, also when they were not before', async () => {
  const file = newPath();
  writeFileSync(file, '', { mode: 0o644 });
  chmodSync(file, 0o666);
  await withStore(file, async store => {
    await addFunction(store, 1);
    for (const suffix of ['', '-wal', '-shm']) {
      assert.equal(statSync(`${file}${suffix}`).mode & 0o777, 0o600, suffix);
    }
  });
  assert.equal(statSync(file).mode & 0o777, 0o600);
});

test('an empty file is migrated to the newest schema', async () => {
  const file = newPath();
  await withStore(file, async () => {});
  const db = new DatabaseSync(file);
  assert.deepEqual(
    { ...db.prepare('PRAGMA user_version').get() },
    {
      user_version: migrations.length,
    },
  );
  assert.deepEqual(db.prepare('PRAGMA foreign_key_check').all(), []);
  db.close();
  await withStore(file, store => addFunction(store, 1));
});

test('functions of a database of an older schema are all there after its migration', async () => {
  const file = newPath();
  const db = new DatabaseSync(file);
  db.exec(migrations[0]!);
  db.exec(`PRAGMA application_id = ${applicationId}; PRAGMA user_version = 1`);
  const row = buildFunctionRow(1);
  db.prepare(`INSERT INTO functions VALUES (?, ?, ?, ?, ?, ?, NULL, ?, ?, 1)`).run(
    row.id,
    row.namespace,
    row.name,
    JSON.stringify(row.settings),
    row.sealedToken,
    row.identity,
    row.createdMs,
    row.updatedMs,
  );
  const version = buildVersionRow(row, 1, { state: 'failed' });
  db.prepare(`INSERT INTO versions VALUES (?, 1, 'failed', ?, ?, NULL, ?, ?, ?, NULL)`).run(
    row.id,
    version.sealedSpec,
    version.contentDigest,
    '{"code":"LOAD_FAILED","message":"in plain text"}',
    version.sealedBuildLog,
    version.createdMs,
  );
  db.close();
  await withStore(file, async store => {
    assert.deepEqual(await store.functions.list({ limit: 2 }), [{ row: { ...row, revision: 1 } }]);
    // An older schema held the reason in plain text: it went.
    assert.deepEqual(await store.functions.versions(row.id), [version]);
    for (const suffix of ['', '-wal', '-shm'])
      assert.equal(readFileSync(`${file}${suffix}`).includes('in plain text'), false, suffix);
  });
  assert.equal(readFileSync(file).includes('in plain text'), false);
});

test('a database of a newer fnway is refused and left as it is', async () => {
  const file = newPath();
  await withStore(file, store => addFunction(store, 1));
  const db = new DatabaseSync(file);
  db.exec(`PRAGMA user_version = ${migrations.length + 1}`);
  db.close();
  const before = readFileSync(file);
  assert.throws(
    () => openSqliteStore({ path: file }),
    error => {
      const { code, message, remedy } = error as Error & { code: string; remedy: string };
      assert.equal(code, 'DATA_DIRECTORY_UNUSABLE');
      assert.match(message, /written by a newer fnway \(schema \d+; this one knows \d+\)/);
      assert.match(remedy, /Use that version of fnway or a later one/);
      return true;
    },
  );
  assert.deepEqual(readFileSync(file), before);
});

test('a database of another program is refused and left as it is', () => {
  const file = newPath();
  const db = new DatabaseSync(file);
  db.exec('CREATE TABLE theirs (x)');
  db.close();
  const before = readFileSync(file);
  const expected = { code: 'DATA_DIRECTORY_UNUSABLE', message: /a database of another program/ };
  assert.throws(() => openSqliteStore({ path: file }), expected);
  assert.deepEqual(readFileSync(file), before);
});

test('a file that is no database is refused with a clear error', () => {
  const file = newPath();
  writeFileSync(file, 'these are not the bytes of a database, but there are many\n'.repeat(100));
  assert.throws(() => openSqliteStore({ path: file }), {
    code: 'DATA_DIRECTORY_UNUSABLE',
    message: `${file}: it is not a database, or is damaged.`,
    remedy: 'Restore it from a backup, or move it away.',
  });
});

test('a database that is damaged inside gives a clear error when it is read', async () => {
  const file = newPath();
  await withStore(file, async store => {
    for (let n = 0; n < 50; n++) await addFunction(store, n);
  });
  const bytes = readFileSync(file);
  writeFileSync(file, bytes.fill(0xa5, 4096 * 2));
  const expected = { code: 'DATA_DIRECTORY_UNUSABLE', message: /fnway\.db: it is damaged\./ };
  await assert.rejects(
    async () => withStore(file, store => store.functions.list({ limit: 100 })),
    expected,
  );
});

test('a directory that is not there is told with its path', () => {
  const file = path.join(root, 'missing', 'fnway.db');
  const expected = { code: 'DATA_DIRECTORY_UNUSABLE', message: /missing\/fnway\.db: ENOENT/ };
  assert.throws(() => openSqliteStore({ path: file }), expected);
});

test('a call fails as locked when another connection keeps the file too long', async () => {
  const file = newPath();
  const store = openSqliteStore({ path: file, busyTimeoutMs: 20 });
  const other = new DatabaseSync(file);
  other.exec('BEGIN IMMEDIATE');
  await assert.rejects(() => addFunction(store, 1), { code: 'DATA_DIRECTORY_LOCKED' });
  assert.deepEqual(await store.functions.list({ limit: 1 }), []);
  other.exec('ROLLBACK');
  other.close();
  await addFunction(store, 1);
  await store.close();
});
