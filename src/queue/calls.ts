/** Async calls of functions: how they become jobs, what a try of one does, and how they are looked at afterwards. */
import { createHash } from 'node:crypto';
import type { Clock } from '../clock.ts';
import { definitionDefaults } from '../domain/function.ts';
import type { RecordFailure } from '../domain/record.ts';
import { type JobEnd, noRetry, type RetryPolicy } from '../domain/retry.ts';
import { GatewayError } from '../errors.ts';
import { newId } from '../ids.ts';
import type { CallSignal, Invoke, Version } from '../invoke/invoke.ts';
import type { Log } from '../log.ts';
import {
  jobLimits,
  type Lane,
  type LeasedJob,
  type NewJob,
  type StoredJob,
} from '../store/jobs.ts';
import type { CallAbout, CallHead, ResultHead } from './job-call.ts';
import { lostMax, nextOf } from './outcome.ts';
import { asInput, type Kept, type Payloads } from './payloads.ts';
import type { Ending, Queue } from './queue.ts';
import { type Attempt, nextNumber, type Story, storyIn, told } from './story.ts';
import { type CallTry, callOf, refused, tryCall } from './try-call.ts';

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
  /** One of a key at a time, in the order of acceptance. */
  orderKey?: string;
  parent?: string;
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
    if (typeof outcome === 'object') return { id: outcome.first, isFirst: false };
    if (outcome === 'conflict') {
      const detail = 'another call was accepted under this Idempotency-Key';
      throw new GatewayError('IDEMPOTENCY_CONFLICT', detail);
    }
    const detail = `${job.lane.waitingMax} jobs of ${called.name} wait already`;
    throw new GatewayError('QUEUE_FULL', detail, { retryAfterMs: 1000 });
  }

  #remember({ id, dueMs, acceptedMs }: NewJob, { head, body }: Submission): void {
    const isSoon = dueMs === acceptedMs && body.length <= rememberedBytesMax;
    if (!isSoon) return;
    if (this.#recent.size >= rememberedInputsMax)
      this.#recent.delete(this.#recent.keys().next().value!);
    // A part of a larger piece of memory would keep all of that.
    this.#recent.set(id, { head, body: Uint8Array.from(body) });
  }

  #recall(id: string): { head: CallHead; body: Uint8Array } | undefined {
    const recent = this.#recent.get(id);
    this.#recent.delete(id);
    return recent;
  }

  #inputOf({ sealedInput, inputBlob }: LeasedJob | StoredJob) {
    return this.#options.payloads.open<CallHead>({ sealed: sealedInput, blob: inputBlob });
  }

  /** For whoever accepts it together with something else. */
  async jobOf(submission: Submission): Promise<NewJob> {
    const { payloads, clock } = this.#options;
    const { function: called, head, body, idempotencyKey, orderKey, parent } = submission;
    const nowMs = clock.now();
    return {
      ...{ id: newId('inv', nowMs), kind: 'call', priority: jobLimits.priorityDefault },
      ...{ namespace: called.namespace, functionId: called.functionId, lane: laneOf(called) },
      ...{ acceptedMs: nowMs, dueMs: submission.dueMs ?? nowMs },
      ...(submission.priority !== undefined && { priority: submission.priority }),
      ...(parent !== undefined && { parent }),
      ...(orderKey !== undefined && { orderKey }),
      ...asInput(await payloads.keep(withDue(head, submission.dueMs), body)),
      ...(idempotencyKey !== undefined && {
        idempotency: {
          key: digestOf(called.namespace, called.functionId, head.caller, idempotencyKey),
          digest: digestOf(String(head.version ?? ''), head.method, head.target, body),
          untilMs: nowMs + callLimits.idempotencyMs,
        },
      }),
    };
  }

  /** See `Run`. */
  readonly run = async (job: LeasedJob, signal: CallSignal): Promise<Ending> => {
    const { clock } = this.#options;
    const startedMs = clock.now();
    const beganMs = clock.monotonicMs();
    let input: { head: CallHead; body: Uint8Array } | undefined;
    let version: Version | undefined;
    let attempt: { instance: string | undefined } | undefined;
    let tried: CallTry;
    try {
      input = this.#recall(job.id) ?? (await this.#inputOf(job).catch(() => undefined));
      if (input === undefined)
        throw new GatewayError('JOB_LOST', 'the input of the job is gone, or damaged');
      if (job.lost >= lostMax) throw lostJob(job);
      version = await this.#options.versionOf(job.functionId, input.head);
      const call = callOf(job, version, input, job.attempts + job.lost + 1);
      attempt = call;
      tried = await tryCall(call, signal, this.#options);
    } catch (error) {
      tried = refused(error);
    }
    const told: Omit<Attempt, 'number' | 'status' | 'failure'> = {
      startedMs,
      tookMs: Math.round(1000 * (clock.monotonicMs() - beganMs)) / 1000,
      ...(version !== undefined && { version: version.number }),
      ...(attempt?.instance !== undefined && { instance: attempt.instance }),
    };
    return this.#ending({ job, input, tried, told, signal });
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

  async #ending({
    job,
    input,
    tried,
    told: facts,
    signal,
  }: {
    job: LeasedJob;
    input: { head: CallHead } | undefined;
    tried: CallTry;
    told: Omit<Attempt, 'number' | 'status' | 'failure'>;
    signal: CallSignal;
  }): Promise<Ending> {
    const { payloads, clock, hide, functionOf, random, following } = this.#options;
    const policy = functionOf(job.functionId)?.retry ?? noRetry;
    const { attempts, lost, acceptedMs } = job;
    const since = { attempts, lost, acceptedMs: Math.max(acceptedMs, input?.head.dueMs ?? 0) };
    const next = nextOf(since, policy, tried, { nowMs: clock.now(), random: random() });
    const failure = tried.failure && hide(job.functionId, tried.failure);
    const before = this.#storyOf(job);
    const story = told(before, {
      ...{ number: nextNumber(before), ...facts, status: tried.last.status },
      ...(failure !== undefined && { failure }),
      ...(!next.isCounted && { isGivenBack: true }),
    });
    const sealStory = () => payloads.seal(JSON.stringify(story));
    const { isCounted } = next;
    if (next.kind === 'retry') {
      const outcome = { kind: 'retry' as const, dueMs: next.dueMs };
      const blobs = { afterwards: [], ifLost: [] };
      const sealedStory = sealStory();
      return { outcome, isCounted, sealedStory, sealStory, next: [], blobs };
    }
    const { status } = tried.last;
    const { version } = facts;
    const result: ResultHead = {
      about: input && aboutOf(input.head),
      attempts: story.attempts,
      ...{ status, headers: tried.headers, durationMs: facts.tookMs },
      ...(version !== undefined && { version }),
      ...(failure !== undefined && { failure }),
    };
    const kept = await this.#keep(result, tried.body, signal);
    const { state } = next;
    const keepsInput = state === 'dead' || state === 'failed';
    const successors =
      input === undefined
        ? []
        : await following({ job, head: input.head, result, body: tried.body, state });
    const resultBlob = 'blob' in kept ? kept.blob : undefined;
    return {
      outcome: {
        ...{ kind: 'end', state, status, keepsInput },
        ...('blob' in kept ? { resultBlob: kept.blob } : { sealedResult: kept.sealed }),
      },
      // Its result tells the story: sealing another text would take longer than all the rest.
      ...{ isCounted, sealStory, next: successors },
      blobs: {
        afterwards: keepsInput ? [] : [job.inputBlob],
        ifLost: [resultBlob, ...successors.map(({ inputBlob }) => inputBlob)],
      },
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
      const input = await this.#inputOf(job).catch(() => undefined);
      about = input && aboutOf(input.head);
    }
    const attempts = result?.head.attempts ?? this.#storyOf(job).attempts;
    return { about, attempts, result: result?.head };
  }

  /** Accepts what has ended once more: a new invocation that names the old one. Undefined when its input is gone. */
  async redrive(
    job: StoredJob,
    called: QueuedFunction,
    version?: number,
  ): Promise<{ id: string } | undefined> {
    const { priority, id: parent } = job;
    const input = await this.#inputOf(job);
    if (input === undefined) return undefined;
    const { version: _, dueMs: __, ...head } = input.head;
    return this.submit({
      ...{ function: called, body: input.body, priority, parent },
      head: version === undefined ? head : { ...head, version },
    });
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
  return {
    ...{ name, method, target, caller },
    ...(label !== undefined && { label }),
    ...(trigger !== undefined && { trigger }),
  };
}

/** Where its jobs wait: as many run as its instances have places for, unless it says otherwise. */
export function laneOf({ functionId, queue, instancesMax, concurrency }: QueuedFunction): Lane {
  return {
    id: functionId,
    runningMax: queue?.concurrency ?? instancesMax * concurrency,
    waitingMax: queue?.waiting ?? definitionDefaults.waitingJobs,
  };
}

export function lostJob(job: LeasedJob): GatewayError {
  const detail = `${job.lost} gateways were gone before their try of it had ended`;
  return new GatewayError('JOB_LOST', detail);
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
