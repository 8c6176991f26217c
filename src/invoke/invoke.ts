/**
 * The waist: everything that runs a function (an HTTP call, a job, later a step) passes through
 * one function type, `Invoke`. Middleware wraps it once for all. Platform trouble is thrown as a GatewayError;
 * a function's own failure is a value in the Reply.
 */
import type { BodyStream } from '../body.ts';
import type { FunctionFailure, FunctionSettings, VersionSpec } from '../domain/function.ts';
import type { Caller, Origin } from '../domain/record.ts';
import type { GatewayError } from '../errors.ts';

/**
 * Header names and values in turn, as they came: repeats and order survive. Whoever has made them may give the same array
 * again for the same headers, so that others need not look at them again: nobody changes an array that is not their own.
 */
export type HeaderPairs = readonly string[];

/**
 * Heads up to this length are remembered, for they may come again. Longer ones rarely do, and are not worth the memory.
 * What is kept of a head that was cut down to this may hold all of its text.
 */
export const rememberedBytesMax = 1024;

export type Body = Uint8Array | BodyStream;

export const emptyBody = new Uint8Array(0);

export function isStream(body: Body): body is BodyStream {
  return !(body instanceof Uint8Array);
}

/** A version as calls, pool and drivers see it. One object per living version: compare by identity. */
export interface Version {
  readonly functionId: string;
  readonly namespace: string;
  readonly name: string;
  readonly number: number;
  readonly spec: VersionSpec;
  /** The function's settings of this moment: they change without a new version. */
  readonly settings: FunctionSettings;
  /** Calls at once in one instance: the settings', else the runtime's. */
  readonly concurrency: number;
  /** What the driver runs; absent for kinds without files. */
  readonly files?: VersionFiles;
}

export interface VersionFiles {
  directory: string;
  /** As to be loaded: after the build, relative to `directory`. */
  entry: string;
  /** The function's own, for what programs keep in a home directory; of all its versions, and of nobody else. */
  home: string;
  identity?: Identity;
  /** What its source has to do with the functions framework; absent: nothing. See build/framework.ts. */
  framework?: 'used' | 'mentioned';
}

/** The user that a function runs as when the gateway is root. */
export interface Identity {
  uid: number;
  gid: number;
}

export interface Call {
  readonly id: string;
  readonly version: Version;
  /** 1 for the first try. */
  readonly attempt: number;
  readonly method: string;
  /** Path and query as received, the function's prefix taken off; starts with `/`. */
  readonly target: string;
  /** The client's and those of its way here; often the array of the call before. */
  readonly headers: HeaderPairs;
  /** Each call's own: X-Call-Id and Traceparent. A driver sends them as well. */
  readonly ownHeaders: HeaderPairs;
  /** Replaced by what was gathered of it, where the handler needs it whole. */
  body: Body;
  readonly origin: Origin;
  readonly caller: Caller;
  /** What the caller named it, where it did. */
  readonly label: string | undefined;
  /** The invocation that this one repeats or belongs to. */
  readonly parent: string | undefined;
  /** Set by the deadline middleware: when the caller stops waiting, on the monotonic clock. */
  deadlineMs: number;
  /** Set by the gather middleware: the body is awaited, and no instance has been asked for. */
  gathering: boolean;
  /** Set by the pool: the instance that was given the call. */
  instance: string | undefined;
}

export interface Reply {
  readonly status: number;
  readonly headers: HeaderPairs;
  readonly body: Body;
  /** Present when the function failed; status is then 502 or 504 and the body empty. */
  readonly failure?: FunctionFailure;
  /** The function threw, and this is its own answer: sent as it is, counted as a failure. */
  readonly threw?: boolean;
}

/** Never throws: whatever goes wrong is in the promise. */
export type Invoke = (call: Call, signal: CallSignal) => Promise<Reply>;
export type Middleware = (next: Invoke) => Invoke;

/** Wraps `terminal` so that the first middleware is the outermost. */
export function compose(middleware: readonly Middleware[], terminal: Invoke): Invoke {
  return middleware.reduceRight<Invoke>((next, wrap) => wrap(next), terminal);
}

/** Runs `fn` once the reply's last byte has been read or given up. */
export function whenReplyEnds(reply: Reply, fn: () => void): void {
  if (isStream(reply.body)) reply.body.onClose(fn);
  else fn();
}

export function failedReply(failure: FunctionFailure): Reply {
  return {
    status: failure.reason === 'timeout' ? 504 : 502,
    headers: [],
    body: emptyBody,
    failure,
  };
}

/**
 * Tells a call in progress that nobody waits for it any more. An AbortSignal costs 1.5 µs a call with one
 * listener, this a tenth; `reason` is a GatewayError: CALL_CANCELLED, CALL_DEADLINE_EXCEEDED or GATEWAY_STOPPING.
 */
export class CallSignal {
  reason: GatewayError | undefined;
  #first: ((reason: GatewayError) => void) | undefined;
  #more: Array<(reason: GatewayError) => void> | undefined;

  get aborted(): boolean {
    return this.reason !== undefined;
  }

  /** Idempotent: the first reason stays. */
  abort(reason: GatewayError): void {
    if (this.reason !== undefined) return;
    this.reason = reason;
    const first = this.#first;
    const more = this.#more;
    this.#first = undefined;
    this.#more = undefined;
    first?.(reason);
    if (more !== undefined) for (const fn of more) fn(reason);
  }

  onAbort(fn: (reason: GatewayError) => void): void {
    if (this.reason !== undefined) fn(this.reason);
    else if (this.#first === undefined) this.#first = fn;
    else if (this.#more === undefined) this.#more = [fn];
    else this.#more.push(fn);
  }
}
