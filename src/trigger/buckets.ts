/**
 * Buckets: what changes in a watched directory calls a function. A look compares what is there with what was noted at the
 * last one, and notes each change together with the job that it brings: what changed while no gateway ran is found by the
 * first look afterwards.
 */
import type { BucketEvent } from '../../client/api.ts';
import type { Clock, Timer } from '../clock.ts';
import type { Resource, Resources } from '../deploy/resources.ts';
import { eventsOf, isWatched, objectEvent } from '../domain/bucket.ts';
import { parseDuration } from '../domain/units.ts';
import { GatewayError } from '../errors.ts';
import { newId, newTraceparent } from '../ids.ts';
import type { Log } from '../log.ts';
import type { Calls, QueuedFunction } from '../queue/calls.ts';
import type { Queue } from '../queue/queue.ts';
import type { NewJob } from '../store/jobs.ts';
import type { ObjectRow, ObjectStore, Observation } from '../store/objects.ts';
import { listDirectory } from './directory.ts';
import type { FoundObject } from './found-object.ts';
import { listS3 } from './s3.ts';

export interface BucketsOptions {
  resources: Resources;
  store: ObjectStore;
  calls: Pick<Calls, 'jobOf'>;
  queue: Pick<Queue, 'look'>;
  functionOf(namespace: string, name: string): QueuedFunction | undefined;
  secretOf(namespace: string, name: string): string | undefined;
  clock: Clock;
  log: Log;
}

type Bucket = Resource<'bucket'>;

interface Watching {
  bucket: Bucket;
  timer: Timer | undefined;
  /** A look that nobody waits for any more ends at once. */
  readonly left: AbortController;
  looking: Promise<void> | undefined;
  /** Said once, until it can be read again. */
  isBroken: boolean;
}

/** Noted in one transaction. */
const notedAtOnce = 200;
const pageSize = 1000;

export class Buckets {
  readonly #options: BucketsOptions;
  readonly #watching = new Map<string, Watching>();
  #state: 'new' | 'running' | 'stopped' = 'new';

  constructor(options: BucketsOptions) {
    this.#options = options;
    options.resources.onChange(({ before, after }) => {
      const changed = (after ?? before)!;
      if (changed.row.kind !== 'bucket' || this.#state !== 'running') return;
      void this.#unfollow(changed.row.id).then(() => {
        const current = this.#options.resources.byId(changed.row.id);
        if (current === undefined) return this.#forget(changed.row.id);
        this.#follow(current as Bucket);
      });
    });
  }

  async start(): Promise<void> {
    const { resources, store } = this.#options;
    for (const id of await store.watched())
      if (resources.byId(id) === undefined) await this.#forget(id);
    this.#state = 'running';
    for (const bucket of resources.all('bucket')) this.#follow(bucket);
  }

  async stop(): Promise<void> {
    this.#state = 'stopped';
    await Promise.all([...this.#watching.keys()].map(id => this.#unfollow(id)));
  }

  #follow(bucket: Bucket): void {
    const { id, isPaused } = bucket.row;
    if (isPaused || this.#state !== 'running' || this.#watching.has(id)) return;
    const left = new AbortController();
    const watching = { bucket, timer: undefined, left, looking: undefined, isBroken: false };
    this.#watching.set(id, watching);
    this.#look(watching);
  }

  async #unfollow(id: string): Promise<void> {
    const watching = this.#watching.get(id);
    if (watching === undefined) return;
    this.#watching.delete(id);
    watching.timer?.cancel();
    watching.left.abort();
    await watching.looking;
  }

  async #forget(id: string): Promise<void> {
    const { store, log } = this.#options;
    try {
      while ((await store.unwatch(id, pageSize)) === pageSize);
    } catch (error) {
      log.warn('a bucket is forgotten later', { error });
    }
  }

  #look(watching: Watching): void {
    const { clock, log } = this.#options;
    const { row, definition } = watching.bucket;
    watching.looking = this.#lookOnce(watching)
      .then(
        () => {
          watching.isBroken = false;
        },
        error => {
          if (!watching.isBroken && !watching.left.signal.aborted)
            log.error('a bucket cannot be looked at', { bucket: row.name, error });
          watching.isBroken = true;
        },
      )
      .then(() => {
        if (this.#watching.get(row.id) !== watching) return;
        const delayMs = parseDuration(definition.every)!;
        watching.timer = clock.after(delayMs, () => this.#look(watching), { unref: true });
      });
  }

  async #lookOnce(watching: Watching): Promise<void> {
    const { store, queue, clock, log } = this.#options;
    const { row } = watching.bucket;
    const { signal } = watching.left;
    const objects = this.#objectsOf(watching.bucket, signal);
    let batch: Observation[] = [];
    const note = async () => {
      const noted = await store.observe(row.id, batch, clock.now());
      batch = [];
      queue.look();
      if (noted === 'full')
        log.warn('the queue of the function is full; changes wait', { bucket: row.name });
      return noted !== 'full';
    };
    for await (const change of this.#changes(watching.bucket, objects)) {
      if (change.file?.isUnsettled) continue;
      batch.push(await this.#observationOf(watching.bucket, change));
      if (batch.length < notedAtOnce) continue;
      if (!(await note()) || this.#watching.get(row.id) !== watching) return;
    }
    if (batch.length > 0) await note();
  }

  async *#objectsOf({ row, definition }: Bucket, signal: AbortSignal): AsyncIterable<FoundObject> {
    const { secretOf, clock } = this.#options;
    const isWanted = (key: string) => isWatched(definition, key);
    if (definition.s3 === undefined)
      return yield* await listDirectory(definition.path!, { isWanted, nowMs: clock.now(), signal });
    const [accessKey, secretKey] = (['accessKey', 'secretKey'] as const).map(key => {
      const name = definition.s3![key];
      const value = secretOf(row.namespace, name);
      if (value !== undefined) return value;
      throw new GatewayError('SECRET_MISSING', `there is no secret ${name} in ${row.namespace}`);
    }) as [string, string];
    const keys = { accessKey, secretKey };
    for await (const found of listS3(definition.s3, keys, {
      prefix: definition.prefix ?? '',
      signal,
    }))
      if (isWanted(found.key)) yield found;
  }

  /** Somebody says that something has changed: looked at now, and not when it is time. */
  lookNow(bucket: Bucket): void {
    const watching = this.#watching.get(bucket.row.id);
    if (watching === undefined) return;
    watching.timer?.cancel();
    void watching.looking?.then(() => {
      if (this.#watching.get(bucket.row.id) !== watching) return;
      // The look that has just ended may have planned the next one.
      watching.timer?.cancel();
      this.#look(watching);
    });
  }

  /** What is there and what was noted, side by side in the order of their keys: those that differ. */
  async *#changes(
    { row }: Bucket,
    files: AsyncIterable<FoundObject>,
  ): AsyncIterable<{ file: FoundObject | undefined; noted: ObjectRow | undefined }> {
    const noted = this.#noted(row.id);
    let next = (await noted.next()).value as ObjectRow | undefined;
    const order = (a: string, b: string) => Buffer.compare(Buffer.from(a), Buffer.from(b));
    for await (const file of files) {
      while (next !== undefined && order(next.key, file.key) < 0) {
        yield { file: undefined, noted: next };
        next = (await noted.next()).value as ObjectRow | undefined;
      }
      const isSame = next?.key === file.key;
      if (eventsOf(isSame ? next : undefined, file).length > 0)
        yield { file, noted: isSame ? next : undefined };
      if (isSame) next = (await noted.next()).value as ObjectRow | undefined;
    }
    for (; next !== undefined; next = (await noted.next()).value as ObjectRow | undefined)
      yield { file: undefined, noted: next };
  }

  async *#noted(bucket: string): AsyncGenerator<ObjectRow, undefined> {
    let after: string | undefined;
    for (;;) {
      const page = await this.#options.store.objects(bucket, {
        ...(after !== undefined && { after }),
        limit: pageSize,
      });
      yield* page;
      if (page.length < pageSize) return undefined;
      after = page.at(-1)!.key;
    }
  }

  async #observationOf(
    bucket: Bucket,
    { file, noted }: { file: FoundObject | undefined; noted: ObjectRow | undefined },
  ): Promise<Observation> {
    const { definition } = bucket;
    const { key } = (file ?? noted)!;
    const isAsked = isWatched(definition, key) && !isOlder(bucket, file);
    const events = eventsOf(noted, file, { isVersioned: definition.s3?.versioned === true });
    const jobs: NewJob[] = [];
    for (const event of isAsked ? events : []) {
      if (!definition.events.includes(event)) continue;
      // Of what it was there is no more than was noted.
      const told =
        event === 'archive' || file === undefined ? { key, content: noted!.content } : file;
      const job = await this.#jobOf(bucket, event, told);
      if (job !== undefined) jobs.push(job);
    }
    return {
      key,
      ...(noted !== undefined && { before: noted }),
      ...(file !== undefined && { after: { content: file.content, metadata: file.metadata } }),
      jobs,
    };
  }

  async #jobOf(
    { row, definition }: Bucket,
    event: BucketEvent,
    file: Pick<FoundObject, 'key' | 'content'> & Partial<FoundObject>,
  ): Promise<NewJob | undefined> {
    const { functionOf, calls, clock, log } = this.#options;
    const called = functionOf(row.namespace, definition.function);
    if (called === undefined) {
      log.warn('the function of a bucket is gone; a change brings nothing', { bucket: row.name });
      return undefined;
    }
    const nowMs = clock.now();
    const facts = { id: newId('evt', nowMs), bucket: row.name, nowMs };
    const { headers, body } = objectEvent(event, facts, file);
    return calls.jobOf({
      function: called,
      head: {
        ...{ name: called.name, method: 'POST', target: '/', caller: 'trigger' },
        headers: [...headers, 'X-Fnway-Bucket', row.name],
        traceparent: newTraceparent(),
        trigger: { origin: 'bucket', name: row.name },
      },
      body: Buffer.from(body),
    });
  }
}

/** The clock of a file system stands still between two ticks; that of a store is another one, and counts seconds. */
const marginMs = { path: 50, s3: 5000 };

/** It was there when the bucket was made, or resumed: none of its business, unless it is asked for. */
function isOlder({ row, definition }: Bucket, file: FoundObject | undefined): boolean {
  const margin = definition.s3 === undefined ? marginMs.path : marginMs.s3;
  return (
    file !== undefined && definition.existing === 'ignore' && file.changedMs < row.sinceMs - margin
  );
}
