/**
 * The facet `objects` of the store: what a watched bucket held when it was looked at last. What has changed is noted, and the
 * jobs that it brings are accepted, in one transaction, and only from what was noted before: of two gateways that see one
 * change, or of one before and after a crash, only one brings it.
 * Implementations: sqlite/objects.ts, memory-objects.ts. Suite: contract-objects.ts.
 */
import type { NewJob } from './jobs.ts';

/** Of an object: what tells its contents apart, and, of equal contents, its metadata. */
export interface ObjectState {
  content: string;
  metadata: string;
}

export interface ObjectRow extends ObjectState {
  key: string;
}

export interface Observation {
  key: string;
  /** As it was noted; absent where it was not there. */
  before?: ObjectState;
  /** As it is; absent where it is gone. */
  after?: ObjectState;
  jobs: NewJob[];
}

/** Of `ObjectStore`, for whoever wraps it. */
export const objectMethods = ['observe', 'objects', 'watched', 'unwatch'] satisfies Array<
  keyof ObjectStore
>;

export interface ObjectStore {
  /**
   * In one transaction: each that is still as it was noted. How many were. `full`: as many jobs wait as may; nothing was
   * noted. Also without any, a bucket is one that has been looked at from then on.
   */
  observe(bucket: string, observations: Observation[], nowMs: number): Promise<number | 'full'>;
  /** In order of their keys' bytes, behind one. */
  objects(bucket: string, page: { after?: string; limit: number }): Promise<ObjectRow[]>;
  /** Buckets that have been looked at. */
  watched(): Promise<string[]>;
  /** Forgets up to `limit` objects of a bucket that is no more, and then the bucket. How many. */
  unwatch(bucket: string, limit: number): Promise<number>;
}
