/**
 * What is counted of each lane, and whose turn it is. A job changes the counts at each step of its way, and many jobs of a
 * transaction are of one lane: within a transaction they are counted in memory, from what the rows say at its first look,
 * and written before SQL asks for them, and at its end.
 */
import type { Lane } from '../jobs.ts';
import type { WaitingLane } from '../share-out.ts';
import type { SqliteConnection } from './database.ts';
import { ready, running } from './job-statements.ts';

/** Of the jobs of a lane; `waiting` has those that are ready among them. */
export interface LaneCounts {
  ready: number;
  waiting: number;
  running: number;
}

interface Counted extends LaneCounts {
  id: string;
  runningMax: number;
  served: number;
  isChanged: boolean;
}

type Row = Record<string, null | number | bigint | string | Uint8Array>;

export class Lanes {
  readonly #sql: ReturnType<typeof prepare>;
  /** Looked at in this transaction. */
  readonly #counted = new Map<string, Counted>();
  /** Grows with every job that is leased. */
  #served: number;

  constructor(db: SqliteConnection['db']) {
    this.#sql = prepare(db);
    this.#served = (this.#sql.lastServed.get() as Row).served as number;
  }

  /** What a transaction does. Another one may follow that knows nothing of it, where this one is rolled back. */
  within<T>(body: () => T): T {
    this.#counted.clear();
    const result = body();
    this.write();
    return result;
  }

  /** Zeros for one that is not there. */
  counts(id: string): Readonly<LaneCounts> {
    return this.#of(id) ?? { ready: 0, waiting: 0, running: 0 };
  }

  /** Its jobs run only when they are claimed by its name. */
  isPulled(id: string): boolean {
    return this.#of(id)?.runningMax === 0;
  }

  /** It has one more, that stands so. `keepsRoom`: how many may run stays as it was said. */
  arrived({ id, runningMax }: Lane, state: number, { keepsRoom }: { keepsRoom: boolean }): void {
    const lane = this.#of(id);
    if (lane === undefined) {
      const counts = { ready: 0, waiting: 0, running: 0 };
      this.#counted.set(id, { id, runningMax, ...counts, served: 0, isChanged: true });
    } else if (!keepsRoom) lane.runningMax = runningMax;
    this.moved(id, undefined, state);
  }

  /** One of its jobs stands in another way than before; undefined: it is not there. */
  moved(id: string, from: number | undefined, to: number | undefined): void {
    const lane = this.#of(id);
    if (lane === undefined) return;
    if (from !== undefined) count(lane, from, -1);
    if (to !== undefined) count(lane, to, 1);
    lane.isChanged = true;
  }

  setRoom(id: string, runningMax: number): void {
    const lane = this.#of(id);
    if (lane === undefined) return;
    lane.runningMax = runningMax;
    lane.isChanged = true;
  }

  /** Those that have something ready and room for it, those that were served longest ago first. */
  waiting(limit: number): WaitingLane[] {
    this.write();
    return this.#sql.waiting.all(limit) as unknown as WaitingLane[];
  }

  /** A lane for each job that was leased, in turn: when each was served last is what counts the next time. */
  serve(order: readonly string[]): void {
    for (const [i, id] of order.entries()) {
      const lane = this.#of(id)!;
      lane.served = this.#served + i + 1;
      lane.isChanged = true;
    }
    this.#served += order.length;
  }

  /** Counts the rows: a count that is wrong must not stop every lane. */
  recount(id: string): void {
    this.write();
    this.#counted.delete(id);
    this.#sql.recount.run(id);
  }

  /** Forgets a lane in which nothing is. */
  remove(id: string): void {
    const lane = this.#of(id);
    if (lane === undefined || lane.waiting > 0 || lane.running > 0) return;
    this.#counted.delete(id);
    this.#sql.remove.run(id);
  }

  all(): Array<LaneCounts & { id: string }> {
    this.write();
    return this.#sql.all.all() as unknown as Array<LaneCounts & { id: string }>;
  }

  /** For SQL that asks for them. */
  write(): void {
    for (const lane of this.#counted.values()) {
      if (!lane.isChanged) continue;
      const { id, runningMax, ready, waiting, running, served } = lane;
      this.#sql.write.run(id, runningMax, ready, waiting, running, served);
      lane.isChanged = false;
    }
  }

  #of(id: string): Counted | undefined {
    const known = this.#counted.get(id);
    if (known !== undefined) return known;
    const row = this.#sql.lane.get(id) as Omit<Counted, 'isChanged'> | undefined;
    if (row === undefined) return undefined;
    const lane = { ...row, isChanged: false };
    this.#counted.set(id, lane);
    return lane;
  }
}

function count(lane: Counted, state: number, by: 1 | -1): void {
  if (state === running) lane.running += by;
  else lane.waiting += by;
  if (state === ready) lane.ready += by;
}

function prepare(db: SqliteConnection['db']) {
  const sql = (text: string) => db.prepare(text);
  return {
    lane: sql(`SELECT id, running_max AS runningMax, ready, waiting, running, served
      FROM lanes WHERE id = ?`),
    write: sql(`INSERT OR REPLACE INTO lanes (id, running_max, ready, waiting, running, served)
      VALUES (?, ?, ?, ?, ?, ?)`),
    recount: sql(`UPDATE lanes SET
        ready = (SELECT count(*) FROM jobs WHERE lane = lanes.id AND state = ${ready}),
        waiting = (SELECT count(*) FROM jobs WHERE lane = lanes.id AND state <> ${running}),
        running = (SELECT count(*) FROM jobs WHERE lane = lanes.id AND state = ${running})
      WHERE id = ?`),
    remove: sql('DELETE FROM lanes WHERE id = ?'),
    lastServed: sql('SELECT coalesce(max(served), 0) AS served FROM lanes'),
    waiting: sql(`SELECT id, ready, running_max - running AS room FROM lanes
      WHERE ready > 0 AND running < running_max ORDER BY served, id LIMIT ?`),
    all: sql(`SELECT id, ready, waiting, running FROM lanes
      WHERE waiting + running > 0 ORDER BY id`),
  };
}
