/**
 * What the store's suite is written with: rows that are valid as they are, and calls that must
 * succeed. Also for the tests of one store, and of what stands on a store.
 */
import assert from 'node:assert/strict';
import type { FunctionRow, NewRow, Store, VersionRow, VersionSettlement } from './store.ts';

export type Body = (store: Store) => Promise<void>;
export type Define = (name: string, body: Body) => void;

/** A row that differs from others by `n` wherever rows must differ. */
export function buildFunctionRow(n: number, changes: Partial<NewRow> = {}): NewRow {
  return {
    id: `fn_${String(n).padStart(26, '0')}`,
    namespace: 'default',
    name: `function-${n}`,
    settings: {
      auth: 'token',
      instances: { min: 0, max: 4, idleMs: 300_000 },
      labels: { team: 'blue', 'a/b': 'ü – 漢 – 🙂' },
      description: `number ${n}`,
    },
    sealedToken: Uint8Array.of(1, n & 255, 0, 255),
    identity: n,
    createdMs: 1_700_000_000_000 + n,
    updatedMs: 1_700_000_000_000 + n,
    ...changes,
  };
}

export function buildVersionRow(
  row: { id: string },
  number: number,
  changes: Partial<VersionRow> = {},
): VersionRow {
  return {
    functionId: row.id,
    number,
    state: 'building',
    sealedSpec: Uint8Array.of(2, number, 0, 255),
    contentDigest: `sha256:content-${number}`,
    sealedBuildLog: new Uint8Array(0),
    createdMs: 1_700_000_001_000 + number,
    ...changes,
  };
}

export function buildSettlement(
  row: { id: string },
  number: number,
  changes: Partial<VersionSettlement> = {},
): VersionSettlement {
  return {
    functionId: row.id,
    number,
    state: 'ready',
    sealedBuildLog: Uint8Array.of(3, number),
    settledMs: 1_700_000_002_000 + number,
    activate: true,
    ...changes,
  };
}

export async function addFunction(
  store: Store,
  n: number,
  changes: Partial<NewRow> = {},
): Promise<FunctionRow> {
  const row = buildFunctionRow(n, changes);
  return asRow(await store.functions.create(row, buildVersionRow(row, 1)));
}

export async function addVersion(
  store: Store,
  row: FunctionRow,
  version: VersionRow,
): Promise<FunctionRow> {
  return asRow(await store.functions.update(row, { revision: row.revision, version }));
}

export function asRow(outcome: FunctionRow | string): FunctionRow {
  assert.ok(typeof outcome !== 'string', `not a row: ${outcome}`);
  return outcome;
}

export function listAll(store: Store) {
  return store.functions.list({ limit: 1000 });
}

/** The call breaks an invariant, and everything is afterwards as it was. */
export async function assertRefused(store: Store, invariant: RegExp, call: () => Promise<unknown>) {
  const snapshot = async () => {
    const rows = await listAll(store);
    const versions = rows.map(({ row }) => store.functions.versions(row.id));
    return { rows, versions: await Promise.all(versions) };
  };
  const before = await snapshot();
  await assert.rejects(call, invariant);
  assert.deepEqual(await snapshot(), before);
}
