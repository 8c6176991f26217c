/**
 * Goal: a version ends as what became of it, whatever the store does meanwhile. Method: the memory store, made to fail;
 * the mock driver and a fake clock.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createSealer } from '../auth/seal.ts';
import { createMemoryBlobs } from '../blob/memory.ts';
import type { Builder } from '../build/build.ts';
import { createMockDriver } from '../driver/mock.ts';
import { GatewayError } from '../errors.ts';
import { Pool } from '../invoke/pool.ts';
import { silentLog } from '../log.ts';
import { buildFunctionRow, buildVersionRow } from '../store/contract-rows.ts';
import { createMemoryStore } from '../store/memory.ts';
import type { Store } from '../store/store.ts';
import { Metrics } from '../telemetry/metrics.ts';
import { FakeClock, settle } from '../testing/fake-clock.ts';
import { Registry } from './registry.ts';
import { Sources } from './sources.ts';
import { Versions } from './versions.ts';

/** A version that is being built; it has no files, so that no builder is asked. */
async function building(changeStore: (store: Store) => void) {
  const clock = new FakeClock();
  const store = createMemoryStore();
  const sealer = createSealer(new Uint8Array(32));
  const registry = new Registry({
    ...{ store, sealer, runtimes: new Map() },
    codeDirectory: '/nowhere',
    uidFirst: undefined,
  });
  const pool = new Pool({
    drivers: [createMockDriver({ clock })],
    ...{ clock, log: silentLog, metrics: new Metrics() },
    graceMs: 500,
    bufferedBodyBytesMax: 1000,
  });
  const versions = new Versions({
    ...{ store, sealer, registry, pool, clock, log: silentLog },
    sources: new Sources(createMemoryBlobs()),
    builder: {} as Builder,
    codeDirectory: '/nowhere',
    users: { during: (_, work) => work() },
  });
  const spec = { kind: 'http', env: {}, timeoutMs: 1000 };
  const row = buildFunctionRow(1);
  const versionRow = buildVersionRow(row, 1, { sealedSpec: sealer.seal(JSON.stringify(spec)) });
  const created = await store.functions.create(row, versionRow);
  assert.ok(created !== 'exists');
  const entry = registry.add(created);
  const version = registry.revive(entry, versionRow);
  changeStore(store);
  versions.start(entry, version);
  await settle();
  const stored = async () => (await store.functions.versions(row.id))[0]!.state;
  return { clock, versions, entry, version, stored };
}

/** Makes the next `count` settlements fail. */
function failing(count: number) {
  return (store: Store) => {
    const { settle: write } = store.functions;
    let failures = 0;
    store.functions.settle = settlement => {
      if (failures++ < count)
        return Promise.reject(new GatewayError('DATA_DIRECTORY_UNUSABLE', 'the disk is full'));
      return write.call(store.functions, settlement);
    };
  };
}

test('the end of a build that the store does not take is stored as soon as it does', async () => {
  const { clock, versions, entry, version, stored } = await building(failing(3));
  assert.equal(await stored(), 'building');
  assert.ok(versions.isBuilding(version), 'whoever waits for the build goes on waiting');
  let waited = false;
  void versions.settled(version, 60_000).then(() => {
    waited = true;
  });
  await clock.advance(3499);
  assert.deepEqual([await stored(), waited], ['building', false]);
  await clock.advance(1);
  assert.deepEqual([await stored(), waited], ['ready', true]);
  assert.equal(entry.active, version);
});

test('a gateway that stops gives up, leaves the version as it is, and says so', async () => {
  const { versions, version, stored } = await building(failing(Number.POSITIVE_INFINITY));
  const waited = assert.rejects(versions.settled(version, 60_000), { code: 'GATEWAY_STOPPING' });
  await versions.close();
  await waited;
  assert.equal(await stored(), 'building');
  assert.equal(versions.isBuilding(version), false);
  await assert.rejects(versions.settled(version, 60_000), { code: 'GATEWAY_STOPPING' });
});
