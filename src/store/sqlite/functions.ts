/**
 * The facet `functions` of the SQLite store: its statements, prepared once, and the way between
 * rows of the port and of the tables. Opening, migrations, transactions and errors are in
 * sqlite.ts.
 */
import type { DatabaseSync, SQLInputValue, SQLOutputValue, StatementSync } from 'node:sqlite';
import type { VersionState } from '../../domain/function.ts';
import type { Traffic } from '../../domain/traffic.ts';
import { assert } from '../../errors.ts';
import {
  assertCreate,
  assertLimit,
  assertSettlement,
  assertUpdate,
  identityRule,
  idRule,
} from '../rules.ts';
import type {
  FunctionRow,
  FunctionStore,
  NewRow,
  VersionRow,
  VersionSettlement,
} from '../store.ts';
import type { SqliteConnection } from './database.ts';

type Columns = Record<string, SQLOutputValue>;

export function createSqliteFunctions(connection: SqliteConnection): FunctionStore {
  return new SqliteFunctionStore(connection);
}

class SqliteFunctionStore implements FunctionStore {
  readonly #connection: SqliteConnection;
  readonly #statements: ReturnType<typeof prepareStatements>;

  constructor(connection: SqliteConnection) {
    this.#connection = connection;
    this.#statements = prepareStatements(connection.db);
  }

  async create(row: NewRow, version: VersionRow): Promise<FunctionRow | 'exists'> {
    const sql = this.#statements;
    return this.#connection.write(() => {
      assertCreate(row, version);
      const taken = sql.taken.get(row.namespace, row.name, row.identity, row.id)!;
      if (taken.name) return 'exists';
      assert(!taken.identity, identityRule);
      assert(!taken.id, idRule);
      const inserted = sql.insert.get(
        row.id,
        row.namespace,
        row.name,
        JSON.stringify(row.settings),
        row.sealedToken,
        row.identity,
        row.activeVersion ?? null,
        row.traffic === undefined ? null : JSON.stringify(row.traffic),
        row.activateAbove ?? 0,
        row.createdMs,
        row.updatedMs,
        this.#nextRevision(),
      )!;
      sql.insertVersion.run(...versionParameters(version));
      return toFunctionRow(inserted);
    });
  }

  async update(
    row: NewRow,
    { revision, version }: { revision: number; version?: VersionRow },
  ): Promise<FunctionRow | 'conflict' | 'missing'> {
    const sql = this.#statements;
    return this.#connection.write(() => {
      const found = sql.get.get(row.id);
      if (found === undefined) return 'missing';
      const stored = toFunctionRow(found);
      if (stored.revision !== revision) return 'conflict';
      const newest = sql.newest.get(row.id)!.number as number;
      const activeState =
        row.activeVersion === version?.number
          ? version?.state
          : this.#stateOf(row.id, row.activeVersion);
      assertUpdate(row, { stored, newest, version, activeState });
      if (version !== undefined) sql.insertVersion.run(...versionParameters(version));
      const updated = sql.update.get(
        JSON.stringify(row.settings),
        row.sealedToken,
        row.activeVersion ?? null,
        row.traffic === undefined ? null : JSON.stringify(row.traffic),
        row.activateAbove ?? 0,
        row.updatedMs,
        this.#nextRevision(),
        row.id,
      )!;
      return toFunctionRow(updated);
    });
  }

  async settle(settlement: VersionSettlement): Promise<FunctionRow | 'missing'> {
    const sql = this.#statements;
    const { functionId, number, settledMs } = settlement;
    return this.#connection.write(() => {
      assertSettlement(settlement);
      const { changes } = sql.settle.run(
        settlement.state,
        settlement.sealedFailure ?? null,
        settlement.sealedBuildLog,
        settledMs,
        functionId,
        number,
      );
      if (changes === 0) return 'missing';
      const stored = toFunctionRow(sql.get.get(functionId)!);
      const { activeVersion = 0, activateAbove = 0, traffic } = stored;
      const isNewer = number > Math.max(activeVersion, activateAbove);
      if (!settlement.activate || !isNewer || traffic !== undefined) return stored;
      const revision = this.#nextRevision();
      return toFunctionRow(sql.activate.get(number, settledMs, revision, functionId)!);
    });
  }

  async list(page: {
    after?: string;
    limit: number;
  }): Promise<Array<{ row: FunctionRow; active?: VersionRow }>> {
    assertLimit(page.limit);
    const found = this.#connection.read(() =>
      // Every id is greater than the empty text.
      this.#statements.list.all(page.after ?? '', page.limit),
    );
    return found.map(columns => ({
      row: toFunctionRow(columns),
      ...(columns.number !== null && { active: toVersionRow(columns) }),
    }));
  }

  async versions(functionId: string, options: { limit?: number } = {}): Promise<VersionRow[]> {
    if (options.limit !== undefined) assertLimit(options.limit);
    const { versions } = this.#statements;
    // Negative: without a limit.
    return this.#connection.read(() =>
      versions.all(functionId, options.limit ?? -1).map(toVersionRow),
    );
  }

  async remove(functionId: string): Promise<boolean> {
    return this.#connection.write(() => this.#statements.remove.run(functionId).changes === 1);
  }

  async removeVersions(functionId: string, numbers: number[]): Promise<number> {
    const sql = this.#statements;
    return this.#connection.write(() => {
      const newest = sql.newest.get(functionId)!.number;
      const active = sql.get.get(functionId)?.active_version;
      return numbers
        .filter(number => number !== newest && number !== active)
        .reduce((sum, n) => sum + Number(sql.removeVersion.run(functionId, n).changes), 0);
    });
  }

  async sourceDigests(): Promise<Set<string>> {
    const found = this.#connection.read(() => this.#statements.sourceDigests.all());
    return new Set(found.map(columns => columns.source_digest as string));
  }

  /** Inside a transaction only, so that a change that is rolled back takes its number along. */
  #nextRevision(): number {
    return this.#statements.nextRevision.get()!.value as number;
  }

  #stateOf(functionId: string, number: number | undefined): VersionState | undefined {
    if (number === undefined) return undefined;
    return this.#statements.state.get(functionId, number)?.state as VersionState | undefined;
  }
}

const functionColumns = `id, namespace, name, settings, sealed_token, identity, active_version,
  traffic, activate_above, functions.created_ms AS created_ms, updated_ms, revision`;

const versionColumns = `function_id, number, state, sealed_spec, content_digest, source_digest,
  sealed_failure, sealed_build_log, versions.created_ms AS version_created_ms, settled_ms`;

function prepareStatements(db: DatabaseSync) {
  const prepare = (sql: string): StatementSync => db.prepare(sql);
  return {
    nextRevision: prepare(
      `UPDATE counters SET value = value + 1 WHERE name = 'revision' RETURNING value`,
    ),
    taken: prepare(`SELECT
      EXISTS (SELECT 1 FROM functions WHERE namespace = ? AND name = ?) AS name,
      EXISTS (SELECT 1 FROM functions WHERE identity = ?) AS identity,
      EXISTS (SELECT 1 FROM functions WHERE id = ?) AS id`),
    insert: prepare(`INSERT INTO functions (id, namespace, name, settings, sealed_token, identity,
      active_version, traffic, activate_above, created_ms, updated_ms, revision)
      VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
      RETURNING ${functionColumns}`),
    insertVersion: prepare(`INSERT INTO versions (function_id, number, state, sealed_spec,
      content_digest, source_digest, sealed_failure, sealed_build_log, created_ms, settled_ms)
      VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`),
    get: prepare(`SELECT ${functionColumns} FROM functions WHERE id = ?`),
    newest: prepare('SELECT max(number) AS number FROM versions WHERE function_id = ?'),
    state: prepare('SELECT state FROM versions WHERE function_id = ? AND number = ?'),
    update: prepare(`UPDATE functions SET settings = ?, sealed_token = ?, active_version = ?,
      traffic = ?, activate_above = ?, updated_ms = ?, revision = ? WHERE id = ? RETURNING ${functionColumns}`),
    settle: prepare(`UPDATE versions SET state = ?, sealed_failure = ?, sealed_build_log = ?,
      settled_ms = ? WHERE function_id = ? AND number = ? AND state = 'building'`),
    activate: prepare(`UPDATE functions SET active_version = ?, updated_ms = ?, revision = ?
      WHERE id = ? RETURNING ${functionColumns}`),
    list: prepare(`SELECT ${functionColumns}, ${versionColumns} FROM functions
      LEFT JOIN versions ON function_id = id AND number = active_version
      WHERE id > ? ORDER BY id LIMIT ?`),
    versions: prepare(`SELECT ${versionColumns} FROM versions WHERE function_id = ?
      ORDER BY number DESC LIMIT ?`),
    remove: prepare('DELETE FROM functions WHERE id = ?'),
    removeVersion: prepare('DELETE FROM versions WHERE function_id = ? AND number = ?'),
    sourceDigests: prepare(
      'SELECT DISTINCT source_digest FROM versions WHERE source_digest IS NOT NULL',
    ),
  };
}

function versionParameters(version: VersionRow): SQLInputValue[] {
  return [
    version.functionId,
    version.number,
    version.state,
    version.sealedSpec,
    version.contentDigest,
    version.sourceDigest ?? null,
    version.sealedFailure ?? null,
    version.sealedBuildLog,
    version.createdMs,
    version.settledMs ?? null,
  ];
}

function toFunctionRow(columns: Columns): FunctionRow {
  return {
    id: columns.id as string,
    namespace: columns.namespace as string,
    name: columns.name as string,
    settings: JSON.parse(columns.settings as string) as FunctionRow['settings'],
    sealedToken: columns.sealed_token as Uint8Array,
    identity: columns.identity as number,
    ...(columns.active_version !== null && { activeVersion: columns.active_version as number }),
    ...(columns.traffic !== null && { traffic: JSON.parse(columns.traffic as string) as Traffic }),
    ...(columns.activate_above !== 0 && { activateAbove: columns.activate_above as number }),
    createdMs: columns.created_ms as number,
    updatedMs: columns.updated_ms as number,
    revision: columns.revision as number,
  };
}

function toVersionRow(columns: Columns): VersionRow {
  return {
    functionId: columns.function_id as string,
    number: columns.number as number,
    state: columns.state as VersionState,
    sealedSpec: columns.sealed_spec as Uint8Array,
    contentDigest: columns.content_digest as string,
    ...(columns.source_digest !== null && { sourceDigest: columns.source_digest as string }),
    ...(columns.sealed_failure !== null && {
      sealedFailure: columns.sealed_failure as Uint8Array,
    }),
    sealedBuildLog: columns.sealed_build_log as Uint8Array,
    createdMs: columns.version_created_ms as number,
    ...(columns.settled_ms !== null && { settledMs: columns.settled_ms as number }),
  };
}
