/**
 * Topics and subscriptions: what their definitions may say, what a message is, and which messages a subscription wants. Pure.
 */
import { z } from 'zod';
import type { FilterRule, SubscriptionDefinition, TopicDefinition } from '../../client/api.ts';
import { durationSchema } from './duration.ts';
import { definitionLimits, nameSchema } from './function.ts';
import {
  type RetryPolicy,
  retriedDefault,
  retryPolicyOf,
  retrySchema,
  retryViewOf,
} from './retry.ts';
import { formatDuration, parseDuration } from './units.ts';

export const topicLimits = {
  retentionMsMin: 1000,
  retentionMsMax: 31 * 86_400_000,
  ackDeadlineMsMin: 1000,
  ackDeadlineMsMax: 600_000,
  filterKeysMax: 20,
  /** Of a message: its data, and its attributes. */
  messageBytesMax: 10 * 1024 ** 2,
  attributesMax: 100,
  attributeKeyCharsMax: 256,
  attributeValueCharsMax: 1024,
  orderingKeyCharsMax: 1024,
  /** In one publication, or one pull. */
  messagesMax: 1000,
} as const;

/** Of a subscription whose definition names none. */
export const subscriptionDefaults = {
  attempts: 5,
  minDelayMs: 10_000,
  maxDelayMs: 600_000,
  ackDeadline: '30s',
  waiting: 1_000_000,
  /** Pushed at once. */
  pushes: 32,
} as const;

const boundedDuration = (minMs: number, maxMs: number, rule: string) =>
  durationSchema
    .pipe(z.number().min(minMs, rule).max(maxMs, rule))
    .transform(ms => formatDuration(ms));

const descriptionSchema = z.string().max(definitionLimits.descriptionCharsMax).default('');

export const topicSchema = z
  .strictObject({
    retention: boundedDuration(
      topicLimits.retentionMsMin,
      topicLimits.retentionMsMax,
      'from 1s to 31d',
    ).optional(),
    description: descriptionSchema,
  })
  .transform((given): TopicDefinition => given);

const attributeKeySchema = z.string().min(1).max(topicLimits.attributeKeyCharsMax);
const textSchema = z.string().max(topicLimits.attributeValueCharsMax);
const filterRuleSchema = z.union(
  [
    textSchema,
    z.array(textSchema).min(1).max(topicLimits.attributesMax),
    z.strictObject({ prefix: textSchema }),
    z.strictObject({ not: z.union([textSchema, z.array(textSchema).min(1)]) }),
    z.strictObject({ exists: z.boolean() }),
  ],
  'write a text, a list of texts, { prefix }, { not } or { exists }',
);

/** By attribute, or label. */
export const filterSchema = z
  .record(attributeKeySchema, filterRuleSchema)
  .refine(
    filter => Object.keys(filter).length <= topicLimits.filterKeysMax,
    `more than ${topicLimits.filterKeysMax} attributes`,
  );

const urlSchema = z.url({ protocol: /^https?$/, error: 'not an http address' }).max(2048);

export const subscriptionSchema = z
  .strictObject({
    topic: nameSchema,
    function: nameSchema.optional(),
    push: z.strictObject({ url: urlSchema }).optional(),
    pull: z.literal(true).optional(),
    filter: filterSchema.optional(),
    retry: z.preprocess(withAttempts, retrySchema).optional(),
    deadLetter: nameSchema.optional(),
    ackDeadline: boundedDuration(
      topicLimits.ackDeadlineMsMin,
      topicLimits.ackDeadlineMsMax,
      'from 1s to 10m',
    ).optional(),
    payload: z.enum(['wrapped', 'raw']).default('wrapped'),
    concurrency: z.int().min(1).max(definitionLimits.concurrencyMax).optional(),
    waiting: z
      .int()
      .min(1)
      .max(definitionLimits.waitingJobsMax)
      .default(subscriptionDefaults.waiting),
    description: descriptionSchema,
  })
  .superRefine((given, ctx) => {
    const issue = (path: string, message: string) =>
      ctx.addIssue({ code: 'custom', path: [path], message });
    const targets = (['function', 'push', 'pull'] as const).filter(key => given[key] !== undefined);
    if (targets.length !== 1)
      issue(targets[1] ?? 'function', 'say one of function, push and pull: true');
    if (given.function !== undefined && given.ackDeadline !== undefined)
      issue('ackDeadline', 'it is for push and pull; a function has its timeout');
    if (given.pull && given.concurrency !== undefined)
      issue('concurrency', 'whoever pulls says how many at once');
    if (given.deadLetter === given.topic)
      issue('deadLetter', 'what is dead would come back for ever');
  })
  .transform(
    ({ retry, ackDeadline, ...given }): SubscriptionDefinition => ({
      ...given,
      retry: viewOf(policyOf(retry)),
      ...(given.function === undefined && {
        ackDeadline: ackDeadline ?? subscriptionDefaults.ackDeadline,
      }),
    }),
  );

/** Other keys of `retry` may be given alone. */
function withAttempts(given: unknown): unknown {
  if (given === null || typeof given !== 'object' || Array.isArray(given)) return given;
  return { attempts: subscriptionDefaults.attempts, ...given };
}

/** Whatever is not a success is tried again: nobody hears what a subscriber answers. */
const retriedAnswers = ['3xx', '4xx', '5xx', ...retriedDefault.filter(on => !/^\d/.test(on))];

function policyOf(given: z.output<typeof retrySchema> | undefined): RetryPolicy {
  const { attempts, minDelayMs, maxDelayMs } = subscriptionDefaults;
  const policy = retryPolicyOf({ attempts, minDelay: minDelayMs, maxDelay: maxDelayMs, ...given });
  return given?.on === undefined ? { ...policy, on: [...retriedAnswers] } : policy;
}

/** What is retried is said where it is not what subscriptions retry anyway. */
function viewOf(policy: RetryPolicy): SubscriptionDefinition['retry'] {
  const { on: _, ...view } = retryViewOf(policy);
  return policy.on.join() === retriedAnswers.join() ? view : { ...view, on: policy.on };
}

/** Of a definition that has its defaults. */
export function subscriptionPolicy({ retry }: SubscriptionDefinition): RetryPolicy {
  return policyOf(retrySchema.parse(retry));
}

export function ackDeadlineMs({
  ackDeadline = subscriptionDefaults.ackDeadline,
}: SubscriptionDefinition): number {
  return parseDuration(ackDeadline)!;
}

export function retentionMs({ retention }: TopicDefinition): number {
  return retention === undefined ? 0 : parseDuration(retention)!;
}

export interface Message {
  data: Uint8Array;
  attributes: Record<string, string>;
  orderingKey?: string;
}

/** Whether a subscription wants a message with these attributes: every rule of its filter holds. */
export function wants(
  { filter = {} }: SubscriptionDefinition,
  attributes: Readonly<Record<string, string>>,
): boolean {
  return holdsAll(filter, attributes);
}

export function holdsAll(
  filter: Readonly<Record<string, FilterRule>>,
  attributes: Readonly<Record<string, string>>,
): boolean {
  return Object.entries(filter).every(([key, rule]) =>
    holds(rule, Object.hasOwn(attributes, key) ? attributes[key] : undefined),
  );
}

function holds(rule: FilterRule, value: string | undefined): boolean {
  if (typeof rule === 'string') return value === rule;
  if (Array.isArray(rule)) return value !== undefined && rule.includes(value);
  if ('prefix' in rule) return value?.startsWith(rule.prefix) === true;
  if ('exists' in rule) return (value !== undefined) === rule.exists;
  return value === undefined || ![rule.not].flat().includes(value);
}

/** In the names of attributes that say why a copy is in a dead-letter topic: those of Pub/Sub, which tools look for. */
const deadLetterPrefix = 'CloudPubSubDeadLetterSource';

/** The attributes of what is dead, and where it comes from. */
export function deadLetterAttributes(
  attributes: Readonly<Record<string, string>>,
  source: { subscription: string; namespace: string; attempts: number; publishedMs: number },
): Record<string, string> {
  return {
    ...attributes,
    [`${deadLetterPrefix}DeliveryCount`]: String(source.attempts),
    [`${deadLetterPrefix}Subscription`]: source.subscription,
    [`${deadLetterPrefix}SubscriptionProject`]: source.namespace,
    [`${deadLetterPrefix}TopicPublishTime`]: new Date(source.publishedMs).toISOString(),
  };
}
