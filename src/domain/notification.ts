/** Notifications: who is told of what, and in which words. Pure. */
import { z } from 'zod';
import type { NotificationDefinition, NotificationEvent } from '../../client/api.ts';
import { durationSchema } from './duration.ts';
import { definitionLimits } from './function.ts';
import { secretNameSchema } from './secret.ts';
import { formatDuration } from './units.ts';

export const notificationEvents = ['deploy-succeeded', 'deploy-failed', 'dead-letter'] as const;

export const notificationLimits = {
  notificationWindowMsMax: 86_400_000,
  /** Of what failed, in its words. */
  notificationMessageCharsMax: 500,
} as const;

export const notificationSchema = z
  .strictObject({
    url: z
      .url({ protocol: /^https?$/, error: 'not an http address' })
      .max(2048)
      .optional(),
    secret: secretNameSchema.optional(),
    format: z.enum(['json', 'slack']).default('json'),
    on: z
      .array(z.enum(notificationEvents))
      .min(1)
      .max(notificationEvents.length)
      .default([...notificationEvents]),
    window: durationSchema
      .pipe(z.number().min(0).max(notificationLimits.notificationWindowMsMax, 'at most 1d'))
      .transform(ms => formatDuration(ms))
      .default('1m'),
    description: z.string().max(definitionLimits.descriptionCharsMax).default(''),
  })
  .refine(
    ({ url, secret }) => (url === undefined) !== (secret === undefined),
    'say one of url, and secret: the name of one that is the address',
  )
  .transform((given): NotificationDefinition => given);

/** In one line, for people. */
export function textOf(event: NotificationEvent): string {
  const place = event.namespace === 'default' ? '' : ` (${event.namespace})`;
  const told = event.message === undefined ? '' : `: ${event.message}`;
  switch (event.event) {
    case 'deploy-succeeded':
      return `${event.function}${place} version ${event.version} is ready`;
    case 'deploy-failed':
      return `${event.function}${place} version ${event.version} failed${told}`;
    case 'dead-letter': {
      const of =
        event.subscription === undefined
          ? `A ${event.kind} of ${event.function}`
          : `A message for subscription ${event.subscription}`;
      return `${of}${place} is dead after ${event.attempts} tries, ${event.cause}${told}`;
    }
  }
}

/** As the receiver reads it. */
export function bodyOf(format: NotificationDefinition['format'], event: NotificationEvent): string {
  const text = textOf(event);
  return JSON.stringify(format === 'slack' ? { text } : { ...event, text });
}
