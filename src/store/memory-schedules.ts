/** Schedules in memory: the executable specification of the facet. */
import type { MemoryJobs } from './memory-jobs.ts';
import {
  type Fired,
  type Firing,
  type ScheduleStore,
  type SlotRow,
  slotsKeptMax,
} from './schedules.ts';

export function createMemorySchedules(jobs: MemoryJobs): ScheduleStore {
  const positions = new Map<string, number>();
  /** In order of their times. */
  const slots = new Map<string, SlotRow[]>();

  function fire({ schedule, fromMs, toMs, ...firing }: Firing, nowMs: number): Fired {
    if ((positions.get(schedule) ?? fromMs) > fromMs) return 'moved';
    const isByHand = toMs === fromMs;
    const decide = ({ slotMs, job }: Firing['slots'][number]): SlotRow | 'full' => {
      const row = { slotMs, decidedMs: nowMs };
      if (job === undefined) return { ...row, outcome: 'missed' };
      const earlier = slots.get(schedule) ?? [];
      const overlaps = earlier.some(slot => slot.job !== undefined && jobs.isLive(slot.job));
      if (firing.skipsOverlap && overlaps) return { ...row, outcome: 'skipped' };
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
    if (!isByHand) positions.set(schedule, isPart ? decided.at(-1)!.slotMs : toMs);
    const all = slots.get(schedule) ?? [];
    // Whether one of them runs is asked at every slot.
    const isKept = ({ job }: SlotRow, i: number) =>
      i >= all.length - slotsKeptMax ||
      (firing.skipsOverlap && job !== undefined && jobs.isLive(job));
    slots.set(schedule, all.filter(isKept));
    return decided;
  }

  function keep(schedule: string, row: SlotRow): void {
    const others = (slots.get(schedule) ?? []).filter(({ slotMs }) => slotMs !== row.slotMs);
    const all = [...others, { ...row }].sort((a, b) => a.slotMs - b.slotMs);
    slots.set(schedule, all);
  }

  return {
    fire: async (firings, nowMs) => firings.map(firing => fire(firing, nowMs)),
    slots: async (schedule, limit) =>
      (slots.get(schedule) ?? [])
        .map(row => ({ ...row }))
        .reverse()
        .slice(0, limit),
    positions: async () =>
      [...positions]
        .map(([schedule, atMs]) => ({ schedule, atMs }))
        .sort((a, b) => (a.schedule < b.schedule ? -1 : 1)),
    async forget(schedules) {
      for (const schedule of schedules) {
        positions.delete(schedule);
        slots.delete(schedule);
      }
    },
  };
}
