/**
 * Tells an address how an async call has ended: a job of its own, accepted in the transaction of that end, tried until it is
 * taken, and dead, with a line in the log, when it never is.
 *
 * The signature covers the time and the body: `X-Fnway-Signature: t=SECONDS,v1=HEX`, HMAC-SHA256 of `SECONDS.BODY` with the
 * function's signing key.
 */
import { createHmac } from 'node:crypto';
import type { Sealer } from '../auth/seal.ts';
import type { Clock } from '../clock.ts';
import { parseRetryAfter, type RetryPolicy } from '../domain/retry.ts';
import { GatewayError, toProblem } from '../errors.ts';
import { newId } from '../ids.ts';
import type { CallSignal } from '../invoke/invoke.ts';
import type { Log } from '../log.ts';
import { jobLimits, type LeasedJob, type NewJob } from '../store/jobs.ts';
import { attempt, causeOf, type Trial } from './attempt.ts';
import type { CallEnd } from './calls.ts';
import type { Outbound, OutboundRequest } from './outbound.ts';
import { asInput, type Payloads } from './payloads.ts';
import type { Ending } from './queue.ts';
import { refused } from './try-call.ts';

/** Every answer but a success is tried again: who gives an address wants to know. */
export const callbackRetry: RetryPolicy = {
  attempts: 10,
  minDelayMs: 5000,
  maxDelayMs: 600_000,
  jitter: 0.1,
  on: ['3xx', '4xx', '5xx'],
};

/** Before the id of the function whose callbacks share a lane. */
export const callbackLane = 'callback ';

/** To one function's callbacks at once. */
export const callbacksRunningMax = 32;

export interface CallbackHead {
  url: string;
  headers: Record<string, string>;
}

export interface CallbacksOptions {
  payloads: Payloads;
  outbound: Pick<Outbound, 'post'>;
  signingKeyOf(functionId: string): string;
  /** Tells those who want to hear of it that one was given up. */
  noticesOf(job: LeasedJob, dead: { cause: string; told: string | undefined }): Promise<NewJob[]>;
  clock: Clock;
  log: Log;
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
    const { reason, code, message } = failure ?? {};
    const problem =
      failure && toProblem(new GatewayError(code as GatewayError['code'], message!), job.id);
    const told =
      problem === undefined ? body : Buffer.from(`${JSON.stringify({ ...problem, reason })}\n`);
    const callback: CallbackHead = {
      url: head.callbackUrl,
      headers: {
        ...(failure === undefined
          ? representationOf(result.headers)
          : { 'Content-Type': 'application/problem+json' }),
        'X-Fnway-Invocation': job.id,
        'X-Call-Id': head.label ?? job.id,
        'X-Function-Name': head.name,
        'X-Function-Status': String(result.status),
        'X-Duration-Seconds': (result.durationMs / 1000).toFixed(6),
        ...(failure !== undefined && { 'X-Fnway-Failure': failure.reason ?? failure.code }),
        Traceparent: head.traceparent,
      },
    };
    const { namespace, functionId } = job;
    const lane = { id: `${callbackLane}${functionId}`, runningMax: callbacksRunningMax };
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
  readonly run = (job: LeasedJob, signal: CallSignal): Promise<Ending> => {
    const { log, noticesOf } = this.#options;
    return attempt(
      job,
      {
        open: async () => {},
        tryOnce: () => this.#try(job, signal),
        policy: () => callbackRetry,
        firstDueMs: () => job.acceptedMs,
        async finish({ state, trial }) {
          if (state === 'succeeded') return { keepsInput: false, inputBlob: job.inputBlob };
          const [cause, told] = [causeOf(trial), trial.failure?.message];
          log.warn('a callback was given up', { call: job.parent, job: job.id, why: told });
          return { keepsInput: true, cause, next: await noticesOf(job, { cause, told }) };
        },
      },
      this.#options,
    );
  };

  async #try(job: LeasedJob, signal: CallSignal): Promise<Trial> {
    const { payloads, signingKeyOf, clock } = this.#options;
    try {
      const { sealedInput: sealed, inputBlob: blob } = job;
      // One that cannot be opened would be given back for ever.
      const input = await payloads.open<CallbackHead>({ sealed, blob }).catch(() => undefined);
      if (input === undefined)
        throw new GatewayError('JOB_LOST', 'the input of the job is gone, or damaged');
      const { head, body } = input;
      const key = signingKeyOf(job.functionId);
      const headers = {
        ...head.headers,
        'X-Fnway-Signature': sign(key, clock.now(), body),
      };
      return await postTrial(this.#options, { url: head.url, request: { headers, body } }, signal);
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

/**
 * One POST to an address that somebody gave. Every answer but a success has failed, a redirection too: it could lead
 * anywhere. Throws the signal's reason.
 */
export async function postTrial(
  { outbound, clock }: { outbound: Pick<Outbound, 'post'>; clock: Clock },
  { url, request, taken }: { url: string; request: OutboundRequest; taken?: ReadonlySet<number> },
  signal: CallSignal,
): Promise<Trial> {
  try {
    const { status, retryAfter } = await outbound.post(url, request, signal);
    const retryAfterMs =
      retryAfter === undefined ? undefined : parseRetryAfter(retryAfter, clock.now());
    if (taken === undefined ? status >= 200 && status < 300 : taken.has(status))
      return { last: { status } };
    return {
      last: {
        ...{ status: Math.max(status, 300), reason: 'UPSTREAM_UNREACHABLE' },
        ...(retryAfterMs !== undefined && { retryAfterMs }),
      },
      failure: {
        ...{ kind: 'system', code: 'UPSTREAM_UNREACHABLE' },
        message: `${new URL(url).host} answered ${status}`,
      },
    };
  } catch (error) {
    if (signal.aborted || !(error instanceof GatewayError)) throw error;
    const { code, status, message } = error;
    // What is refused today may be allowed tomorrow, and what a name leads to changes.
    return { last: { status, reason: code }, failure: { kind: 'system', code, message } };
  }
}

/** `t=SECONDS,v1=HEX`; see the top. */
export function sign(key: string, nowMs: number, body: Uint8Array): string {
  const seconds = Math.floor(nowMs / 1000);
  const hmac = createHmac('sha256', key).update(`${seconds}.`).update(body);
  return `t=${seconds},v1=${hmac.digest('hex')}`;
}

/** Of a function: whoever gets its callbacks checks with it that they come from this gateway. Callers do not know it. */
export function signingKeyOf(functionId: string, { derive }: Pick<Sealer, 'derive'>): string {
  return derive(`callbacks of ${functionId}`).toString('base64url');
}

/** What says how the bytes are to be read. */
const representation = new Set(['content-type', 'content-encoding', 'content-language']);

export function representationOf(headers: readonly string[]): Record<string, string> {
  const found: Record<string, string> = {};
  for (let i = 0; i < headers.length; i += 2)
    if (representation.has(headers[i]!.toLowerCase())) found[headers[i]!] = headers[i + 1]!;
  return found;
}
