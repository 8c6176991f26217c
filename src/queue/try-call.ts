/** One try of a call that waited in the queue: through the waist, like any other. */
import { collect } from '../body.ts';
import type { Clock } from '../clock.ts';
import { failureOf, kindOf, type RecordFailure } from '../domain/record.ts';
import { parseRetryAfter, type Try } from '../domain/retry.ts';
import { GatewayError, isGatewayError } from '../errors.ts';
import {
  type Call,
  type CallSignal,
  emptyBody,
  failedReply,
  type HeaderPairs,
  type Invoke,
  isStream,
  type Reply,
  type Version,
} from '../invoke/invoke.ts';
import type { CallHead } from './job-call.ts';

export interface CallTry {
  last: Try;
  headers: HeaderPairs;
  body: Uint8Array;
  /** Absent when the function answered. */
  failure?: RecordFailure;
  /** It has not been a try: again, after so long. */
  givenBackMs?: number;
  version?: number;
  instance?: string;
}

/** A function's error of this name says that another try is of no use. */
export const terminalErrorName = 'TerminalError';
/** An answer with this header says so too. */
export const noRetryHeader = 'x-fnway-no-retry';

/** Not the job's fault, and soon over: it keeps its tries. */
const givenBackMs: Partial<Record<GatewayError['code'], number>> = {
  GATEWAY_STOPPING: 0,
  FUNCTION_BUSY: 1000,
  VERSION_NOT_READY: 5000,
  DATA_DIRECTORY_UNUSABLE: 5000,
};

export interface CallTryOptions {
  invoke: Invoke;
  clock: Clock;
  resultBytesMax: number;
}

export function callOf(
  job: { id: string; parent?: string },
  version: Version,
  { head, body }: { head: CallHead; body: Uint8Array },
  attempt: number,
): Call {
  for (const part of head.headers) if (forbidden.test(part)) throw headerForbidden();
  return {
    id: job.id,
    version,
    attempt,
    method: head.method,
    target: head.target,
    headers: head.headers,
    body,
    ownHeaders: ['X-Call-Id', head.label ?? job.id, 'Traceparent', head.traceparent],
    origin: head.trigger?.origin ?? 'async',
    caller: head.caller,
    label: head.label,
    parent: job.parent,
    deadlineMs: Number.POSITIVE_INFINITY,
    gathering: false,
    instance: undefined,
  };
}

/** No reader of HTTP has looked at it: one byte that no header may have would make others of it. */
function headerForbidden(): GatewayError {
  const detail = 'a header of the job has a character that none may have';
  return new GatewayError('REQUEST_MALFORMED', detail);
}

/** Beyond Latin-1, a character is cut to its low byte on its way: that may be one of these too. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what it is about
const forbidden = /[\0-\x08\x0a-\x1f\x7f\u0100-\uffff]/;

/** Never throws. */
export async function tryCall(
  call: Call,
  signal: CallSignal,
  { invoke, clock, resultBytesMax }: CallTryOptions,
): Promise<CallTry> {
  try {
    const reply = await invoke(call, signal);
    const body = isStream(reply.body) ? await collect(reply.body, resultBytesMax) : reply.body;
    if (body !== undefined && body.length <= resultBytesMax)
      return answered(reply, body, clock.now());
    const message = `the answer is longer than ${resultBytesMax} bytes, which is what an async call keeps`;
    return answered(failedReply({ reason: 'reply-invalid', message }), emptyBody, clock.now());
  } catch (error) {
    return refused(signal.reason ?? error);
  }
}

function answered(reply: Reply, body: Uint8Array, nowMs: number): CallTry {
  const { status, headers, failure } = reply;
  if (failure !== undefined) {
    const isTerminal = failure.type === terminalErrorName;
    const last = { status, reason: failure.reason, isTerminal };
    return { last, headers: [], body: emptyBody, failure: failureOf(failure) };
  }
  const retryAfter = headerOf(headers, 'retry-after');
  const retryAfterMs = retryAfter === undefined ? undefined : parseRetryAfter(retryAfter, nowMs);
  const isTerminal = headerOf(headers, noRetryHeader) !== undefined;
  const last: Try = { status, isTerminal };
  if (retryAfterMs !== undefined) last.retryAfterMs = retryAfterMs;
  // It has answered for its handler, which threw: the answer counts.
  return { last, headers, body };
}

export function refused(error: unknown): CallTry {
  const known = isGatewayError(error)
    ? error
    : new GatewayError('INTERNAL', 'the gateway made a mistake; its log has the details');
  const kind = kindOf(known);
  const failure: RecordFailure = { kind, code: known.code, message: known.message };
  const { status } = known;
  const again = givenBackMs[known.code];
  const isLate = known.code === 'CALL_DEADLINE_EXCEEDED';
  return {
    last: {
      status,
      reason: isLate ? 'timeout' : known.code,
      isTerminal: kind === 'input',
      ...(known.retryAfterMs !== undefined && { retryAfterMs: known.retryAfterMs }),
    },
    ...{ headers: [], body: emptyBody, failure },
    ...(again !== undefined && { givenBackMs: Math.max(again, known.retryAfterMs ?? 0) }),
  };
}

function headerOf(headers: HeaderPairs, name: string): string | undefined {
  for (let i = 0; i < headers.length; i += 2)
    if (headers[i]!.toLowerCase() === name) return headers[i + 1];
  return undefined;
}
