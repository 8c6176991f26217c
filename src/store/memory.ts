/**
 * The store in memory: the executable specification of the port, and the store of tests. Plain
 * maps, no indexes: it is written to be read, not to be fast. It keeps nothing that a caller can
 * reach, since rows are copied on their way in and out, and like a database it drops fields that
 * are undefined.
 */
import { assert } from '../errors.ts';
import { createMemoryJobs } from './memory-jobs.ts';
import { createMemoryMessages } from './memory-messages.ts';
import { createMemoryObjects } from './memory-objects.ts';
import { createMemorySchedules } from './memory-schedules.ts';
import {
  assertCreate,
  assertLimit,
  assertSettlement,
  assertUpdate,
  identityRule,
  idRule,
  openRule,
} from './rules.ts';
import type {
  FunctionRow,
  FunctionStore,
  NewRow,
  ResourceRow,
  ResourceStore,
  SecretRow,
  SecretStore,
  Store,
  VersionRow,
  VersionSettlement,
} from './store.ts';

interface Entry {
  row: FunctionRow;
  versions: Map<number, VersionRow>;
}

export function createMemoryStore(): Store {
  const functions = new MemoryFunctionStore();
  const secrets = createMemorySecrets();
  const jobs = createMemoryJobs();
  return {
    ...{ functions, secrets, resources: createMemoryResources() },
    ...{ jobs, schedules: createMemorySchedules(jobs), messages: createMemoryMessages(jobs) },
    objects: createMemoryObjects(jobs),
    close: async () => functions.close(),
  };
}

function createMemorySecrets(): SecretStore {
  const rows = new Map<string, SecretRow>();
  const keyOf = (namespace: string, name: string) => `${namespace}\0${name}`;
  return {
    async put(row) {
      const key = keyOf(row.namespace, row.name);
      const outcome = rows.has(key) ? 'updated' : 'created';
      rows.set(key, { ...row, sealedValue: Uint8Array.from(row.sealedValue) });
      return outcome;
    },
    remove: async (namespace, name) => rows.delete(keyOf(namespace, name)),
    list: async () =>
      [...rows.entries()].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, row]) => ({ ...row })),
  };
}

function createMemoryResources(): ResourceStore {
  const rows = new Map<string, ResourceRow>();
  let revision = 0;
  const copy = (row: ResourceRow) => ({ ...row, sealedSpec: Uint8Array.from(row.sealedSpec) });
  return {
    async put(row, expected) {
      if (rows.get(row.id)?.revision !== expected.revision) return 'conflict';
      const isTaken = [...rows.values()].some(
        other =>
          other.id !== row.id &&
          other.kind === row.kind &&
          other.namespace === row.namespace &&
          other.name === row.name,
      );
      if (isTaken) return 'conflict';
      const stored = copy({ ...row, revision: ++revision });
      rows.set(row.id, stored);
      return copy(stored);
    },
    remove: async id => rows.delete(id),
    list: async () => [...rows.values()].sort((a, b) => (a.id < b.id ? -1 : 1)).map(copy),
  };
}

/** No method awaits anything, so each is atomic. Checks come before the first change. */
class MemoryFunctionStore implements FunctionStore {
  readonly #entries = new Map<string, Entry>();
  #revision = 0;
  #closed = false;

  async create(row: NewRow, version: VersionRow): Promise<FunctionRow | 'exists'> {
    const entries = this.#open();
    assertCreate(row, version);
    for (const { row: other } of entries.values()) {
      if (other.namespace === row.namespace && other.name === row.name) return 'exists';
    }
    for (const { row: other } of entries.values()) {
      assert(other.identity !== row.identity, identityRule);
    }
    assert(!entries.has(row.id), idRule);
    const stored = copyRow({ ...row, revision: ++this.#revision });
    entries.set(row.id, { row: stored, versions: new Map([[1, copyVersion(version)]]) });
    return copyRow(stored);
  }

  async update(
    row: NewRow,
    { revision, version }: { revision: number; version?: VersionRow },
  ): Promise<FunctionRow | 'conflict' | 'missing'> {
    const entry = this.#open().get(row.id);
    if (entry === undefined) return 'missing';
    if (entry.row.revision !== revision) return 'conflict';
    const active =
      row.activeVersion === version?.number ? version : entry.versions.get(row.activeVersion ?? 0);
    assertUpdate(row, {
      stored: entry.row,
      newest: Math.max(...entry.versions.keys()),
      version,
      activeState: active?.state,
    });
    if (version !== undefined) entry.versions.set(version.number, copyVersion(version));
    entry.row = copyRow({ ...row, revision: ++this.#revision });
    return copyRow(entry.row);
  }

  async settle(settlement: VersionSettlement): Promise<FunctionRow | 'missing'> {
    const entry = this.#open().get(settlement.functionId);
    assertSettlement(settlement);
    const version = entry?.versions.get(settlement.number);
    if (entry === undefined || version?.state !== 'building') return 'missing';
    const { state, sealedFailure, sealedBuildLog, settledMs } = settlement;
    entry.versions.set(
      version.number,
      copyVersion({ ...version, state, sealedFailure, sealedBuildLog, settledMs }),
    );
    const { activeVersion = 0, activateAbove = 0, traffic } = entry.row;
    const isNewer = version.number > Math.max(activeVersion, activateAbove);
    if (settlement.activate && isNewer && traffic === undefined) {
      entry.row.activeVersion = version.number;
      entry.row.updatedMs = settledMs;
      entry.row.revision = ++this.#revision;
    }
    return copyRow(entry.row);
  }

  async list(page: {
    after?: string;
    limit: number;
  }): Promise<Array<{ row: FunctionRow; active?: VersionRow }>> {
    assertLimit(page.limit);
    return [...this.#open().values()]
      .filter(({ row }) => page.after === undefined || row.id > page.after)
      .sort((a, b) => (a.row.id < b.row.id ? -1 : 1))
      .slice(0, page.limit)
      .map(({ row, versions }) => {
        const active = versions.get(row.activeVersion ?? 0);
        return { row: copyRow(row), ...(active !== undefined && { active: copyVersion(active) }) };
      });
  }

  async versions(functionId: string, options: { limit?: number } = {}): Promise<VersionRow[]> {
    if (options.limit !== undefined) assertLimit(options.limit);
    const versions = this.#open().get(functionId)?.versions.values() ?? [];
    const sorted = [...versions].sort((a, b) => b.number - a.number);
    return sorted.slice(0, options.limit).map(copyVersion);
  }

  async remove(functionId: string): Promise<boolean> {
    return this.#open().delete(functionId);
  }

  async removeVersions(functionId: string, numbers: number[]): Promise<number> {
    const entry = this.#open().get(functionId);
    if (entry === undefined) return 0;
    const newest = Math.max(...entry.versions.keys());
    return numbers.filter(
      number =>
        number !== newest && number !== entry.row.activeVersion && entry.versions.delete(number),
    ).length;
  }

  async sourceDigests(): Promise<Set<string>> {
    const versions = [...this.#open().values()].flatMap(entry => [...entry.versions.values()]);
    return new Set(versions.flatMap(version => version.sourceDigest ?? []));
  }

  close(): void {
    this.#closed = true;
  }

  #open(): Map<string, Entry> {
    assert(!this.#closed, openRule);
    return this.#entries;
  }
}

function copyRow(row: FunctionRow): FunctionRow {
  return {
    id: row.id,
    namespace: row.namespace,
    name: row.name,
    settings: copyJson(row.settings),
    sealedToken: new Uint8Array(row.sealedToken),
    identity: row.identity,
    ...(row.activeVersion !== undefined && { activeVersion: row.activeVersion }),
    ...(row.traffic !== undefined && { traffic: copyJson(row.traffic) }),
    ...(row.activateAbove && { activateAbove: row.activateAbove }),
    createdMs: row.createdMs,
    updatedMs: row.updatedMs,
    revision: row.revision,
  };
}

function copyVersion(version: VersionRow): VersionRow {
  return {
    functionId: version.functionId,
    number: version.number,
    state: version.state,
    sealedSpec: new Uint8Array(version.sealedSpec),
    contentDigest: version.contentDigest,
    ...(version.sourceDigest !== undefined && { sourceDigest: version.sourceDigest }),
    ...(version.sealedFailure !== undefined && {
      sealedFailure: new Uint8Array(version.sealedFailure),
    }),
    sealedBuildLog: new Uint8Array(version.sealedBuildLog),
    createdMs: version.createdMs,
    ...(version.settledMs !== undefined && { settledMs: version.settledMs }),
  };
}

/** Through JSON, as in a database: `structuredClone` would keep fields that are undefined. */
function copyJson<T>(value: T): T {
  return JSON.parse(JSON.stringify(value)) as T;
}
