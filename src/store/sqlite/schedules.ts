/** The facet `schedules` in SQL, in the queue's file and thread: see jobs.ts. */
import type { ScheduleStore } from '../schedules.ts';
import {
  type Fired,
  type Firing,
  type SlotOutcome,
  type SlotRow,
  slotsKeptMax,
} from '../schedules.ts';
import type { SqliteConnection } from './database.ts';
import type { SqliteJobs } from './jobs.ts';

type Row = Record<string, null | number | bigint | string | Uint8Array>;

/** The port's methods, without promises. */
export type ScheduleMethods = {
  [K in keyof ScheduleStore]: (
    ...args: Parameters<ScheduleStore[K]>
  ) => Awaited<ReturnType<ScheduleStore[K]>>;
};

export function createSqliteSchedules(
  db: SqliteConnection['db'],
  jobs: SqliteJobs,
): ScheduleMethods {
  const sql = prepare(db);

  function fire({ schedule, fromMs, toMs, ...firing }: Firing, nowMs: number): Fired {
    const position = sql.position.get(schedule) as Row | undefined;
    if (position !== undefined && (position.at_ms as number) > fromMs) return 'moved';
    const isByHand = toMs === fromMs;
    const decide = ({ slotMs, job }: Firing['slots'][number]): SlotRow | 'full' => {
      const row = { slotMs, decidedMs: nowMs };
      if (job === undefined) return { ...row, outcome: 'missed' };
      const overlaps = firing.skipsOverlap && sql.liveJob.get(schedule) !== undefined;
      if (overlaps) return { ...row, outcome: 'skipped' };
      if (!jobs.hasRoom([job])) return 'full';
      jobs.accept(job, nowMs);
      return { ...row, outcome: isByHand ? 'by-hand' : 'fired', job: job.id };
    };
    const decided: SlotRow[] = [];
    for (const slot of firing.slots) {
      const row = decide(slot);
      if (row === 'full') break;
      keep(schedule, row);
      decided.push(row);
    }
    const isPart = decided.length < firing.slots.length;
    if (isPart && decided.length === 0) return 'full';
    if (!isByHand) sql.move.run(schedule, isPart ? decided.at(-1)!.slotMs : toMs);
    const prune = firing.skipsOverlap ? sql.pruneEnded : sql.prune;
    prune.run(schedule, schedule, slotsKeptMax);
    return decided;
  }

  function keep(schedule: string, row: SlotRow): void {
    sql.keep.run(schedule, row.slotMs, row.outcome, row.decidedMs, row.job ?? null);
  }

  return {
    fire: (firings, nowMs) => firings.map(firing => fire(firing, nowMs)),
    slots: (schedule, limit) => (sql.slots.all(schedule, limit) as Row[]).map(toSlot),
    positions: () =>
      (sql.positions.all() as Row[]).map(row => ({
        ...{ schedule: row.schedule as string, atMs: row.at_ms as number },
      })),
    forget(schedules) {
      for (const schedule of schedules) {
        sql.forget.run(schedule);
        sql.forgetSlots.run(schedule);
      }
    },
  };
}

function prepare(db: SqliteConnection['db']) {
  const prepared = (text: string) => db.prepare(text);
  return {
    position: prepared('SELECT at_ms FROM positions WHERE schedule = ?'),
    positions: prepared('SELECT schedule, at_ms FROM positions ORDER BY schedule'),
    move: prepared('INSERT OR REPLACE INTO positions (schedule, at_ms) VALUES (?, ?)'),
    keep: prepared(`INSERT OR REPLACE INTO slots (schedule, slot_ms, outcome, decided_ms, job)
      VALUES (?, ?, ?, ?, ?)`),
    prune: prepared(`DELETE FROM slots WHERE schedule = ? AND slot_ms <= (SELECT slot_ms FROM slots
      WHERE schedule = ? ORDER BY slot_ms DESC LIMIT 1 OFFSET ?)`),
    // Whether one of them runs is asked at every slot.
    pruneEnded: prepared(`DELETE FROM slots WHERE schedule = ? AND slot_ms <= (SELECT slot_ms
      FROM slots WHERE schedule = ? ORDER BY slot_ms DESC LIMIT 1 OFFSET ?)
      AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.id = slots.job)`),
    slots: prepared('SELECT * FROM slots WHERE schedule = ? ORDER BY slot_ms DESC LIMIT ?'),
    liveJob: prepared(`SELECT 1 FROM slots JOIN jobs ON jobs.id = slots.job
      WHERE schedule = ? LIMIT 1`),
    forget: prepared('DELETE FROM positions WHERE schedule = ?'),
    forgetSlots: prepared('DELETE FROM slots WHERE schedule = ?'),
  };
}

function toSlot(row: Row): SlotRow {
  return {
    slotMs: row.slot_ms as number,
    outcome: row.outcome as SlotOutcome,
    decidedMs: row.decided_ms as number,
    ...(row.job !== null && { job: row.job as string }),
  };
}
