/** Async calls of functions: how they become jobs, what a try of one does, and how they are looked at afterwards. */
import { createHash } from 'node:crypto';
import type { Clock } from '../clock.ts';
import { definitionDefaults } from '../domain/function.ts';
import type { RecordFailure } from '../domain/record.ts';
import { type JobEnd, noRetry, type RetryPolicy } from '../domain/retry.ts';
import { GatewayError } from '../errors.ts';
import { newId } from '../ids.ts';
import { type CallSignal, emptyBody, type Invoke, type Version } from '../invoke/invoke.ts';
import type { Log } from '../log.ts';
import {
  type Enqueued,
  jobLimits,
  type Lane,
  type LeasedJob,
  type NewJob,
  type StoredJob,
} from '../store/jobs.ts';
import { attempt, causeOf, type End, type Finish, type Trial } from './attempt.ts';
import type { CallAbout, CallHead, ResultHead } from './job-call.ts';
import type { Kept, Payloads } from './payloads.ts';
import type { Ending, Queue } from './queue.ts';
import { type Attempt, type Story, storyIn } from './story.ts';
import { type CallTry, callOf, tryCall } from './try-call.ts';

export const callLimits = {
  /** How long an `Idempotency-Key` gives the first answer. */
  idempotencyMs: 86_400_000,
  idempotencyKeyCharsMax: 255,
  /** Between the acceptance of a job and its first try. */
  delayMsMax: 31 * 86_400_000,
} as const;

/** What the queue has to know of a function: its settings of this moment. */
export interface QueuedFunction {
  functionId: string;
  namespace: string;
  name: string;
  retry: RetryPolicy | undefined;
  queue: { concurrency?: number; waiting?: number } | undefined;
  instancesMax: number;
  /** Of the version that answers calls; 1 until there is one. */
  concurrency: number;
}

export interface CallsOptions {
  queue: Pick<Queue, 'submit'>;
  payloads: Payloads;
  invoke: Invoke;
  /** Throws FUNCTION_NOT_FOUND, VERSION_NOT_FOUND or VERSION_NOT_READY. */
  versionOf(functionId: string, head: CallHead): Promise<Version>;
  functionOf(functionId: string): QueuedFunction | undefined;
  /** A failure without the values of secrets. */
  hide(functionId: string, failure: RecordFailure): RecordFailure;
  /** What follows an end, to be accepted with it. */
  following(end: CallEnd): Promise<NewJob[]>;
  resultBytesMax: number;
  clock: Clock;
  log: Log;
  random(): number;
}

export interface CallEnd {
  job: LeasedJob;
  head: CallHead;
  result: ResultHead;
  body: Uint8Array;
  state: JobEnd;
}

/** After a disk that did not take a result. */
const keepRetryMs = 1000;

/** Inputs that are kept open: so many, so long. */
const rememberedInputsMax = 1000;
const rememberedBytesMax = 4096;

export interface CallTold {
  about: CallAbout | undefined;
  attempts: Attempt[];
  result: ResultHead | undefined;
}

export interface Submission {
  function: QueuedFunction;
  head: CallHead;
  body: Uint8Array;
  /** Milliseconds since the epoch. */
  dueMs?: number;
  priority?: number;
  idempotencyKey?: string;
  /** How long it holds; a day when absent. With one, another call under the same key is the same. */
  idempotencyMs?: number;
  /** One of a key at a time, in the order of acceptance. */
  orderKey?: string;
  parent?: string;
  /** What ended, and is accepted once more as this; once. */
  redrives?: string;
}

/** Throws what one that was not accepted is refused with. */
export function refuseUnaccepted(
  outcome: Enqueued,
  { waitingMax, name }: { waitingMax: number; name: string },
): void {
  if (outcome === 'conflict') {
    const detail = 'another call was accepted under this Idempotency-Key';
    throw new GatewayError('IDEMPOTENCY_CONFLICT', detail);
  }
  if (outcome === 'gone') {
    const detail = 'it was redriven before, or what it needs is gone';
    throw new GatewayError('INVOCATION_REDRIVEN', detail);
  }
  if (outcome === 'full') {
    const detail = `${waitingMax} jobs of ${name} wait already`;
    throw new GatewayError('QUEUE_FULL', detail, { retryAfterMs: 1000 });
  }
}

export class Calls {
  readonly #options: CallsOptions;
  /** What was accepted here a moment ago and most likely runs here: it need not be opened again. */
  readonly #recent = new Map<string, { head: CallHead; body: Uint8Array }>();

  constructor(options: CallsOptions) {
    this.#options = options;
  }

  /** The id of the invocation that was accepted, now or under the same key before. */
  async submit(submission: Submission): Promise<{ id: string; isFirst: boolean }> {
    const { queue, payloads } = this.#options;
    const { function: called } = submission;
    const job = await this.jobOf(submission);
    this.#remember(job, submission);
    // Where that fails, nobody knows whether it is there: a blob that no job names goes at the next start.
    const [outcome = 'full'] = await queue.submit([job]);
    if (outcome === 'accepted') return { id: job.id, isFirst: true };
    this.#recent.delete(job.id);
    await payloads.remove([job.inputBlob]);
    refuseUnaccepted(outcome, { waitingMax: job.lane.waitingMax, name: called.name });
    return { id: (outcome as { first: string }).first, isFirst: false };
  }

  #remember({ id, dueMs, acceptedMs }: NewJob, { head, body }: Submission): void {
    const isSoon = dueMs === acceptedMs && body.length <= rememberedBytesMax;
    if (!isSoon) return;
    if (this.#recent.size >= rememberedInputsMax)
      this.#recent.delete(this.#recent.keys().next().value!);
    // What came in one piece with much else would keep all of that.
    this.#recent.set(id, { head, body: Buffer.from(body) });
  }

  #recall(id: string): { head: CallHead; body: Uint8Array } | undefined {
    const recent = this.#recent.get(id);
    this.#recent.delete(id);
    return recent;
  }

  /** Undefined when it is gone. */
  inputOf({ sealedInput, inputBlob }: LeasedJob | StoredJob) {
    return this.#options.payloads.open<CallHead>({ sealed: sealedInput, blob: inputBlob });
  }

  /** For whoever accepts it together with something else. */
  async jobOf(submission: Submission): Promise<NewJob> {
    const { payloads, clock } = this.#options;
    const { function: called, head, body, idempotencyKey, orderKey, parent } = submission;
    const nowMs = clock.now();
    const kept = await payloads.keep(withDue(head, submission.dueMs), body);
    // Made in one piece: for every call that is accepted, and what is put together of parts costs a multiple.
    const job: NewJob = {
      id: newId('inv', nowMs),
      kind: 'call',
      priority: submission.priority ?? jobLimits.priorityDefault,
      namespace: called.namespace,
      functionId: called.functionId,
      lane: laneOf(called),
      acceptedMs: nowMs,
      dueMs: submission.dueMs ?? nowMs,
    };
    if ('blob' in kept) job.inputBlob = kept.blob;
    else job.sealedInput = kept.sealed;
    if (parent !== undefined) job.parent = parent;
    if (orderKey !== undefined) job.orderKey = orderKey;
    if (submission.redrives !== undefined) job.redrives = submission.redrives;
    if (idempotencyKey !== undefined)
      job.idempotency = {
        key: digestOf(called.namespace, called.functionId, head.caller, idempotencyKey),
        digest:
          submission.idempotencyMs === undefined
            ? digestOf(String(head.version ?? ''), head.method, head.target, body)
            : '',
        untilMs: nowMs + (submission.idempotencyMs ?? callLimits.idempotencyMs),
      };
    return job;
  }

  /** See `Run`. */
  readonly run = (job: LeasedJob, signal: CallSignal): Promise<Ending> => {
    const { functionOf, versionOf, hide } = this.#options;
    let input: { head: CallHead; body: Uint8Array } | undefined;
    return attempt<CallTry>(
      job,
      {
        open: async () => {
          input = this.#recall(job.id) ?? (await this.inputOf(job).catch(() => undefined));
          if (input === undefined)
            throw new GatewayError('JOB_LOST', 'the input of the job is gone, or damaged');
        },
        tryOnce: async () => {
          const version = await versionOf(job.functionId, input!.head);
          const call = callOf(job, version, input!, job.attempts + job.lost + 1);
          const tried = await tryCall(call, signal, this.#options);
          tried.version = version.number;
          if (call.instance !== undefined) tried.instance = call.instance;
          if (tried.failure !== undefined) tried.failure = hide(job.functionId, tried.failure);
          return tried;
        },
        policy: () => functionOf(job.functionId)?.retry ?? noRetry,
        firstDueMs: () => Math.max(job.acceptedMs, input?.head.dueMs ?? 0),
        finish: end => this.#finish(job, input?.head, end, signal),
      },
      this.#options,
    );
  };

  /** Until it is on disk: what has been done is not forgotten for a full one. */
  async #keep(head: ResultHead, body: Uint8Array, signal: CallSignal): Promise<Kept> {
    const { payloads, clock, log } = this.#options;
    for (;;) {
      try {
        return await payloads.keep(head, body);
      } catch (error) {
        log.error('a result could not be stored; tried again in a moment', { error });
        if (signal.aborted) throw error;
        await new Promise<void>(resolve => clock.after(keepRetryMs, resolve));
      }
    }
  }

  async #finish(
    job: LeasedJob,
    head: CallHead | undefined,
    { state, trial, attempts, durationMs }: End<Partial<CallTry> & Trial>,
    signal: CallSignal,
  ): Promise<Finish> {
    const { headers = [], body = emptyBody, failure, version, last } = trial;
    const result: ResultHead = {
      about: head && aboutOf(head),
      attempts,
      status: last.status,
      headers,
      durationMs,
    };
    if (version !== undefined) result.version = version;
    if (failure !== undefined) result.failure = failure;
    const keepsInput = state === 'dead' || state === 'failed';
    const kept = await this.#keep(result, body, signal);
    return {
      ...{ result: kept, isStoryToldByResult: true, keepsInput },
      ...(state === 'dead' && { cause: causeOf(trial) }),
      next:
        head === undefined ? [] : await this.#options.following({ job, head, result, body, state }),
      ...(!keepsInput && { inputBlob: job.inputBlob }),
    };
  }

  #storyOf(job: { sealedStory?: Uint8Array }): Story {
    return storyIn(job.sealedStory, this.#options.payloads);
  }

  /**
   * What a job is about, for people: of its input, or of its result; as far as they can be opened. `inRow`: without what would
   * have to be read from files.
   */
  async tell(whole: StoredJob, { inRow = false } = {}): Promise<CallTold> {
    const { inputBlob, resultBlob, ...row } = whole;
    const job: StoredJob = inRow ? row : whole;
    const result = await this.resultOf(job).catch(() => undefined);
    let about = result?.head.about;
    if (about === undefined) {
      const input = await this.inputOf(job).catch(() => undefined);
      about = input && aboutOf(input.head);
    }
    const attempts = result?.head.attempts ?? this.#storyOf(job).attempts;
    return { about, attempts, result: result?.head };
  }

  /** What has ended once more: a new invocation that names the old one. Undefined when its input is gone. */
  async redriveOf(
    job: StoredJob,
    called: QueuedFunction,
    version?: number,
  ): Promise<Submission | undefined> {
    const { priority, id } = job;
    const input = await this.inputOf(job);
    if (input === undefined) return undefined;
    const { version: _, dueMs: __, ...head } = input.head;
    return {
      ...{ function: called, body: input.body, priority, parent: id, redrives: id },
      head: version === undefined ? head : { ...head, version },
    };
  }

  resultOf(job: StoredJob): Promise<{ head: ResultHead; body: Uint8Array } | undefined> {
    const { sealedResult: sealed, resultBlob: blob } = job;
    return this.#options.payloads.open<ResultHead>({ sealed, blob });
  }
}

function withDue(head: CallHead, dueMs: number | undefined): CallHead {
  return dueMs === undefined ? head : { ...head, dueMs };
}

function aboutOf({ name, method, target, caller, label, trigger }: CallHead): CallAbout {
  const about: CallAbout = { name, method, target, caller };
  if (label !== undefined) about.label = label;
  if (trigger !== undefined) about.trigger = trigger;
  return about;
}

/** Where its jobs wait: as many run as its instances have places for, unless it says otherwise. */
export function laneOf({ functionId, queue, instancesMax, concurrency }: QueuedFunction): Lane {
  return {
    id: functionId,
    runningMax: queue?.concurrency ?? instancesMax * concurrency,
    waitingMax: queue?.waiting ?? definitionDefaults.waitingJobs,
  };
}

function digestOf(...parts: Array<string | Uint8Array>): string {
  const hash = createHash('sha256');
  for (const part of parts) {
    // Each with its length: two different lists never make one text.
    hash.update(`${part.length}:`);
    hash.update(part);
  }
  return hash.digest('hex');
}
