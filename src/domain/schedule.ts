/**
 * When a schedule's slots are, and what becomes of those that have come: pure, told the time. A slot is a moment in UTC; of
 * a cron expression the zone says which. Where clocks are put forward, a time that does not exist comes when they have been;
 * where they are put back, a time that exists twice comes once, and `*` of an hour in both.
 */
import { Cron } from 'croner';
import { z } from 'zod';
import type { ScheduleDefinition } from '../../client/api.ts';
import { definitionLimits, nameSchema } from './function.ts';
import { formatDuration, parseDuration } from './units.ts';

export const scheduleLimits = {
  everyMsMin: 1000,
  everyMsMax: 366 * 86_400_000,
  cronCharsMax: 256,
  /** Of a body, as JSON. */
  scheduleBodyBytesMax: 65_536,
  scheduleBodyDepthMax: 64,
  /** Missed slots that run later, of one schedule at once. */
  catchUpMax: 1000,
} as const;

/** A slot that was decided so much later was not missed. */
export const onTimeMs = 60_000;

const catchUpDefault = 100;

const everySchema = z
  .string('expected a string such as 30s, 5m or 1d')
  .refine(text => parseDuration(text) !== undefined, 'not a duration; write 30s, 5m, 1h or 1d')
  .refine(text => (parseDuration(text) ?? 0) >= scheduleLimits.everyMsMin, 'at least 1s')
  .refine(text => (parseDuration(text) ?? 0) <= scheduleLimits.everyMsMax, 'at most 366d')
  .transform(text => formatDuration(parseDuration(text)!));

/** Of the years that are written with four digits. */
const yearsEndMs = Date.UTC(10_000, 0, 1);

const startSchema = z
  .string('expected a time such as 2026-01-31T04:00:00Z')
  .transform((text, ctx) => {
    const hasZone = /T.*(?:Z|[+-]\d\d:?\d\d)$/.test(text);
    const ms = Date.parse(text);
    if (hasZone && ms >= 0 && ms < yearsEndMs) return new Date(ms).toISOString();
    ctx.addIssue({ code: 'custom', message: 'not a time; write 2026-01-31T04:00:00Z' });
    return z.NEVER;
  });

const bodySchema = z
  .unknown()
  .refine(
    body => depthOf(body) <= scheduleLimits.scheduleBodyDepthMax,
    `nested deeper than ${scheduleLimits.scheduleBodyDepthMax}`,
  )
  .refine(
    body =>
      depthOf(body) > scheduleLimits.scheduleBodyDepthMax ||
      Buffer.byteLength(JSON.stringify(body) ?? '') <= scheduleLimits.scheduleBodyBytesMax,
    `more than ${scheduleLimits.scheduleBodyBytesMax} bytes`,
  );

/** Without recursion: what is sent may be nested deeper than calls can be. */
function depthOf(value: unknown): number {
  let depth = 0;
  for (let level = [value]; level.length > 0; depth++)
    level = level.flatMap(inner =>
      inner !== null && typeof inner === 'object' ? Object.values(inner) : [],
    );
  return depth;
}

export const scheduleSchema = z
  .strictObject({
    function: nameSchema,
    cron: z.string().max(scheduleLimits.cronCharsMax).optional(),
    timezone: z.string().max(64).optional(),
    start: startSchema.optional(),
    every: everySchema.optional(),
    body: bodySchema.optional(),
    overlap: z.enum(['allow', 'skip', 'queue']).default('allow'),
    catchUp: z.enum(['none', 'one', 'all']).default('one'),
    catchUpMax: z.int().min(1).max(scheduleLimits.catchUpMax).default(catchUpDefault),
    description: z.string().max(definitionLimits.descriptionCharsMax).default(''),
  })
  .superRefine(({ cron, timezone, start, every }, ctx) => {
    const issue = (path: string, message: string) =>
      ctx.addIssue({ code: 'custom', path: [path], message });
    if (cron === undefined && every === undefined)
      return issue('cron', 'say when: `cron: "0 4 * * *"`, or `every: 1d` with a `start`');
    if (cron !== undefined) {
      for (const [key, value] of Object.entries({ start, every }))
        if (value !== undefined) issue(key, `${key} and cron exclude one another`);
      const wrongZone = timezone === undefined ? undefined : refuseZone(timezone);
      if (wrongZone !== undefined) return issue('timezone', wrongZone);
      const wrong = refuseCron(cron, timezone ?? 'UTC');
      if (wrong !== undefined) issue('cron', wrong);
      return;
    }
    if (timezone !== undefined) issue('timezone', 'it is for cron; `start` has its own');
  })
  .transform(
    (given): ScheduleDefinition =>
      given.cron === undefined ? given : { ...given, timezone: given.timezone ?? 'UTC' },
  );

function refuseZone(timezone: string): string | undefined {
  try {
    new Intl.DateTimeFormat('en', { timeZone: timezone });
    return undefined;
  } catch {
    return 'not a time zone; write a name of the IANA list: UTC, Europe/Berlin';
  }
}

function refuseCron(cron: string, timezone: string): string | undefined {
  const fields = cron.trim().split(/\s+/).length;
  const isNickname = /^@[a-z]+$/.test(cron);
  if (!isNickname && fields !== 5 && fields !== 6)
    return 'expected five fields (minute, hour, day, month, day of the week), or six with seconds first';
  try {
    const first = new Cron(cron, { timezone }).nextRun(new Date(0));
    return first === null ? 'it never comes' : undefined;
  } catch (error) {
    const message = error instanceof Error ? error.message : 'not a cron expression';
    return message.replace(/^Cron\w+: /, '');
  }
}

/** The slots of a schedule. */
export interface Timing {
  /** The first one after a moment; undefined when none comes any more. */
  next(afterMs: number): number | undefined;
  /** The last ones, `limit` at most, of those after one moment and up to another; in order. */
  last(afterMs: number, untilMs: number, limit: number): number[];
}

type When = Pick<ScheduleDefinition, 'cron' | 'timezone' | 'start' | 'every'>;

/** Two schedules with the same text have the same slots. */
export function timingKey({ cron, timezone, start, every }: When): string {
  return JSON.stringify([cron, timezone, start, every]);
}

export function timingOf({ cron, timezone, start, every }: When): Timing {
  if (cron === undefined) return everyTiming(Date.parse(start ?? epoch), parseDuration(every!)!);
  return cronTiming(new Cron(cron, { timezone: timezone ?? 'UTC' }));
}

/** Without a start: on the hour, at midnight. */
const epoch = '1970-01-01T00:00:00Z';

function everyTiming(startMs: number, everyMs: number): Timing {
  const next = (afterMs: number) =>
    startMs + Math.max(0, Math.floor((afterMs - startMs) / everyMs) + 1) * everyMs;
  return {
    next,
    last(afterMs, untilMs, limit) {
      const newest = startMs + Math.floor((untilMs - startMs) / everyMs) * everyMs;
      const first = Math.max(next(afterMs), newest - (limit - 1) * everyMs);
      const slots: number[] = [];
      for (let slot = first; slot <= newest; slot += everyMs) slots.push(slot);
      return slots;
    },
  };
}

function cronTiming(cron: Cron): Timing {
  // Thousands of schedules may share an expression, and a zone costs tens of microseconds to look through.
  let [knownFrom, known]: [number, number | undefined] = [0, -1];
  return {
    next(afterMs) {
      const isKnown = afterMs >= knownFrom && (known === undefined || afterMs < known);
      if (isKnown) return known;
      known = cron.nextRun(new Date(afterMs))?.getTime();
      knownFrom = afterMs;
      return known;
    },
    last: (afterMs, untilMs, limit) =>
      cron
        .previousRuns(limit, new Date(untilMs + 1))
        .map(date => date.getTime())
        .filter(slot => slot > afterMs)
        .reverse(),
  };
}

export interface Decision {
  /** In order. */
  slots: Array<{ slotMs: number; isFired: boolean }>;
  /** Up to where all is decided. */
  toMs: number;
}

/** What is remembered of slots that nobody looked at. */
const missedToldMax = 50;

/** What becomes of the slots after one moment and up to now. */
export function decide(
  timing: Timing,
  { catchUp, catchUpMax }: Pick<ScheduleDefinition, 'catchUp' | 'catchUpMax'>,
  { fromMs, nowMs }: { fromMs: number; nowMs: number },
): Decision {
  const lateMs = Math.max(fromMs, nowMs - onTimeMs);
  const onTime = timing.last(lateMs, nowMs, onTimeMs / scheduleLimits.everyMsMin + 1);
  const caughtUp = { none: 0, one: 1, all: catchUpMax }[catchUp];
  const late =
    lateMs > fromMs ? timing.last(fromMs, lateMs, Math.max(missedToldMax, caughtUp)) : [];
  const slots = [
    ...late.map((slotMs, i) => ({ slotMs, isFired: late.length - i <= caughtUp })),
    ...onTime.map(slotMs => ({ slotMs, isFired: true })),
  ];
  return { slots, toMs: slots.at(-1)?.slotMs ?? fromMs };
}
