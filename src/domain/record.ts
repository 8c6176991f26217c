/**
 * What is remembered of an invocation, and how its failure is told: whose fault it was. Pure.
 */
import type { InvocationFailure } from '../../client/api.ts';
import { errorKinds, type GatewayError } from '../errors.ts';
import { alphabet } from '../ids.ts';
import type { FunctionFailure } from './function.ts';

/** Whose fault a failure is: the caller's, the function's or the platform's. */
export const failureKinds = ['input', 'function', 'system'] as const;
export type FailureKind = (typeof failureKinds)[number];

/** `cancelled`: nobody waited for the end. Whatever status a function answers with, it has succeeded in answering. */
export const recordStates = ['succeeded', 'failed', 'cancelled'] as const;
export type RecordState = (typeof recordStates)[number];

/** New ones behind the others: records know them by their number. */
export const origins = [
  ...(['http', 'replay', 'async'] as const),
  ...(['schedule', 'subscription', 'webhook', 'bucket'] as const),
] as const;
export type Origin = (typeof origins)[number];

/** `trigger`: nobody, it was time or something happened. New ones behind the others. */
export const callers = ['anonymous', 'function-token', 'admin', 'trigger'] as const;
export type Caller = (typeof callers)[number];

/** Which function something is about. A Version of the waist is one. */
export interface RecordSubject {
  readonly functionId: string;
  readonly namespace: string;
  readonly name: string;
}

/** As it is told: a code of the gateway, FUNCTION_FAILED or CALL_DEADLINE_EXCEEDED for the function's own. */
export type RecordFailure = InvocationFailure;

/** One invocation, when it has ended. */
export interface InvocationRecord {
  /** `inv_…`: begins with the time at which it began. */
  id: string;
  subject: RecordSubject;
  version: number;
  /** As its caller saw it. */
  status: number;
  state: RecordState;
  origin: Origin;
  caller: Caller;
  attempt: number;
  durationMs: number;
  method: string;
  /** Path and query below the function's address, cut to `recordLimits.targetCharsMax`. */
  target: string;
  instance?: string | undefined;
  /** The invocation that this one repeats or belongs to. */
  parent?: string | undefined;
  /** What the caller named it, in X-Call-Id. */
  label?: string | undefined;
  failure?: RecordFailure | undefined;
}

/** One line that an instance wrote. */
export interface LogLine {
  subject: RecordSubject;
  timeMs: number;
  version: number;
  instance: string;
  stream: 'stdout' | 'stderr';
  /** The invocation that wrote it; absent when only the instance is known. */
  call?: string;
  text: string;
}

export const recordLimits = {
  targetCharsMax: 1024,
  /** Of a failure's message and stack, each. */
  failureCharsMax: 8192,
  /** Of input and output, each; longer ones are not kept. */
  recordedBodyBytesMax: 1024 ** 2,
  /** Of all calls that run together: beyond, those of a call are not kept, and counted as dropped. */
  copiedBodiesBytesMax: 64 * 1024 ** 2,
} as const;

const timeChars = 10;
/** Of a character's code: its value as a digit of an id, or -1. */
const digitOf = new Int8Array(128).fill(-1);
for (const [value, digit] of [...alphabet].entries()) digitOf[digit.charCodeAt(0)] = value;

/** Milliseconds since the epoch at which an id was made; undefined when it is none of ours. */
export function timeOfId(id: string): number | undefined {
  const start = id.indexOf('_') + 1;
  if (start < 2) return undefined;
  let ms = 0;
  for (let i = start; i < start + timeChars; i++) {
    const digit = digitOf[id.charCodeAt(i)];
    if (digit === undefined || digit < 0) return undefined;
    ms = ms * 32 + digit;
  }
  return ms;
}

/** The same of an invocation's id that stands as Latin-1 in these bytes. */
export function timeOfIdBytes(bytes: Uint8Array, at: number): number {
  let ms = 0;
  for (let i = at + 4; i < at + 4 + timeChars; i++) ms = ms * 32 + digitOf[bytes[i]! & 127]!;
  return ms;
}

/** First and last millisecond at which an id could have been made that begins so; undefined when none does. */
export function timesOfPrefix(prefix: string): { fromMs: number; toMs: number } | undefined {
  const match = /^inv_([0-9a-hjkmnp-tv-z]{0,26})$/.exec(prefix);
  if (match === null) return undefined;
  const text = match[1]!.slice(0, 10);
  const timeOf = (digits: string) => timeOfId(`inv_${digits}`)!;
  return { fromMs: timeOf(text.padEnd(timeChars, '0')), toMs: timeOf(text.padEnd(timeChars, 'z')) };
}

/**
 * Whose fault it is that a call was refused or given up: what the caller sent is `input`, all else the platform's. (That
 * too many calls came at once is not what one of them said.)
 */
export function kindOf({ code }: GatewayError): FailureKind {
  // An answer that its function broke off.
  if (code === 'FUNCTION_FAILED') return 'function';
  const { status } = errorKinds[code];
  return status >= 400 && status < 500 && status !== 429 ? 'input' : 'system';
}

/** A function's own failure as its record tells it. */
export function failureOf(failure: FunctionFailure): RecordFailure {
  const { reason, message, stack, log: _, ...rest } = failure;
  return {
    kind: 'function',
    code: reason === 'timeout' ? 'CALL_DEADLINE_EXCEEDED' : 'FUNCTION_FAILED',
    reason,
    message: message.slice(0, recordLimits.failureCharsMax),
    ...(stack !== undefined && { stack: stack.slice(0, recordLimits.failureCharsMax) }),
    ...rest,
  };
}
