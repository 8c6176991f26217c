/** Schedules with everything around them in memory: for the tests of src/trigger and of test/durability. */
import { createSealer } from '../auth/seal.ts';
import type { Clock } from '../clock.ts';
import { Resources } from '../deploy/resources.ts';
import { scheduleSchema } from '../domain/schedule.ts';
import { type Log, silentLog } from '../log.ts';
import type { Submission } from '../queue/calls.ts';
import { buildJob } from '../store/contract-jobs.ts';
import type { Lane } from '../store/jobs.ts';
import { createMemoryStore } from '../store/memory.ts';
import type { ScheduleStore } from '../store/schedules.ts';
import type { Store } from '../store/store.ts';
import { Schedules } from '../trigger/schedules.ts';

export interface ScheduleFixture {
  schedules: Schedules;
  resources: Resources;
  /** Makes or changes one of the function `a`. */
  put(name: string, definition: object): Promise<string>;
}

export interface ScheduleFixtureOptions {
  clock: Clock;
  /** Where its jobs and its resources are. */
  store?: Store;
  /** In place of the store's. */
  schedules?: ScheduleStore;
  lane?: Partial<Lane>;
  log?: Log;
}

/** Of which slot a job is, by its text. */
export const slotOf = (sealedInput: Uint8Array | undefined) =>
  Date.parse(Buffer.from(sealedInput!).toString());

export async function buildSchedules({
  clock,
  store = createMemoryStore(),
  schedules: facet = store.schedules,
  lane: changes = {},
  log = silentLog,
}: ScheduleFixtureOptions): Promise<ScheduleFixture> {
  const resources = new Resources({ store, sealer: createSealer(new Uint8Array(32)), clock });
  await resources.load();
  const called = { functionId: 'fn_a', namespace: 'default', name: 'a' };
  const schedules = new Schedules({
    ...{ resources, store: facet, clock, log, queue: { look() {} } },
    calls: {
      async jobOf({ head, orderKey }: Submission) {
        const slot = head.headers[head.headers.indexOf('X-Fnway-Slot') + 1]!;
        const lane = { id: 'fn_a', runningMax: 1, waitingMax: 1_000_000, ...changes };
        const times = { acceptedMs: clock.now(), dueMs: clock.now() };
        const key = orderKey === undefined ? {} : { orderKey };
        return buildJob({ lane, ...times, ...key, sealedInput: Buffer.from(slot) });
      },
    },
    functionOf: (_namespace, name) =>
      name === 'a'
        ? { ...called, retry: undefined, queue: undefined, instancesMax: 1, concurrency: 1 }
        : undefined,
  });
  return {
    ...{ schedules, resources },
    async put(name, given) {
      const definition = scheduleSchema.parse({ function: 'a', ...given });
      const where = { namespace: 'default', name };
      const { resource } = await resources.put('schedule', where, {
        ...{ definition, project: undefined },
      });
      return resource.row.id;
    },
  };
}
