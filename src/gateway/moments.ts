/** Moments in queries: `2026-01-31T12:00:00Z`, or so long ago: `1h`. */
import { z } from 'zod';
import { parseDuration } from '../domain/units.ts';

/** Gives a function of the present: milliseconds since the epoch. */
export const momentSchema = z.string().transform((text, ctx) => {
  const agoMs = parseDuration(text);
  if (agoMs !== undefined) return (nowMs: number) => nowMs - agoMs;
  const ms = /^\d{4}-\d\d-\d\d/.test(text) ? Date.parse(text) : Number.NaN;
  if (!Number.isNaN(ms)) return () => ms;
  ctx.addIssue({
    code: 'custom',
    message: 'give a time such as 2026-01-31T12:00:00Z, or 1h ago as 1h',
  });
  return z.NEVER;
});
