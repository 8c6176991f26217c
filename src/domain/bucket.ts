/** Buckets: what their definitions may say, what a change of an object is, and what a function is told of it. Pure. */
import { isAbsolute } from 'node:path';
import { z } from 'zod';
import type { BucketDefinition, BucketEvent } from '../../client/api.ts';
import { durationSchema } from './duration.ts';
import { definitionLimits, nameSchema } from './function.ts';
import { secretNameSchema } from './secret.ts';
import { formatDuration } from './units.ts';

export const bucketEvents = ['finalize', 'delete', 'archive', 'metadataUpdate'] as const;

export const bucketLimits = {
  bucketEveryMsMin: 1000,
  bucketEveryMsMax: 86_400_000,
  /** Of a watched directory: beyond, it is not looked at any further. */
  bucketObjectsMax: 1_000_000,
  objectKeyCharsMax: 1024,
} as const;

const affixSchema = z.string().max(bucketLimits.objectKeyCharsMax).optional();

export const bucketSchema = z
  .strictObject({
    path: z
      .string()
      .max(4096)
      .refine(isAbsolute, 'expected an absolute path; in a manifest, one relative to it')
      .refine(text => !text.includes('\0'), 'a NUL byte cannot be in a path')
      .optional(),
    s3: z
      .strictObject({
        endpoint: z.url({ protocol: /^https?$/, error: 'not an http address' }).max(2048),
        region: z.string().min(1).max(64).default('us-east-1'),
        bucket: z.string().min(1).max(255),
        accessKey: secretNameSchema,
        secretKey: secretNameSchema,
        versioned: z.boolean().default(false),
      })
      .optional(),
    function: nameSchema,
    events: z.array(z.enum(bucketEvents)).min(1).max(bucketEvents.length).default(['finalize']),
    prefix: affixSchema,
    suffix: affixSchema,
    existing: z.enum(['ignore', 'fire']).default('ignore'),
    every: durationSchema
      .pipe(
        z
          .number()
          .min(bucketLimits.bucketEveryMsMin, 'from 1s to 1d')
          .max(bucketLimits.bucketEveryMsMax, 'from 1s to 1d'),
      )
      .transform(ms => formatDuration(ms))
      .default('5s'),
    description: z.string().max(definitionLimits.descriptionCharsMax).default(''),
  })
  .refine(({ path, s3 }) => (path === undefined) !== (s3 === undefined), 'say one of path and s3')
  .transform((given): BucketDefinition => given);

export function isWatched({ prefix = '', suffix = '' }: BucketDefinition, key: string): boolean {
  return key.startsWith(prefix) && key.endsWith(suffix);
}

interface State {
  content: string;
  metadata: string;
}

/** What has happened to an object, as Cloud Storage tells it. A bucket with versions archives what it does not show any more. */
export function eventsOf(
  before: State | undefined,
  after: State | undefined,
  { isVersioned } = { isVersioned: false },
): BucketEvent[] {
  if (after === undefined) {
    if (before === undefined) return [];
    return [isVersioned ? 'archive' : 'delete'];
  }
  if (before?.content === after.content)
    return before.metadata === after.metadata ? [] : ['metadataUpdate'];
  return before !== undefined && isVersioned ? ['archive', 'finalize'] : ['finalize'];
}

/** As they are called in CloudEvents. */
const types: Record<BucketEvent, string> = {
  finalize: 'finalized',
  delete: 'deleted',
  archive: 'archived',
  metadataUpdate: 'metadataUpdated',
};

export interface ObjectFacts {
  key: string;
  bytes?: number | undefined;
  modifiedMs?: number | undefined;
  content: string;
}

/** A CloudEvent in binary mode: functions frameworks make an event of Cloud Storage of it. */
export function objectEvent(
  event: BucketEvent,
  { id, bucket, nowMs }: { id: string; bucket: string; nowMs: number },
  { key, bytes, modifiedMs, content }: ObjectFacts,
): { headers: string[]; body: string } {
  const path = key.split('/').map(encodeURIComponent).join('/');
  const at = new Date(nowMs).toISOString();
  const object = {
    ...{ kind: 'storage#object', id: `${bucket}/${key}`, bucket, name: key },
    ...(bytes !== undefined && { size: String(bytes) }),
    ...(modifiedMs !== undefined && { updated: new Date(modifiedMs).toISOString() }),
    etag: content,
  };
  return {
    headers: [
      ...['Content-Type', 'application/json', 'ce-specversion', '1.0', 'ce-id', id],
      ...['ce-type', `google.cloud.storage.object.v1.${types[event]}`, 'ce-time', at],
      ...['ce-source', `//storage.googleapis.com/projects/_/buckets/${bucket}`],
      ...['ce-subject', `objects/${path}`],
    ],
    body: JSON.stringify(object),
  };
}
