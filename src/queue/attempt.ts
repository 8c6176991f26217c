/** One try of a job, of whatever kind, and what it makes of it. What there is to do, and what an end leaves, the kind says. */
import type { Clock } from '../clock.ts';
import type { RecordFailure } from '../domain/record.ts';
import type { JobEnd, RetryPolicy } from '../domain/retry.ts';
import { GatewayError } from '../errors.ts';
import type { EndState, LeasedJob, NewJob, Settlement } from '../store/jobs.ts';
import type { NewMessage } from '../store/messages.ts';
import { lostMax, nextOf, type Tried } from './outcome.ts';
import type { Kept, Payloads } from './payloads.ts';
import type { Ending } from './queue.ts';
import { type Attempt, nextNumber, storyIn, told } from './story.ts';
import { refused } from './try-call.ts';

export interface Trial extends Tried {
  failure?: RecordFailure;
  version?: number;
  instance?: string;
}

export interface End<T> {
  state: JobEnd;
  trial: T;
  /** Every one, this included. */
  attempts: Attempt[];
  durationMs: number;
}

/** How an end is stored. */
export interface Finish {
  /** Another one than the policy came to. */
  state?: EndState;
  cause?: string;
  result?: Kept;
  keepsInput: boolean;
  /** The result tells the attempts. */
  isStoryToldByResult?: boolean;
  next?: NewJob[];
  messages?: NewMessage[];
  /** Once all this is on disk. */
  onSettled?: () => void;
  /** Nobody needs it any more. */
  inputBlob?: string | undefined;
}

export interface Work<T extends Trial> {
  /** Reads what there is to do. What it throws has failed, as a try. */
  open(): Promise<void>;
  /** What it throws has failed. */
  tryOnce(): Promise<T>;
  policy(): RetryPolicy;
  /** Its age counts from then. */
  firstDueMs(): number;
  finish(end: End<T | Trial>): Promise<Finish>;
}

export interface AttemptOptions {
  payloads: Payloads;
  clock: Clock;
  random(): number;
}

export async function attempt<T extends Trial>(
  job: LeasedJob,
  work: Work<T>,
  { payloads, clock, random }: AttemptOptions,
): Promise<Ending> {
  const startedMs = clock.now();
  const beganMs = clock.monotonicMs();
  let trial: T | Trial;
  try {
    await work.open();
    if (job.lost >= lostMax) throw lostJob(job);
    trial = await work.tryOnce();
  } catch (error) {
    trial = refused(error);
  }
  const durationMs = Math.round(1000 * (clock.monotonicMs() - beganMs)) / 1000;
  const { last, failure, version, instance } = trial;
  const { attempts, lost } = job;
  const since = { attempts, lost, acceptedMs: work.firstDueMs() };
  const next = nextOf(since, work.policy(), trial, { nowMs: clock.now(), random: random() });
  const before = storyIn(job.sealedStory, payloads);
  const tried: Attempt = {
    number: nextNumber(before),
    startedMs,
    tookMs: durationMs,
    status: last.status,
  };
  if (version !== undefined) tried.version = version;
  if (instance !== undefined) tried.instance = instance;
  if (failure !== undefined) tried.failure = failure;
  if (!next.isCounted) tried.isGivenBack = true;
  const story = told(before, tried);
  const sealStory = () => payloads.seal(JSON.stringify(story));
  const { isCounted } = next;
  if (next.kind === 'retry') {
    const outcome = { kind: 'retry' as const, dueMs: next.dueMs };
    const blobs = { afterwards: [], ifLost: [] };
    return { outcome, isCounted, sealedStory: sealStory(), sealStory, next: [], blobs };
  }
  const end = { state: next.state, trial, attempts: story.attempts, durationMs };
  return ended(await work.finish(end), {
    ...{ state: next.state, status: last.status, isCounted, sealStory },
  });
}

function ended(
  finish: Finish,
  facts: { state: EndState; status: number; isCounted: boolean; sealStory(): Uint8Array },
): Ending {
  const { result, next = [], messages = [], keepsInput, cause, inputBlob } = finish;
  const { status, isCounted, sealStory } = facts;
  const resultBlob = result !== undefined && 'blob' in result ? result.blob : undefined;
  const outcome: Settlement['outcome'] = {
    kind: 'end',
    state: finish.state ?? facts.state,
    status,
    keepsInput,
  };
  if (cause !== undefined) outcome.cause = cause;
  if (resultBlob !== undefined) outcome.resultBlob = resultBlob;
  else if (result !== undefined && 'sealed' in result) outcome.sealedResult = result.sealed;
  const ifLost = [resultBlob];
  for (const job of next) ifLost.push(job.inputBlob);
  for (const message of messages) ifLost.push(message.blob);
  const blobs = { afterwards: [inputBlob], ifLost };
  const { onSettled } = finish;
  const ending: Ending = { outcome, isCounted, sealStory, next, messages, blobs, onSettled };
  // Where the result tells the story: sealing another text would take longer than all the rest.
  if (!finish.isStoryToldByResult) ending.sealedStory = sealStory();
  return ending;
}

export function lostJob(job: LeasedJob): GatewayError {
  const detail = `${job.lost} gateways were gone before their try of it had ended`;
  return new GatewayError('JOB_LOST', detail);
}

/** By what the dead are grouped: how the last try failed, without what only that one said. */
export function causeOf({ last, failure }: Trial): string {
  if (failure === undefined) return `answered ${last.status}`;
  const { reason, code, type } = failure;
  // A name that a program gives its error is text of its own: only what looks like a name is one.
  const isName = type !== undefined && type !== 'Error' && /^[\w.$:]{1,64}$/.test(type);
  return isName ? `${reason ?? code} ${type}` : (reason ?? code);
}
