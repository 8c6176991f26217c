/**
 * `fnway/middleware`: what a module is that stands around every call of a gateway (`fnway serve --middleware FILE`). It
 * runs in the gateway's own process, so it is for those who run the gateway, not for those who write functions.
 */

/** A call on its way to its function. */
export interface MiddlewareCall {
  /** The invocation's id. */
  readonly id: string;
  readonly namespace: string;
  readonly function: string;
  readonly version: number;
  readonly method: string;
  /** Path and query below the function's address; starts with `/`. */
  readonly path: string;
  readonly headers: Headers;
  /** Undefined while it streams: middleware that needs it whole says so (`wholeBodies`). */
  readonly body: Uint8Array | undefined;
  readonly origin: 'http' | 'replay' | 'async' | 'schedule' | 'subscription' | 'webhook' | 'bucket';
  readonly caller: 'anonymous' | 'function-token' | 'admin' | 'trigger';
  /** Milliseconds until the call's timeout. */
  remainingMs(): number;
}

/** What of a call may be changed on its way. */
export interface CallChanges {
  path?: string;
  headers?: HeadersInit;
  body?: Uint8Array | string;
}

export interface MiddlewareReply {
  readonly status: number;
  readonly headers: Headers;
  /** Undefined while it streams. */
  readonly body: Uint8Array | undefined;
  /** Why the function failed; status is then 502 or 504. */
  readonly failure?: { readonly reason: string; readonly message: string };
}

/** An answer of the middleware's own, or another in place of the function's. */
export interface OwnReply {
  status?: number;
  headers?: HeadersInit;
  /** Text and bytes as they are, anything else as JSON. Undefined, of a reply that streams: what it streams. */
  body?: unknown;
}

type Maybe<T> = T | undefined;
type Awaitable<T> = T | Promise<T>;

export interface Middleware {
  /** For errors, and for people. */
  name?: string;
  /** Bodies are collected before a call gets here, and answers before they leave; up to the gateway's limit for both. */
  wholeBodies?: boolean;
  /** Before the function: changes of the call, an answer instead of the function's, or nothing. */
  before?(call: MiddlewareCall): Awaitable<Maybe<{ call: CallChanges } | { reply: OwnReply }>>;
  /** After the function: another answer, or nothing. */
  after?(call: MiddlewareCall, reply: MiddlewareReply): Awaitable<Maybe<OwnReply>>;
  /** Around both: `next` calls the function, with changes where given, at most once. */
  around?(
    call: MiddlewareCall,
    next: (changes?: CallChanges) => Promise<MiddlewareReply>,
  ): Promise<MiddlewareReply | OwnReply>;
}

/** Gives a middleware its types and changes nothing. */
export function defineMiddleware(middleware: Middleware): Middleware {
  return middleware;
}
