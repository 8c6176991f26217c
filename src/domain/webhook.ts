/**
 * Webhooks: what their definitions may say. Whether a request comes from who it says: auth/signatures.ts. Pure.
 */
import { z } from 'zod';
import type { AlertRules, WebhookDefinition, WebhookVerify } from '../../client/api.ts';
import { durationSchema } from './duration.ts';
import { definitionLimits, nameSchema } from './function.ts';
import { secretNameSchema } from './secret.ts';
import { filterSchema } from './topic.ts';
import { formatDuration } from './units.ts';

export const webhookLimits = {
  replayWindowMsMin: 1000,
  replayWindowMsMax: 3_600_000,
  alertWindowMsMax: 86_400_000,
  parametersMax: 64,
  templateCharsMax: 1024,
} as const;

const windowDefault = '5m';
const alertWindowDefault = '6h';

const headerSchema = z
  .string()
  .regex(/^[A-Za-z0-9-]{1,64}$/, 'use letters, digits and -')
  .transform(name => name.toLowerCase());

const windowSchema = durationSchema
  .pipe(
    z
      .number()
      .min(webhookLimits.replayWindowMsMin, 'from 1s to 1h')
      .max(webhookLimits.replayWindowMsMax, 'from 1s to 1h'),
  )
  .transform(ms => formatDuration(ms))
  .default(windowDefault);

const secret = { secret: secretNameSchema };
const verifySchema = z
  .discriminatedUnion(
    'kind',
    [
      z.strictObject({ kind: z.literal('github'), ...secret }),
      z.strictObject({ kind: z.literal('stripe'), ...secret, window: windowSchema }),
      z.strictObject({ kind: z.literal('slack'), ...secret, window: windowSchema }),
      z.strictObject({ kind: z.literal('standard'), ...secret, window: windowSchema }),
      z.strictObject({
        kind: z.literal('hmac'),
        ...secret,
        header: headerSchema,
        prefix: z.string().max(64).default(''),
        algorithm: z.enum(['sha256', 'sha1', 'sha512']).default('sha256'),
        encoding: z.enum(['hex', 'base64']).default('hex'),
        timestampHeader: headerSchema.optional(),
        idHeader: headerSchema.optional(),
        window: windowSchema,
      }),
      z.strictObject({
        kind: z.literal('token'),
        ...secret,
        header: headerSchema.default('authorization'),
        idHeader: headerSchema.optional(),
      }),
      z.strictObject({ kind: z.literal('none') }),
    ],
    'say `kind`: github, stripe, slack, standard, hmac, token or none',
  )
  .transform((given): WebhookVerify => given);

const fieldPattern =
  /^(?:labels|annotations)\.[A-Za-z_][\w.-]*$|^(?:status|fingerprint|startsAt|endsAt|generatorURL)$/;
const placePattern = /\{\{\s*([^{}]*?)\s*\}\}/g;

const templateSchema = z
  .string()
  .max(webhookLimits.templateCharsMax)
  .superRefine((text, ctx) => {
    for (const [, field] of text.matchAll(placePattern))
      if (!fieldPattern.test(field!))
        ctx.addIssue({
          code: 'custom',
          message: `${JSON.stringify(field)} is no field of an alert; write labels.NAME, annotations.NAME, status, fingerprint, startsAt, endsAt or generatorURL`,
        });
  });

const alertsSchema = z
  .strictObject({
    status: z.enum(['firing', 'resolved', 'all']).default('firing'),
    match: filterSchema.optional(),
    parameters: z
      .record(z.string().min(1).max(128), templateSchema)
      .refine(
        parameters => Object.keys(parameters).length <= webhookLimits.parametersMax,
        `more than ${webhookLimits.parametersMax}`,
      )
      .optional(),
    window: durationSchema
      .pipe(z.number().min(0).max(webhookLimits.alertWindowMsMax, 'at most 1d'))
      .transform(ms => formatDuration(ms))
      .default(alertWindowDefault),
  })
  .transform((given): AlertRules => given);

export const webhookSchema = z
  .strictObject({
    function: nameSchema.optional(),
    bucket: nameSchema.optional(),
    verify: verifySchema,
    alerts: alertsSchema.optional(),
    description: z.string().max(definitionLimits.descriptionCharsMax).default(''),
  })
  .refine(
    ({ function: name, bucket }) => (name === undefined) !== (bucket === undefined),
    'say one of function and bucket',
  )
  .refine(
    ({ bucket, alerts }) => bucket === undefined || alerts === undefined,
    'alerts are for a function',
  )
  .transform((given): WebhookDefinition => given);

/** A text in a JSON body; undefined where it is none. */
export function textAt(body: Uint8Array, key: string): string | undefined {
  const value = jsonOf(body);
  if (value === null || typeof value !== 'object') return undefined;
  const found = (value as Record<string, unknown>)[key];
  return typeof found === 'string' ? found : undefined;
}

export function jsonOf(body: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('utf8'));
  } catch {
    return undefined;
  }
}
