/** What the headers of an async call ask the queue for. */
import { parseDuration } from '../domain/units.ts';
import { GatewayError } from '../errors.ts';
import type { HeaderPairs } from '../invoke/invoke.ts';
import { callLimits } from '../queue/calls.ts';
import { jobLimits } from '../store/jobs.ts';

export interface AsyncAsked {
  /** Milliseconds since the epoch. */
  dueMs?: number;
  priority?: number;
  callbackUrl?: string;
  idempotencyKey?: string;
}

export const callbackUrlCharsMax = 2048;

/** Throws HEADER_INVALID. */
export function readAsyncHeaders(headers: HeaderPairs, nowMs: number): AsyncAsked {
  const asked: AsyncAsked = {};
  const seen = new Set<string>();
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i]!.toLowerCase();
    const read = readers[name];
    if (read === undefined) continue;
    if (seen.has(name)) throw invalid(headers[i]!, 'it is given twice');
    seen.add(name);
    read(asked, headers[i + 1]!.trim(), nowMs);
  }
  if (seen.has('x-delay') && seen.has('x-run-at'))
    throw invalid('X-Run-At', 'X-Delay is given too; one of them says when');
  return asked;
}

const readers: Record<string, (asked: AsyncAsked, value: string, nowMs: number) => void> = {
  'x-delay'(asked, value, nowMs) {
    const ms = /^\d{1,9}$/.test(value) ? Number(value) * 1000 : parseDuration(value);
    if (ms === undefined) throw invalid('X-Delay', 'write seconds, or a duration: 30s, 10m, 1d');
    asked.dueMs = dueAt('X-Delay', nowMs + ms, nowMs);
  },
  'x-run-at'(asked, value, nowMs) {
    const isMoment = /^\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d)$/.test(
      value,
    );
    const ms = isMoment && isDay(value) ? Date.parse(value) : Number.NaN;
    if (Number.isNaN(ms)) throw invalid('X-Run-At', 'write a moment: 2026-01-31T12:00:00Z');
    asked.dueMs = dueAt('X-Run-At', ms, nowMs);
  },
  'x-priority'(asked, value) {
    const isDigit = /^\d$/.test(value) && Number(value) <= jobLimits.priorityMax;
    if (!isDigit) throw invalid('X-Priority', `write 0 to ${jobLimits.priorityMax}; 9 comes first`);
    asked.priority = Number(value);
  },
  'x-callback-url'(asked, value) {
    const isHttp = URL.canParse(value) && /^https?:$/.test(new URL(value).protocol);
    if (!isHttp) throw invalid('X-Callback-Url', 'write an http:// or https:// address');
    if (value.length > callbackUrlCharsMax)
      throw invalid('X-Callback-Url', `it is longer than ${callbackUrlCharsMax} characters`);
    const { username, password } = new URL(value);
    if (username !== '' || password !== '')
      throw invalid('X-Callback-Url', 'a user and a password in an address are not sent');
    asked.callbackUrl = value;
  },
  'idempotency-key'(asked, value) {
    const { idempotencyKeyCharsMax } = callLimits;
    if (value === '' || value.length > idempotencyKeyCharsMax)
      throw invalid('Idempotency-Key', `give 1 to ${idempotencyKeyCharsMax} characters`);
    asked.idempotencyKey = value;
  },
};

/** `Date.parse` takes the 30th of February for a day in March. */
function isDay(moment: string): boolean {
  const day = moment.slice(0, 10);
  const ms = Date.parse(`${day}T00:00:00Z`);
  return !Number.isNaN(ms) && new Date(ms).toISOString().startsWith(day);
}

/** What is past is due at once. */
function dueAt(name: string, ms: number, nowMs: number): number {
  if (ms > nowMs + callLimits.delayMsMax) throw invalid(name, 'at most 31 days from now');
  return Math.max(ms, nowMs);
}

function invalid(name: string, what: string): GatewayError {
  return new GatewayError('HEADER_INVALID', `${name}: ${what}`);
}
