/**
 * The facet `schedules` of the store: how far each schedule has come, and what became of its last slots. A slot is decided
 * once: deciding it moves the schedule on and accepts its job in one transaction, and only from where the schedule stood, so
 * that of two gateways, or of one before and after a crash, only one decides.
 * Implementations: sqlite/schedules.ts, memory-schedules.ts. Suite: contract-schedules.ts.
 */
import type { NewJob } from './jobs.ts';

/** `fired`: accepted; `skipped`: the job of an earlier slot had not ended; `missed`: nobody was there; `by-hand`: asked for. */
export const slotOutcomes = ['fired', 'skipped', 'missed', 'by-hand'] as const;
export type SlotOutcome = (typeof slotOutcomes)[number];

export interface SlotRow {
  slotMs: number;
  outcome: SlotOutcome;
  decidedMs: number;
  /** Of what was accepted. */
  job?: string;
}

export interface Firing {
  /** `sch_…`. */
  schedule: string;
  /** Where it stood when this was decided. */
  fromMs: number;
  /** Where it stands afterwards; the same where it was asked for by hand. */
  toMs: number;
  /** Not while the job of an earlier slot waits or runs. */
  skipsOverlap: boolean;
  /** In order; those without a job are missed. */
  slots: Array<{ slotMs: number; job?: NewJob }>;
}

/**
 * `moved`: somebody else has decided meanwhile. `full`: as many of the function's jobs wait as may; nothing was decided. Fewer
 * rows than slots: there was room for no more, and it stands at the last of these.
 */
export type Fired = SlotRow[] | 'moved' | 'full';

/** Of each schedule, so many of the last are remembered; where overlaps are skipped, also those whose jobs have not ended. */
export const slotsKeptMax = 50;

/** Of `ScheduleStore`, for whoever wraps it. */
export const scheduleMethods = ['fire', 'slots', 'positions', 'forget'] satisfies Array<
  keyof ScheduleStore
>;

export interface ScheduleStore {
  /** Each on its own, in order. */
  fire(firings: Firing[], nowMs: number): Promise<Fired[]>;
  /** Newest first. */
  slots(schedule: string, limit: number): Promise<SlotRow[]>;
  /** Of all that have decided a slot. */
  positions(): Promise<Array<{ schedule: string; atMs: number }>>;
  /** These schedules are no more. */
  forget(schedules: string[]): Promise<void>;
}
