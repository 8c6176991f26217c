/** What manifests declare beside functions: which kinds there are, what each may say, and what it names. Pure. */
import { z } from 'zod';
import type {
  BucketDefinition,
  NotificationDefinition,
  ScheduleDefinition,
  SubscriptionDefinition,
  TopicDefinition,
  WebhookDefinition,
} from '../../client/api.ts';
import { bucketSchema } from './bucket.ts';
import { nameSchema } from './function.ts';
import { notificationSchema } from './notification.ts';
import { scheduleSchema, timingKey } from './schedule.ts';
import { subscriptionSchema, topicSchema } from './topic.ts';
import { webhookSchema } from './webhook.ts';

/** A kind by its definition. */
export interface Definitions {
  topic: TopicDefinition;
  subscription: SubscriptionDefinition;
  schedule: ScheduleDefinition;
  webhook: WebhookDefinition;
  bucket: BucketDefinition;
  notification: NotificationDefinition;
}
export type ResourceKind = keyof Definitions;
export type DefinitionOf<K extends ResourceKind> = Definitions[K];

/** What a definition may name. */
export type Named = ResourceKind | 'function' | 'secret';

export interface ResourceRules<D> {
  /** In manifests, paths and messages. */
  plural: `${ResourceKind}s`;
  idPrefix: string;
  /** Fills defaults in: two definitions that mean the same come out alike. */
  schema: z.ZodType<D>;
  /** What must exist before it, and must not go before it. */
  names(definition: D): Array<{ kind: Named; name: string; key: string }>;
  /** Why it has nothing to pause. */
  notPaused?: string;
  /** What it had come to under the old definition says nothing under the new one. */
  beginsAnew(before: D, after: D): boolean;
}

/** In the order in which they are made; they are removed the other way round. */
export const resourceRules: { [K in ResourceKind]: ResourceRules<DefinitionOf<K>> } = {
  topic: {
    plural: 'topics',
    idPrefix: 'top',
    schema: topicSchema,
    names: () => [],
    notPaused: 'a topic does nothing by itself; pause its subscriptions',
    beginsAnew: () => false,
  },
  subscription: {
    plural: 'subscriptions',
    idPrefix: 'sub',
    schema: subscriptionSchema,
    names: ({ topic, function: called, deadLetter }) => [
      { kind: 'topic', name: topic, key: 'topic' },
      ...(called === undefined
        ? []
        : [{ kind: 'function' as const, name: called, key: 'function' }]),
      ...(deadLetter === undefined
        ? []
        : [{ kind: 'topic' as const, name: deadLetter, key: 'deadLetter' }]),
    ],
    beginsAnew: (before, after) => before.topic !== after.topic,
  },
  schedule: {
    plural: 'schedules',
    idPrefix: 'sch',
    schema: scheduleSchema,
    names: ({ function: name }) => [{ kind: 'function', name, key: 'function' }],
    beginsAnew: (before, after) => timingKey(before) !== timingKey(after),
  },
  bucket: {
    plural: 'buckets',
    idPrefix: 'buc',
    schema: bucketSchema,
    names: ({ function: name, s3 }) => [
      { kind: 'function', name, key: 'function' },
      ...(s3 === undefined
        ? []
        : (['accessKey', 'secretKey'] as const).map(key => ({
            ...{ kind: 'secret' as const, name: s3[key], key: `s3.${key}` },
          }))),
    ],
    beginsAnew: (before, after) =>
      (['path', 'prefix', 'suffix'] as const).some(key => before[key] !== after[key]) ||
      before.s3?.endpoint !== after.s3?.endpoint ||
      before.s3?.bucket !== after.s3?.bucket,
  },
  webhook: {
    plural: 'webhooks',
    idPrefix: 'web',
    schema: webhookSchema,
    names: ({ function: name, bucket, verify }) => [
      ...(name === undefined ? [] : [{ kind: 'function' as const, name, key: 'function' }]),
      ...(bucket === undefined ? [] : [{ kind: 'bucket' as const, name: bucket, key: 'bucket' }]),
      ...('secret' in verify
        ? [{ kind: 'secret' as const, name: verify.secret, key: 'verify.secret' }]
        : []),
    ],
    beginsAnew: () => false,
  },
  notification: {
    plural: 'notifications',
    idPrefix: 'not',
    schema: notificationSchema,
    names: ({ secret }) =>
      secret === undefined ? [] : [{ kind: 'secret', name: secret, key: 'secret' }],
    beginsAnew: () => false,
  },
};

export const resourceKinds = Object.keys(resourceRules) as ResourceKind[];

/** What is put: the definition, and whose it is. */
export const ownerSchema = z.object({ project: nameSchema.optional() });
