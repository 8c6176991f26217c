/**
 * Schedules: at each of their slots a job is accepted, once, whatever happens to the gateway. Where a schedule stands is in
 * the store; deciding a slot moves it on and accepts the job in one transaction. What is here can be forgotten at any time.
 */
import type { Clock, Timer } from '../clock.ts';
import type { Resource, Resources } from '../deploy/resources.ts';
import { decide, type Timing, timingKey, timingOf } from '../domain/schedule.ts';
import { GatewayError } from '../errors.ts';
import { newTraceparent } from '../ids.ts';
import type { Log } from '../log.ts';
import type { Calls, QueuedFunction } from '../queue/calls.ts';
import type { Queue } from '../queue/queue.ts';
import type { NewJob } from '../store/jobs.ts';
import type { Firing, ScheduleStore, SlotRow } from '../store/schedules.ts';
import { DueList } from './due.ts';

export interface SchedulesOptions {
  resources: Resources;
  store: ScheduleStore;
  calls: Pick<Calls, 'jobOf'>;
  queue: Pick<Queue, 'look'>;
  functionOf(namespace: string, name: string): QueuedFunction | undefined;
  clock: Clock;
  log: Log;
}

type Schedule = Resource<'schedule'>;

interface Standing {
  resource: Schedule;
  timing: Timing;
  /** Up to where its slots are decided. */
  atMs: number;
}

/** Decided in one transaction. */
const firingsAtOnce = 200;
/** After a store that could not, or a function whose queue is full. */
const retryMs = 2000;
/** Between two looks: the wall's clock may jump. */
const lookMsMax = 60_000;
/** Shown of what comes. */
const nextShown = 5;

export class Schedules {
  readonly #options: SchedulesOptions;
  readonly #standing = new Map<string, Standing>();
  #byHandMs = 0;
  /** By what they say of when: thousands may say the same. */
  readonly #timings = new Map<string, Timing>();
  readonly #due = new DueList<Standing>();
  #timer: Timer | undefined;
  #timerAtMs = Number.POSITIVE_INFINITY;
  #working: Promise<void> | undefined;
  #state: 'new' | 'running' | 'stopped' = 'new';

  constructor(options: SchedulesOptions) {
    this.#options = options;
    options.resources.onChange(({ before, after }) => {
      if ((after ?? before)!.row.kind !== 'schedule' || this.#state !== 'running') return;
      if (after !== undefined) this.#follow(after as Schedule);
      else this.#forget(before!.row.id);
    });
  }

  async start(): Promise<void> {
    const { resources, store } = this.#options;
    const positions = new Map<string, number>();
    const gone: string[] = [];
    for (const { schedule, atMs } of await store.positions()) {
      if (resources.byId(schedule) === undefined) gone.push(schedule);
      else positions.set(schedule, atMs);
    }
    if (gone.length > 0) await store.forget(gone);
    this.#state = 'running';
    for (const resource of resources.all('schedule'))
      this.#follow(resource, positions.get(resource.row.id));
  }

  async stop(): Promise<void> {
    this.#state = 'stopped';
    this.#timer?.cancel();
    await this.#working;
  }

  /** None while it is paused. */
  next({ row, definition }: Schedule): number[] {
    if (row.isPaused) return [];
    const timing = this.#timingOf(definition);
    const slots: number[] = [];
    for (let after = this.#options.clock.now(); slots.length < nextShown; after = slots.at(-1)!) {
      const slot = timing.next(after);
      if (slot === undefined) break;
      slots.push(slot);
    }
    return slots;
  }

  slots({ row }: Schedule, limit: number): Promise<SlotRow[]> {
    return this.#options.store.slots(row.id, limit);
  }

  /** At once, whatever its slots and whether it is paused. Throws QUEUE_FULL and FUNCTION_NOT_FOUND. */
  async run(schedule: Schedule): Promise<{ id: string }> {
    const { store, queue, clock } = this.#options;
    const { row, definition } = schedule;
    // Each a slot of its own, also two of one moment.
    this.#byHandMs = Math.max(clock.now(), this.#byHandMs + 1);
    const slotMs = this.#byHandMs;
    const job = await this.#jobOf(schedule, slotMs);
    if (job === undefined) {
      const detail = `${definition.function}, which schedule ${row.name} calls, has been removed`;
      throw new GatewayError('FUNCTION_NOT_FOUND', detail);
    }
    const stood = Number.MAX_SAFE_INTEGER;
    const firing = { schedule: row.id, fromMs: stood, toMs: stood, skipsOverlap: false };
    const [fired] = await store.fire([{ ...firing, slots: [{ slotMs, job }] }], clock.now());
    queue.look();
    if (fired !== 'full') return { id: job.id };
    const detail = `${job.lane.waitingMax} jobs of ${definition.function} wait already`;
    throw new GatewayError('QUEUE_FULL', detail, { retryAfterMs: 1000 });
  }

  #follow(resource: Schedule, positionMs = Number.NEGATIVE_INFINITY): void {
    const { id, sinceMs, isPaused } = resource.row;
    const known = this.#standing.get(id)?.atMs ?? positionMs;
    if (isPaused) {
      // Where it stood is of no use later: it counts from when it is resumed.
      this.#standing.delete(id);
      return;
    }
    const standing = {
      ...{ resource, timing: this.#timingOf(resource.definition) },
      atMs: Math.max(known, sinceMs),
    };
    this.#standing.set(id, standing);
    this.#plan(standing);
  }

  #timingOf(definition: Schedule['definition']): Timing {
    const key = timingKey(definition);
    let timing = this.#timings.get(key);
    if (timing === undefined) {
      timing = timingOf(definition);
      this.#timings.set(key, timing);
    }
    return timing;
  }

  #forget(id: string): void {
    this.#standing.delete(id);
    void this.#options.store
      .forget([id])
      .catch(error => this.#options.log.warn('a schedule is forgotten later', { error }));
  }

  #plan(standing: Standing): void {
    const next = standing.timing.next(standing.atMs);
    if (next === undefined) return;
    this.#due.add(next, standing);
    this.#wakeAt(next);
  }

  #wakeAt(ms: number): void {
    if (ms >= this.#timerAtMs || this.#state !== 'running' || this.#working !== undefined) return;
    this.#timer?.cancel();
    this.#timerAtMs = ms;
    const { clock } = this.#options;
    const delayMs = Math.min(Math.max(0, ms - clock.now()), lookMsMax);
    this.#timer = clock.after(delayMs, this.#look, { unref: true });
  }

  readonly #look = (): void => {
    this.#timerAtMs = Number.POSITIVE_INFINITY;
    this.#working = this.#fireAll()
      .catch(error => {
        this.#options.log.error('schedules could not be looked at; again in a moment', { error });
        return retryMs;
      })
      .then(delayMs => {
        this.#working = undefined;
        const { clock } = this.#options;
        const dueMs = this.#due.first?.ms;
        if (delayMs !== undefined) this.#wakeAt(clock.now() + delayMs);
        else if (dueMs !== undefined) this.#wakeAt(dueMs);
      });
  };

  /** Resolves with how long to wait where it must not be tried again at once. */
  async #fireAll(): Promise<number | undefined> {
    const { clock } = this.#options;
    while (this.#state === 'running') {
      const nowMs = clock.now();
      const batch: Standing[] = [];
      while (batch.length < firingsAtOnce && (this.#due.first?.ms ?? Number.MAX_VALUE) <= nowMs) {
        const { what } = this.#due.take()!;
        // Another one has taken its place, or it is no more.
        if (this.#standing.get(what.resource.row.id) === what) batch.push(what);
      }
      if (batch.length === 0) return undefined;
      try {
        await this.#fire(batch, nowMs);
      } catch (error) {
        // As they were: what was decided all the same is told by the store the next time.
        for (const standing of batch) this.#due.add(nowMs, standing);
        throw error;
      }
    }
    return undefined;
  }

  async #fire(batch: Standing[], nowMs: number): Promise<void> {
    const { store, queue } = this.#options;
    const firings = await Promise.all(batch.map(standing => this.#firingOf(standing, nowMs)));
    const fired = await store.fire(firings, nowMs);
    queue.look();
    const isMoved = fired.includes('moved');
    const positions = isMoved ? await this.#positions() : undefined;
    for (const [i, standing] of batch.entries()) {
      const outcome = fired[i]!;
      const { id } = standing.resource.row;
      const { slots, toMs } = firings[i]!;
      const decided = typeof outcome === 'string' ? [] : outcome;
      const isFull = outcome !== 'moved' && decided.length < slots.length;
      if (outcome === 'moved') standing.atMs = positions?.get(id) ?? toMs;
      else standing.atMs = isFull ? (decided.at(-1)?.slotMs ?? standing.atMs) : toMs;
      this.#tell(standing, decided, isFull);
      const current = this.#standing.get(id);
      if (current === undefined) {
        // Removed meanwhile: what was just written of it goes too. Or paused, which reads nothing of it.
        if (this.#options.resources.byId(id) === undefined) this.#forget(id);
      } else if (current !== standing) {
        // Changed meanwhile: the new one goes on from where the old one came to.
        current.atMs = Math.max(current.atMs, standing.atMs);
      } else if (isFull) this.#due.add(nowMs + retryMs, standing);
      else this.#plan(standing);
    }
  }

  async #positions(): Promise<Map<string, number>> {
    const rows = await this.#options.store.positions();
    return new Map(rows.map(({ schedule, atMs }) => [schedule, atMs]));
  }

  async #firingOf(standing: Standing, nowMs: number): Promise<Firing> {
    const { resource, timing, atMs } = standing;
    const { row, definition } = resource;
    const { slots, toMs } = decide(timing, definition, { fromMs: atMs, nowMs });
    return {
      ...{ schedule: row.id, fromMs: atMs, toMs, skipsOverlap: definition.overlap === 'skip' },
      slots: await Promise.all(
        slots.map(async ({ slotMs, isFired }) => {
          const job = isFired ? await this.#jobOf(resource, slotMs) : undefined;
          return { slotMs, ...(job !== undefined && { job }) };
        }),
      ),
    };
  }

  /** Undefined where its function is gone. */
  async #jobOf({ row, definition }: Schedule, slotMs: number): Promise<NewJob | undefined> {
    const called = this.#options.functionOf(row.namespace, definition.function);
    if (called === undefined) return undefined;
    const { body } = definition;
    const isText = typeof body === 'string';
    const text = body === undefined ? '' : isText ? body : JSON.stringify(body);
    return this.#options.calls.jobOf({
      function: called,
      head: {
        ...{ name: called.name, method: 'POST', target: '/', caller: 'trigger' },
        headers: [
          ...(body === undefined
            ? []
            : ['Content-Type', isText ? 'text/plain; charset=utf-8' : 'application/json']),
          ...['X-Fnway-Schedule', row.name, 'X-Fnway-Slot', new Date(slotMs).toISOString()],
        ],
        traceparent: newTraceparent(),
        trigger: { origin: 'schedule', name: row.name },
      },
      body: Buffer.from(text),
      ...(definition.overlap === 'queue' && { orderKey: `schedule ${row.id}` }),
    });
  }

  #tell({ resource }: Standing, decided: SlotRow[], isFull: boolean): void {
    const { log } = this.#options;
    const { namespace, name } = resource.row;
    const facts = { namespace, schedule: name };
    if (isFull) log.warn('the queue of the function is full; the slot waits', facts);
    const missed = decided.filter(({ outcome }) => outcome === 'missed').length;
    if (missed > 0) log.warn('slots were missed', { ...facts, slots: missed });
  }
}
