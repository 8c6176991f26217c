/**
 * Tells an address how an async call has ended: a job of its own, accepted in the transaction of that end, tried until it is
 * taken, and a dead letter when it never is.
 *
 * The signature covers the time and the body: `X-Fnway-Signature: t=SECONDS,v1=HEX`, HMAC-SHA256 of `SECONDS.BODY` with the
 * function's signing key.
 */
import { createHmac } from 'node:crypto';
import type { Clock } from '../clock.ts';
import { parseRetryAfter, type RetryPolicy } from '../domain/retry.ts';
import { GatewayError } from '../errors.ts';
import { newId } from '../ids.ts';
import type { CallSignal } from '../invoke/invoke.ts';
import { jobLimits, type LeasedJob, type NewJob } from '../store/jobs.ts';
import { asInput, type CallEnd } from './calls.ts';
import type { Outbound } from './outbound.ts';
import { lostMax, nextOf, type Tried } from './outcome.ts';
import type { Payloads } from './payloads.ts';
import type { Ending } from './queue.ts';
import { emptyStory, type Story, told } from './story.ts';
import { refused } from './try-call.ts';

/** Every answer but a success is tried again: who gives an address wants to know. */
export const callbackRetry: RetryPolicy = {
  attempts: 10,
  minDelayMs: 5000,
  maxDelayMs: 600_000,
  jitter: 0.1,
  on: ['3xx', '4xx', '5xx', 'timeout'],
};

/** To one function's callbacks at once. */
export const callbacksRunningMax = 32;

export interface CallbackHead {
  url: string;
  headers: Record<string, string>;
}

export interface CallbacksOptions {
  payloads: Payloads;
  outbound: Pick<Outbound, 'post'>;
  /** Undefined when the function has been removed. */
  signingKeyOf(functionId: string): string | undefined;
  clock: Clock;
  random(): number;
}

export class Callbacks {
  readonly #options: CallbacksOptions;

  constructor(options: CallbacksOptions) {
    this.#options = options;
  }

  /** What is accepted with the end of a call: nothing where no address was given. */
  async following({ job, head, result, body }: CallEnd): Promise<NewJob[]> {
    if (head.callbackUrl === undefined) return [];
    const { payloads, clock } = this.#options;
    const nowMs = clock.now();
    const { failure } = result;
    const told =
      failure === undefined ? body : Buffer.from(`${JSON.stringify({ ...failure, id: job.id })}\n`);
    const contentType =
      failure === undefined ? contentTypeOf(result.headers) : 'application/problem+json';
    const callback: CallbackHead = {
      url: head.callbackUrl,
      headers: {
        ...(contentType !== undefined && { 'Content-Type': contentType }),
        'X-Call-Id': head.label ?? job.id,
        'X-Function-Name': head.name,
        'X-Function-Status': String(result.status),
        'X-Duration-Seconds': (result.durationMs / 1000).toFixed(6),
        ...(failure !== undefined && { 'X-Fnway-Failure': failure.reason ?? failure.code }),
        Traceparent: head.traceparent,
      },
    };
    const { namespace, functionId } = job;
    const lane = { id: `callback ${functionId}`, runningMax: callbacksRunningMax };
    return [
      {
        ...{ id: newId('inv', nowMs), kind: 'callback', namespace, functionId, parent: job.id },
        lane: { ...lane, waitingMax: Number.MAX_SAFE_INTEGER },
        ...{ priority: jobLimits.priorityDefault, acceptedMs: nowMs, dueMs: nowMs },
        ...asInput(await payloads.keep(callback, told)),
      },
    ];
  }

  /** See `Run`. */
  readonly run = async (job: LeasedJob, signal: CallSignal): Promise<Ending> => {
    const { payloads, clock, random } = this.#options;
    const startedMs = clock.now();
    const beganMs = clock.monotonicMs();
    const tried = await this.#try(job, signal);
    const { failure } = tried;
    const nowMs = clock.now();
    const next =
      job.lost >= lostMax
        ? ({ kind: 'end', state: 'dead', isCounted: false } as const)
        : nextOf(job, callbackRetry, tried, { nowMs, random: random() });
    const before: Story =
      job.sealedStory === undefined
        ? emptyStory
        : (JSON.parse(payloads.openText(job.sealedStory)) as Story);
    const story = told(before, {
      ...{ number: before.attempts.length + 1, startedMs, status: tried.last.status },
      tookMs: Math.round(clock.monotonicMs() - beganMs),
      ...(failure !== undefined && { failure }),
      ...(!next.isCounted && { isGivenBack: true }),
    });
    const sealedStory = payloads.seal(JSON.stringify(story));
    const keepsInput = next.kind === 'end' && next.state !== 'succeeded';
    return {
      outcome:
        next.kind === 'retry'
          ? { kind: 'retry', dueMs: next.dueMs }
          : { kind: 'end', state: next.state, status: tried.last.status, keepsInput },
      ...{ isCounted: next.isCounted, sealedStory, sealStory: () => sealedStory, next: [] },
      blobs: {
        afterwards: next.kind === 'retry' || keepsInput ? [] : [job.inputBlob],
        ifLost: [],
      },
    };
  };

  async #try(
    job: LeasedJob,
    signal: CallSignal,
  ): Promise<Tried & { failure?: ReturnType<typeof refused>['failure'] }> {
    const { payloads, outbound, signingKeyOf, clock } = this.#options;
    try {
      const { sealedInput: sealed, inputBlob: blob } = job;
      const input = await payloads.open<CallbackHead>({ sealed, blob });
      if (input === undefined) throw new GatewayError('INTERNAL', 'the input of the job is gone');
      const { head, body } = input;
      const key = signingKeyOf(job.functionId);
      const headers = {
        ...head.headers,
        ...(key !== undefined && { 'X-Fnway-Signature': sign(key, clock.now(), body) }),
      };
      const { status, retryAfter } = await outbound.post(head.url, { headers, body }, signal);
      const retryAfterMs =
        retryAfter === undefined ? undefined : parseRetryAfter(retryAfter, clock.now());
      const last = { status, ...(retryAfterMs !== undefined && { retryAfterMs }) };
      if (status >= 200 && status < 300) return { last };
      const message = `${new URL(head.url).host} answered ${status}`;
      // Also a redirection is none: it could lead anywhere.
      return {
        last: { ...last, status: Math.max(status, 300), reason: `${Math.floor(status / 100)}xx` },
        failure: { kind: 'system', code: 'UPSTREAM_UNREACHABLE', message },
      };
    } catch (error) {
      const { last, failure, givenBackMs } = refused(error);
      return {
        // What is refused today may be allowed tomorrow, and what a name leads to changes.
        last: { ...last, isTerminal: false },
        ...(failure !== undefined && { failure }),
        ...(givenBackMs !== undefined && { givenBackMs }),
      };
    }
  }
}

/** `t=SECONDS,v1=HEX`; see the top. */
export function sign(key: string, nowMs: number, body: Uint8Array): string {
  const seconds = Math.floor(nowMs / 1000);
  const hmac = createHmac('sha256', key).update(`${seconds}.`).update(body);
  return `t=${seconds},v1=${hmac.digest('hex')}`;
}

/** Of a function: whoever gets its callbacks checks with it that they come from this gateway. Changes with its token. */
export function signingKeyOf(functionToken: string): string {
  return createHmac('sha256', functionToken).update('fnway callback').digest('base64url');
}

function contentTypeOf(headers: readonly string[]): string | undefined {
  for (let i = 0; i < headers.length; i += 2)
    if (headers[i]!.toLowerCase() === 'content-type') return headers[i + 1];
  return undefined;
}
