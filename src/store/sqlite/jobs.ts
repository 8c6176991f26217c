/**
 * The facet `jobs` in SQL. Methods are synchronous: they run in the queue's thread (queue-thread.ts), many in one
 * transaction. All that a job passes finds its rows by an index, in a number that does not grow with what waits; `list` looks
 * through what there is, newest first.
 */
import { assertEnqueue, assertSettle } from '../job-rules.ts';
import type {
  EndState,
  Enqueued,
  JobKind,
  JobQuery,
  JobStore,
  LeasedJob,
  NewJob,
  Settlement,
  StoredJob,
} from '../jobs.ts';
import { shareOut } from '../share-out.ts';
import type { SqliteConnection } from './database.ts';

type Row = Record<string, null | number | bigint | string | Uint8Array>;

const [ready, delayed, blocked, running] = [0, 1, 2, 3];

/** Of those that wait for their time, or whose lease has run out, at once: a claim holds nobody up for long. */
const promotedMax = 1000;

/** The port's methods, without promises. */
export type JobMethods = {
  [K in keyof JobStore]: (...args: Parameters<JobStore[K]>) => Awaited<ReturnType<JobStore[K]>>;
};

export class SqliteJobs implements JobMethods {
  readonly #sql: ReturnType<typeof prepare>;
  readonly #db: SqliteConnection['db'];
  /** Grows with every job that is leased. */
  #served: number;

  constructor(db: SqliteConnection['db']) {
    this.#db = db;
    this.#sql = prepare(db);
    this.#served = (this.#sql.lastServed.get() as Row).served as number;
  }

  enqueue(jobs: NewJob[], nowMs: number): Enqueued[] {
    for (const job of jobs) assertEnqueue(job);
    return jobs.map(job => this.#enqueue(job, nowMs));
  }

  /** Whether so many may wait. For other facets of the file. */
  hasRoom(jobs: readonly NewJob[]): boolean {
    const counts = new Map<string, number>();
    for (const { lane } of jobs) counts.set(lane.id, (counts.get(lane.id) ?? 0) + 1);
    return jobs.every(({ lane }) => {
      const row = this.#sql.lane.get(lane.id) as Row | undefined;
      return ((row?.waiting as number) ?? 0) + counts.get(lane.id)! <= lane.waitingMax;
    });
  }

  /** However many wait. */
  accept(job: NewJob, nowMs: number): void {
    assertEnqueue(job);
    this.#enqueue({ ...job, lane: { ...job.lane, waitingMax: Number.MAX_SAFE_INTEGER } }, nowMs);
  }

  #enqueue(job: NewJob, nowMs: number): Enqueued {
    const sql = this.#sql;
    const { idempotency, lane } = job;
    if (idempotency !== undefined) {
      const known = sql.keyOf.get(idempotency.key, nowMs) as Row | undefined;
      if (known !== undefined)
        return known.digest === idempotency.digest ? { first: known.id as string } : 'conflict';
    }
    const counts = sql.lane.get(lane.id) as Row | undefined;
    if (counts !== undefined && (counts.waiting as number) >= lane.waitingMax) return 'full';
    const state = this.#stateOf(job, nowMs);
    sql.insert.run(
      ...[job.id, job.kind, job.namespace, job.functionId, lane.id, state, job.priority],
      ...[job.acceptedMs, job.dueMs, job.orderKey ?? null, job.parent ?? null],
      ...[job.sealedInput ?? null, job.inputBlob ?? null],
    );
    sql.arrived.run(lane.id, lane.runningMax, state === ready ? 1 : 0);
    if (idempotency !== undefined) {
      const { key, digest, untilMs } = idempotency;
      sql.putKey.run(key, job.id, digest, untilMs);
    }
    return 'accepted';
  }

  #stateOf({ lane, orderKey, dueMs }: NewJob, nowMs: number): number {
    if (orderKey !== undefined && this.#sql.firstOfKey.get(lane.id, orderKey) !== undefined)
      return blocked;
    return dueMs > nowMs ? delayed : ready;
  }

  claim({ limit, nowMs, leaseMs }: { limit: number; nowMs: number; leaseMs: number }) {
    const sql = this.#sql;
    for (const row of sql.expired.all(nowMs, promotedMax) as Row[]) this.#giveBack(row, nowMs);
    for (const row of sql.due.all(nowMs, promotedMax) as Row[]) this.#move(row, ready);
    const lanes = (sql.waitingLanes.all(limit) as Row[]).map(({ id, ready, room }) => ({
      ...{ id: id as string, ready: ready as number, room: room as number },
    }));
    const order = shareOut(lanes, limit);
    const counts = new Map<string, number>();
    for (const lane of order) counts.set(lane, (counts.get(lane) ?? 0) + 1);
    const found = new Map<string, Row[]>();
    for (const [lane, count] of counts) {
      const rows = sql.readyOf.all(lane, count) as Row[];
      found.set(lane, rows);
      for (const { seq } of rows) sql.lease.run(nowMs + leaseMs, seq!);
      sql.leased.run(rows.length, rows.length, rows.length, lane);
    }
    // When each was served last is what counts the next time.
    const lastAt = new Map(order.map((lane, at) => [lane, at]));
    for (const [lane, at] of lastAt) sql.served.run(this.#served + at + 1, lane);
    this.#served += order.length;
    const next = sql.next.get() as Row;
    const times = [next.due, next.leased].filter(ms => ms !== null) as number[];
    return {
      jobs: order.map(lane => leasedOf(found.get(lane)!.shift()!)),
      ...(times.length > 0 && { nextMs: Math.min(...times) }),
    };
  }

  #giveBack(row: Row, nowMs: number): void {
    this.#sql.giveBack.run(nowMs, row.seq!);
    this.#sql.moved.run(1, 1, -1, row.lane!);
  }

  /** Of what waits: to be ready or delayed. */
  #move({ seq, lane }: Row, state: number): void {
    this.#sql.setState.run(state, seq!);
    if (state === ready) this.#sql.moved.run(1, 0, 0, lane!);
  }

  extend(leases: ReadonlyArray<{ id: string; lease: number }>, untilMs: number): boolean[] {
    return leases.map(({ id, lease }) => this.#sql.extend.run(untilMs, id, lease).changes === 1);
  }

  settle(settlements: Settlement[]): Array<'settled' | 'lost'> {
    for (const settlement of settlements) assertSettle(settlement);
    return settlements.map(settlement => this.#settle(settlement));
  }

  #settle(settlement: Settlement): 'settled' | 'lost' {
    const { id, lease, nowMs, outcome, isCounted, sealedStory, next } = settlement;
    const sql = this.#sql;
    const row = sql.held.get(id, lease) as Row | undefined;
    if (row === undefined) return 'lost';
    const attempts = (row.attempts as number) + (isCounted ? 1 : 0);
    if (outcome.kind === 'retry') {
      const state = outcome.dueMs > nowMs ? delayed : ready;
      sql.again.run(state, outcome.dueMs, attempts, sealedStory ?? null, row.seq!);
      sql.moved.run(state === ready ? 1 : 0, 1, -1, row.lane!);
    } else {
      const { state, status, sealedResult, resultBlob, keepsInput } = outcome;
      this.#end(row, { state, nowMs, attempts, sealedStory, keepsInput }, [
        ...[status ?? null, sealedResult ?? null, resultBlob ?? null],
      ]);
      sql.moved.run(0, 0, -1, row.lane!);
    }
    // What belongs to an end is never too much.
    for (const job of next) this.accept(job, nowMs);
    return 'settled';
  }

  /** From `jobs` to `ended`; the next of its key may go. */
  #end(
    row: Row,
    end: {
      state: EndState;
      nowMs: number;
      attempts: number;
      /** Absent: as it was. */
      sealedStory?: Uint8Array | undefined;
      keepsInput: boolean;
    },
    result: Array<number | string | Uint8Array | null> = [null, null, null],
  ): void {
    const sql = this.#sql;
    sql.end.run(
      ...[end.state, end.nowMs, end.attempts, end.sealedStory ?? null],
      ...[end.keepsInput ? 1 : 0, end.keepsInput ? 1 : 0],
      ...result,
      row.seq!,
    );
    sql.remove.run(row.seq!);
    if (row.order_key === null) return;
    const next = sql.firstOfKey.get(row.lane!, row.order_key!) as Row | undefined;
    if (next?.state === blocked)
      this.#move(next, (next.due_ms as number) > end.nowMs ? delayed : ready);
  }

  cancel(id: string, { nowMs }: { nowMs: number }) {
    const sql = this.#sql;
    const row = sql.live.get(id) as Row | undefined;
    if (row === undefined) return sql.hasEnded.get(id) === undefined ? 'missing' : 'ended';
    if (row.state === running) return 'running';
    const attempts = row.attempts as number;
    this.#end(row, {
      ...{ state: 'cancelled', nowMs, attempts, keepsInput: true },
    });
    sql.moved.run(row.state === ready ? -1 : 0, -1, 0, row.lane!);
    return 'cancelled';
  }

  setRoom(lanes: ReadonlyArray<{ id: string; runningMax: number }>): void {
    for (const { id, runningMax } of lanes) this.#sql.setRoom.run(runningMax, id);
  }

  recover(nowMs: number): number {
    const rows = this.#sql.runningAll.all() as Row[];
    for (const row of rows) this.#giveBack(row, nowMs);
    return rows.length;
  }

  find(id: string): StoredJob | undefined {
    const live = this.#sql.live.get(id) as Row | undefined;
    if (live !== undefined) return storedOf(live);
    const ended = this.#sql.ended.get(id) as Row | undefined;
    return ended && endedOf(ended);
  }

  list({ namespace, functionId, kind, state, after, limit }: JobQuery): StoredJob[] {
    const where: string[] = ['namespace = ?'];
    const values: Array<string | number> = [namespace];
    const add = (condition: string, value: string | number | undefined) => {
      if (value === undefined) return;
      where.push(condition);
      values.push(value);
    };
    add('function_id = ?', functionId);
    add('kind = ?', kind);
    add('id < ?', after);
    const isLive = state === undefined || state === 'queued' || state === 'running';
    const isEnded = state === undefined || !isLive;
    const live = isLive
      ? this.#page('jobs', [...where, ...liveCondition(state)], values, limit).map(storedOf)
      : [];
    if (isEnded) add('state = ?', state);
    const ended = isEnded ? this.#page('ended', where, values, limit).map(endedOf) : [];
    return [...live, ...ended].sort((a, b) => (a.id < b.id ? 1 : -1)).slice(0, limit);
  }

  #page(table: string, where: string[], values: Array<string | number>, limit: number): Row[] {
    return this.#db
      .prepare(
        `SELECT ${table === 'jobs' ? liveColumns : endedColumns} FROM ${table}
         WHERE ${where.join(' AND ')} ORDER BY id DESC LIMIT ?`,
      )
      .all(...values, limit) as Row[];
  }

  counts() {
    return (this.#sql.counts.all() as Row[]).map(({ id, waiting, running }) => ({
      ...{ lane: id as string, waiting: waiting as number, running: running as number },
    }));
  }

  sweep({ nowMs, endedBeforeMs, deadBeforeMs, limit }: Parameters<JobStore['sweep']>[0]) {
    const sql = this.#sql;
    const keys = Number(sql.sweepKeys.run(nowMs, limit).changes);
    const rows = [
      ...(sql.oldEnded.all(endedBeforeMs, limit) as Row[]),
      ...(sql.oldDead.all(deadBeforeMs, limit) as Row[]),
    ]
      .sort((a, b) => Number(a.ended_ms) - Number(b.ended_ms) || (a.id! < b.id! ? -1 : 1))
      .slice(0, limit);
    for (const { id } of rows) sql.forget.run(id!);
    const blobs = rows.flatMap(row => [row.input_blob, row.result_blob]).filter(blob => blob);
    return { removed: Math.max(rows.length, keys), blobs: blobs as string[] };
  }

  blobs(): Set<string> {
    return new Set((this.#sql.blobs.all() as Row[]).map(({ blob }) => blob as string));
  }
}

const liveColumns = `id, kind, namespace, function_id, lane, state, priority, accepted_ms, due_ms, order_key, parent,
  attempts, lost, input_blob`;
const endedColumns = `id, kind, namespace, function_id, lane, state, priority, accepted_ms, ended_ms, order_key, parent,
  attempts, lost, status, input_blob, result_blob`;

function liveCondition(state: string | undefined): string[] {
  if (state === undefined) return [];
  return [state === 'running' ? `state = ${running}` : `state <> ${running}`];
}

function prepare(db: SqliteConnection['db']) {
  const sql = (text: string) => db.prepare(text);
  return {
    keyOf: sql('SELECT id, digest FROM idempotency WHERE key = ? AND until_ms > ?'),
    putKey: sql(
      'INSERT OR REPLACE INTO idempotency (key, id, digest, until_ms) VALUES (?, ?, ?, ?)',
    ),
    sweepKeys: sql(`DELETE FROM idempotency WHERE key IN
      (SELECT key FROM idempotency WHERE until_ms <= ? ORDER BY until_ms, key LIMIT ?)`),
    lane: sql('SELECT waiting FROM lanes WHERE id = ?'),
    firstOfKey: sql(`SELECT seq, lane, state, due_ms FROM jobs
      WHERE lane = ? AND order_key = ? ORDER BY seq LIMIT 1`),
    insert:
      sql(`INSERT INTO jobs (id, kind, namespace, function_id, lane, state, priority, accepted_ms, due_ms,
      order_key, parent, sealed_input, input_blob) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`),
    arrived:
      sql(`INSERT INTO lanes (id, running_max, ready, waiting, running, served) VALUES (?, ?, ?, 1, 0, 0)
      ON CONFLICT (id) DO UPDATE SET running_max = excluded.running_max,
        ready = ready + excluded.ready, waiting = waiting + 1`),
    moved: sql(`UPDATE lanes SET ready = ready + ?, waiting = waiting + ?, running = running + ?
      WHERE id = ?`),
    leased: sql(`UPDATE lanes SET ready = ready - ?, waiting = waiting - ?, running = running + ?
      WHERE id = ?`),
    setRoom: sql('UPDATE lanes SET running_max = ? WHERE id = ?'),
    served: sql('UPDATE lanes SET served = ? WHERE id = ?'),
    lastServed: sql('SELECT coalesce(max(served), 0) AS served FROM lanes'),
    waitingLanes: sql(`SELECT id, ready, running_max - running AS room FROM lanes
      WHERE ready > 0 AND running < running_max ORDER BY served, id LIMIT ?`),
    expired: sql(`SELECT seq, lane FROM jobs WHERE state = ${running} AND lease_until_ms <= ?
      ORDER BY lease_until_ms LIMIT ?`),
    runningAll: sql(`SELECT seq, lane FROM jobs WHERE state = ${running}`),
    giveBack: sql(`UPDATE jobs SET state = ${ready}, lost = lost + 1, due_ms = min(due_ms, ?)
      WHERE seq = ?`),
    due: sql(`SELECT seq, lane FROM jobs WHERE state = ${delayed} AND due_ms <= ?
      ORDER BY due_ms LIMIT ?`),
    setState: sql('UPDATE jobs SET state = ? WHERE seq = ?'),
    readyOf: sql(`SELECT * FROM jobs WHERE lane = ? AND state = ${ready}
      ORDER BY priority DESC, seq LIMIT ?`),
    lease: sql(`UPDATE jobs SET state = ${running}, lease = lease + 1, lease_until_ms = ?
      WHERE seq = ?`),
    next: sql(`SELECT (SELECT min(due_ms) FROM jobs WHERE state = ${delayed}) AS due,
      (SELECT min(lease_until_ms) FROM jobs WHERE state = ${running}) AS leased`),
    extend: sql(
      `UPDATE jobs SET lease_until_ms = ? WHERE id = ? AND state = ${running} AND lease = ?`,
    ),
    held: sql(`SELECT seq, lane, order_key, attempts FROM jobs
      WHERE id = ? AND state = ${running} AND lease = ?`),
    again: sql(`UPDATE jobs SET state = ?, due_ms = ?, attempts = ?,
      sealed_story = coalesce(?, sealed_story) WHERE seq = ?`),
    end: sql(`INSERT INTO ended (state, ended_ms, attempts, sealed_story, sealed_input, input_blob,
        status, sealed_result, result_blob,
        id, kind, namespace, function_id, lane, priority, accepted_ms, order_key, parent, lost)
      SELECT ?, ?, ?, coalesce(?, sealed_story), iif(?, sealed_input, NULL), iif(?, input_blob, NULL), ?, ?, ?,
        id, kind, namespace, function_id, lane, priority, accepted_ms, order_key, parent, lost
      FROM jobs WHERE seq = ?`),
    remove: sql('DELETE FROM jobs WHERE seq = ?'),
    live: sql('SELECT * FROM jobs WHERE id = ?'),
    hasEnded: sql('SELECT 1 FROM ended WHERE id = ?'),
    ended: sql('SELECT * FROM ended WHERE id = ?'),
    counts: sql('SELECT id, waiting, running FROM lanes WHERE waiting + running > 0 ORDER BY id'),
    oldEnded: sql(`SELECT id, ended_ms, input_blob, result_blob FROM ended
      WHERE ended_ms < ? AND state <> 'dead' ORDER BY ended_ms, id LIMIT ?`),
    oldDead: sql(`SELECT id, ended_ms, input_blob, result_blob FROM ended
      WHERE ended_ms < ? AND state = 'dead' ORDER BY ended_ms, id LIMIT ?`),
    forget: sql('DELETE FROM ended WHERE id = ?'),
    blobs: sql(`SELECT input_blob AS blob FROM jobs WHERE input_blob IS NOT NULL
      UNION SELECT input_blob FROM ended WHERE input_blob IS NOT NULL
      UNION SELECT result_blob FROM ended WHERE result_blob IS NOT NULL`),
  };
}

function factsOf(row: Row) {
  return {
    id: row.id as string,
    kind: row.kind as JobKind,
    namespace: row.namespace as string,
    functionId: row.function_id as string,
    lane: row.lane as string,
    priority: row.priority as number,
    acceptedMs: row.accepted_ms as number,
    attempts: row.attempts as number,
    lost: row.lost as number,
    ...given(row, 'orderKey', 'order_key'),
    ...given(row, 'parent', 'parent'),
    ...given(row, 'sealedInput', 'sealed_input'),
    ...given(row, 'inputBlob', 'input_blob'),
    ...given(row, 'sealedStory', 'sealed_story'),
  };
}

/** Nothing where the column is NULL, or was not asked for. */
function given(row: Row, key: string, column: string): Record<string, never> {
  const value = row[column] ?? undefined;
  return (value === undefined ? {} : { [key]: value }) as Record<string, never>;
}

function leasedOf(row: Row): LeasedJob {
  return { ...factsOf(row), lease: (row.lease as number) + 1 };
}

function storedOf(row: Row): StoredJob {
  const isRunning = row.state === running;
  return {
    ...factsOf(row),
    state: isRunning ? 'running' : 'queued',
    ...(!isRunning && { dueMs: row.due_ms as number }),
  };
}

function endedOf(row: Row): StoredJob {
  return {
    ...factsOf(row),
    state: row.state as EndState,
    endedMs: row.ended_ms as number,
    ...given(row, 'status', 'status'),
    ...given(row, 'sealedResult', 'sealed_result'),
    ...given(row, 'resultBlob', 'result_blob'),
  };
}
