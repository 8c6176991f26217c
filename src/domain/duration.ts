/** Durations in definitions. Apart from units.ts, which the command line loads without a library of schemas. */
import { z } from 'zod';
import { parseDuration } from './units.ts';

/** A duration in a definition, as milliseconds. */
export const durationSchema = z
  .string('expected a string such as 500ms, 30s or 2m')
  .transform((text, ctx) => {
    const ms = parseDuration(text);
    if (ms !== undefined) return ms;
    ctx.addIssue({ code: 'custom', message: 'not a duration; write 100ms, 30s, 2m, 1h or 1d' });
    return z.NEVER;
  });
