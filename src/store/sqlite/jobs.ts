/**
 * The facet `jobs` in SQL. Methods are synchronous: they run in the queue's thread (queue-thread.ts), many in one
 * transaction. All that a job passes finds its rows by an index, in a number that does not grow with what waits; `list` looks
 * through what there is, newest first.
 */
import { assertEnqueue, assertSettle } from '../job-rules.ts';
import {
  type DeadCount,
  type EndState,
  type Enqueued,
  endStates,
  type JobKind,
  type JobQuery,
  type JobStore,
  type LeasedJob,
  type NewJob,
  type Settlement,
  type StoredJob,
} from '../jobs.ts';
import type { NewMessage } from '../messages.ts';
import { shareOut } from '../share-out.ts';
import type { SqliteConnection } from './database.ts';
import { blocked, delayed, prepareJobs, ready, running } from './job-statements.ts';
import type { Lanes } from './lanes.ts';

type Row = Record<string, null | number | bigint | string | Uint8Array>;

/** Of those that wait for their time, or whose lease has run out, at once: a claim holds nobody up for long. */
const promotedMax = 1000;

/** The port's methods, without promises. */
export type JobMethods = {
  [K in keyof JobStore]: (...args: Parameters<JobStore[K]>) => Awaited<ReturnType<JobStore[K]>>;
};

export class SqliteJobs implements JobMethods {
  readonly #sql: ReturnType<typeof prepareJobs>;
  readonly #db: SqliteConnection['db'];
  readonly #lanes: Lanes;

  constructor(db: SqliteConnection['db'], lanes: Lanes) {
    this.#db = db;
    this.#sql = prepareJobs(db);
    this.#lanes = lanes;
  }

  enqueue(jobs: NewJob[], nowMs: number): Enqueued[] {
    for (const job of jobs) assertEnqueue(job);
    return jobs.map(job => this.#enqueue(job, nowMs));
  }

  /** Whether so many may wait. For other facets of the file. */
  hasRoom(jobs: readonly NewJob[]): boolean {
    const counts = new Map<string, number>();
    for (const { lane } of jobs) counts.set(lane.id, (counts.get(lane.id) ?? 0) + 1);
    return jobs.every(
      ({ lane }) => this.#lanes.counts(lane.id).waiting + counts.get(lane.id)! <= lane.waitingMax,
    );
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
    if (job.message !== undefined) {
      const same = sql.liveOfMessage.get(lane.id, job.message) as Row | undefined;
      if (same !== undefined) return { first: same.id as string };
    }
    if (job.redrives !== undefined && sql.open.get(job.redrives) === undefined) return 'gone';
    if (job.message !== undefined && sql.hasMessage.get(job.message) === undefined) return 'gone';
    if (this.#lanes.counts(lane.id).waiting >= lane.waitingMax) return 'full';
    const state = this.#stateOf(job, nowMs);
    sql.insert.run(
      ...[job.id, job.kind, job.namespace, job.functionId, lane.id, state, job.priority],
      ...[job.acceptedMs, job.dueMs, job.orderKey ?? null, job.parent ?? null],
      ...[job.sealedInput ?? null, job.inputBlob ?? null, job.message ?? null],
    );
    if (job.message !== undefined) sql.name.run(job.message);
    if (job.redrives !== undefined) sql.redrive.run(job.id, job.redrives);
    this.#lanes.arrived(lane, state, { keepsRoom: job.kind === 'delivery' });
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

  claim({ limit, nowMs, leaseMs, lane }: Parameters<JobStore['claim']>[0]) {
    const sql = this.#sql;
    for (const row of sql.expired.all(nowMs, promotedMax) as Row[]) this.#giveBack(row, nowMs);
    for (const row of sql.due.all(nowMs, promotedMax) as Row[]) this.#move(row, ready);
    let order =
      lane === undefined ? shareOut(this.#lanes.waiting(limit), limit) : this.#of(lane, limit);
    const counts = new Map<string, number>();
    for (const lane of order) counts.set(lane, (counts.get(lane) ?? 0) + 1);
    const found = new Map<string, Row[]>();
    for (const [lane, count] of counts) {
      const rows = sql.readyOf.all(lane, count) as Row[];
      found.set(lane, rows);
      for (const { seq } of rows) {
        sql.lease.run(nowMs + leaseMs, seq!);
        this.#lanes.moved(lane, ready, running);
      }
      if (rows.length === count) continue;
      this.#lanes.recount(lane);
      let left = rows.length;
      order = order.filter(id => id !== lane || left-- > 0);
    }
    if (lane === undefined) this.#lanes.serve(order);
    const next = sql.next.get() as Row;
    const times = [next.due, next.leased].filter(ms => ms !== null) as number[];
    return {
      jobs: order.map(lane => leasedOf(this.#withInput(found.get(lane)!.shift()!))),
      ...(times.length > 0 && { nextMs: Math.min(...times) }),
    };
  }

  #of(lane: string, limit: number): string[] {
    const length = Math.min(limit, this.#lanes.counts(lane).ready);
    return Array.from({ length }, () => lane);
  }

  /** A delivery has that of its message. */
  #withInput(row: Row): Row {
    if (row.message === null) return row;
    const message = this.#sql.input.get(row.message!) as Row | undefined;
    return message === undefined
      ? row
      : { ...row, sealed_input: message.sealed!, input_blob: message.blob! };
  }

  #giveBack(row: Row, nowMs: number): void {
    // Whoever pulled it had its try.
    const isPulled = this.#lanes.isPulled(row.lane as string);
    this.#sql.giveBack.run(nowMs, isPulled ? 0 : 1, isPulled ? 1 : 0, row.seq!);
    this.#lanes.moved(row.lane as string, running, ready);
  }

  #move({ seq, lane, state: from }: Row, state: number): void {
    if (from === state) return;
    this.#sql.setState.run(state, seq!);
    this.#lanes.moved(lane as string, from as number, state);
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
      this.#lanes.moved(row.lane as string, running, state);
    } else {
      const { state, status, cause, sealedResult, resultBlob, keepsInput } = outcome;
      this.#end(row, { state, nowMs, attempts, sealedStory, keepsInput }, [
        ...[status ?? null, cause ?? null, sealedResult ?? null, resultBlob ?? null],
      ]);
    }
    for (const message of settlement.messages ?? []) this.addMessage(message);
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
    result: Array<number | string | Uint8Array | null> = [null, null, null, null],
  ): void {
    const sql = this.#sql;
    sql.end.run(
      ...[end.state, end.nowMs, end.attempts, end.sealedStory ?? null],
      ...[end.keepsInput ? 1 : 0, end.keepsInput ? 1 : 0, end.keepsInput ? 1 : 0],
      ...result,
      row.seq!,
    );
    this.#remove(row);
    if (!end.keepsInput) this.release(row.message as string | null, end.nowMs);
    this.#unblock(row, end.nowMs);
  }

  #remove({ seq, lane, state }: Row): void {
    this.#sql.remove.run(seq!);
    this.#lanes.moved(lane as string, state as number, undefined);
  }

  /** The next of its key may go. */
  #unblock({ lane, order_key: key }: Row, nowMs: number): void {
    if (key === null) return;
    const next = this.#sql.firstOfKey.get(lane!, key!) as Row | undefined;
    if (next?.state === blocked)
      this.#move(next, (next.due_ms as number) > nowMs ? delayed : ready);
  }

  cancel(id: string, { nowMs }: { nowMs: number }) {
    const sql = this.#sql;
    const row = sql.live.get(id) as Row | undefined;
    if (row === undefined) return sql.hasEnded.get(id) === undefined ? 'missing' : 'ended';
    if (row.state === running) return 'running';
    const attempts = row.attempts as number;
    this.#end(row, { state: 'cancelled', nowMs, attempts, keepsInput: true });
    return 'cancelled';
  }

  setRoom(lanes: ReadonlyArray<{ id: string; runningMax: number }>): void {
    for (const { id, runningMax } of lanes) this.#lanes.setRoom(id, runningMax);
  }

  recover(nowMs: number): number {
    const rows = (this.#sql.runningAll.all() as Row[]).filter(
      ({ lane }) => !this.#lanes.isPulled(lane as string),
    );
    for (const row of rows) this.#giveBack(row, nowMs);
    return rows.length;
  }

  find(id: string): StoredJob | undefined {
    const live = this.#sql.live.get(id) as Row | undefined;
    if (live !== undefined) return storedOf(this.#withInput(live));
    const ended = this.#sql.ended.get(id) as Row | undefined;
    return ended && endedOf(this.#withInput(ended));
  }

  list(query: JobQuery): StoredJob[] {
    const { namespace, functionId, kind, state, lanes, cause, isOpen, after, limit } = query;
    const where: string[] = ['namespace = ?'];
    const values: Array<string | number> = [namespace];
    const add = (condition: string, value: string | number | undefined) => {
      if (value === undefined) return;
      where.push(condition);
      values.push(value);
    };
    add('function_id = ?', functionId);
    add('kind = ?', kind);
    if (lanes !== undefined) {
      where.push(anyOf('lane', lanes));
      values.push(...lanes);
    }
    add('id < ?', after);
    const isLive =
      cause === undefined && (state === undefined || state === 'queued' || state === 'running');
    const isEnded = state === undefined || (state !== 'queued' && state !== 'running');
    const live = isLive
      ? this.#page('jobs', [...where, ...liveCondition(state)], values, limit).map(storedOf)
      : [];
    // As it is: an index has those of one state.
    if (state !== undefined) where.push(`state = '${endStates.find(known => known === state)}'`);
    add(`coalesce(cause, '') = ?`, cause);
    if (isOpen) where.push('redriven IS NULL');
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
    return this.#lanes.all().map(({ id, waiting, running }) => ({ lane: id, waiting, running }));
  }

  dead(namespace: string): DeadCount[] {
    return (this.#sql.causes.all(namespace) as Row[]).map(row => ({
      ...{ lane: row.lane as string, kind: row.kind as JobKind, cause: row.cause as string },
      ...{ count: row.count as number, firstMs: row.first as number, lastMs: row.last as number },
    }));
  }

  purge(...[query, { nowMs, limit }]: Parameters<JobStore['purge']>) {
    const { namespace, lanes, cause, id } = query;
    const where = [
      ...["namespace = ? AND state = 'dead' AND redriven IS NULL"],
      ...(lanes === undefined ? [] : [anyOf('lane', lanes)]),
      ...(cause === undefined ? [] : ["coalesce(cause, '') = ?"]),
      ...(id === undefined ? [] : ['id = ?']),
    ];
    const given = [...(lanes ?? []), cause, id].filter(value => value !== undefined);
    const rows = this.#db
      .prepare(
        `SELECT id, message, input_blob, result_blob FROM ended
         WHERE ${where.join(' AND ')} ORDER BY id LIMIT ?`,
      )
      .all(namespace, ...given, limit) as Row[];
    return { removed: rows.length, blobs: rows.flatMap(row => this.#forget(row, nowMs)) };
  }

  drop(lane: string, { nowMs, limit }: { nowMs: number; limit: number }): number {
    const sql = this.#sql;
    const isPulled = this.#lanes.isPulled(lane);
    const pulled = isPulled ? (sql.runningOf.all(lane, limit) as Row[]) : [];
    const waiting = sql.waitingOf.all(lane, limit) as Row[];
    const rows = [...pulled, ...waiting]
      .sort((a, b) => (a.seq as number) - (b.seq as number))
      .slice(0, limit);
    for (const row of rows) this.#remove(row);
    // Only now: of one key, several may have gone.
    for (const row of rows) {
      this.#unblock(row, nowMs);
      this.release(row.message as string | null, nowMs);
    }
    this.#lanes.remove(lane);
    return rows.length;
  }

  /** Of what had ended; the blobs that nobody names any more. */
  #forget(row: Row, nowMs: number): string[] {
    this.#sql.forget.run(row.id!);
    this.release(row.message as string | null, nowMs);
    return [row.input_blob, row.result_blob].filter(blob => blob) as string[];
  }

  /** For the facet of messages. */
  addMessage({ id, topic, publishedMs, keepUntilMs, sealed, blob }: NewMessage): void {
    this.#sql.addMessage.run(id, topic, publishedMs, keepUntilMs, sealed ?? null, blob ?? null);
  }

  /** One delivery less. It goes at once where nobody needs it; a blob is told by `sweep`. */
  release(id: string | null, nowMs: number): void {
    if (id === null) return;
    this.#sql.unname.run(id);
    this.#sql.removeMessage.run(id, nowMs);
  }

  /** Of what waits in a lane, another takes the place; what was published since, and is not among it, comes behind it. */
  replace(lane: string, sinceMs: number, deliveries: readonly NewJob[], nowMs: number) {
    const sql = this.#sql;
    const names = new Set<unknown>(deliveries.map(({ message }) => message));
    const rows = sql.waitingOf.all(lane, -1) as Row[];
    const isKept = ({ accepted_ms: at, message }: Row) =>
      (at as number) >= sinceMs && !names.has(message);
    const [kept, dropped] = [rows.filter(isKept), rows.filter(row => !isKept(row))];
    for (const row of dropped) this.#remove(row);
    // Out of the way of what comes before them now.
    for (const { seq } of kept) sql.toEnd.run(seq!);
    let added = 0;
    for (const job of deliveries) {
      const endless = { ...job.lane, waitingMax: Number.MAX_SAFE_INTEGER };
      if (this.#enqueue({ ...job, lane: endless }, nowMs) === 'accepted') added++;
    }
    for (const { id } of kept) {
      const row = sql.live.get(id!) as Row;
      sql.toEnd.run(row.seq!);
      this.#place(sql.live.get(id!) as Row, nowMs);
    }
    for (const row of rows) this.#unblock(row, nowMs);
    // Only now: their messages were needed.
    for (const { message } of dropped) this.release(message as string | null, nowMs);
    return { dropped: dropped.length, added };
  }

  /** Ready, delayed or blocked, by what is before it now. */
  #place(row: Row, nowMs: number): void {
    const first =
      row.order_key === null
        ? undefined
        : (this.#sql.firstOfKey.get(row.lane!, row.order_key!) as Row | undefined);
    const isFirst = first === undefined || first.seq === row.seq;
    const state = !isFirst ? blocked : (row.due_ms as number) > nowMs ? delayed : ready;
    this.#move(row, state);
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
    const blobs = rows.flatMap(row => this.#forget(row, nowMs));
    const messages = sql.oldMessages.all(nowMs, limit) as Row[];
    for (const { id } of messages) sql.forgetMessage.run(id!);
    const ofMessages = messages.map(({ blob }) => blob).filter(blob => blob !== null);
    return {
      removed: Math.max(rows.length, keys, messages.length),
      blobs: [...blobs, ...(ofMessages as string[])],
    };
  }

  blobs(): Set<string> {
    return new Set((this.#sql.blobs.all() as Row[]).map(({ blob }) => blob as string));
  }
}

const liveColumns = `id, kind, namespace, function_id, lane, state, priority, accepted_ms, due_ms, order_key, parent,
  attempts, lost, input_blob, message`;
const endedColumns = `id, kind, namespace, function_id, lane, state, priority, accepted_ms, ended_ms, order_key, parent,
  attempts, lost, status, cause, redriven, input_blob, result_blob, message`;

function anyOf(column: string, values: readonly unknown[]): string {
  return `${column} IN (${values.map(() => '?').join(', ')})`;
}

function liveCondition(state: string | undefined): string[] {
  if (state === undefined) return [];
  return [state === 'running' ? `state = ${running}` : `state <> ${running}`];
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
    ...given(row, 'message', 'message'),
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
    ...given(row, 'cause', 'cause'),
    ...given(row, 'redriven', 'redriven'),
    ...given(row, 'sealedResult', 'sealed_result'),
    ...given(row, 'resultBlob', 'result_blob'),
  };
}
