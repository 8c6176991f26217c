/**
 * `fnway/function`: what function code may import. Types of both handler styles, `defineFunction` and a logger. The
 * node runtime brings the code itself (runtimes/node/sdk/); this file adds the types.
 */
import * as code from '../runtimes/node/sdk/function.mjs';

/** What a handler gets beside the request. */
export interface Context {
  /** The gateway's id of the call; `X-Call-Id` is the same unless the caller sent one of its own. */
  readonly callId: string;
  readonly function: string;
  readonly namespace: string;
  readonly version: number;
  readonly hostname: string;
  /** Path and query as the client sent them; `request.url` normalises. */
  readonly rawPath: string;
  /** Aborted when the caller leaves or the call's time is up. */
  readonly signal: AbortSignal;
  /** Values of the function's secrets by name; one that is a file is read anew each time. */
  readonly secrets: Readonly<Record<string, string>>;
  /** Milliseconds until the call's timeout. */
  remainingMs(): number;
}

/** Web standard: the default export, or `{ fetch }`. */
export type WebHandler = (request: Request, context: Context) => Response | Promise<Response>;

/** The request of an event-style handler: the export named `handle`. */
export interface Event {
  readonly method: string;
  readonly path: string;
  /** First value of each parameter. */
  readonly query: Record<string, string>;
  /** Names in lower case; repeated ones joined with a comma. */
  readonly headers: Record<string, string>;
  readonly body: Uint8Array;
  text(): string;
  json(): unknown;
}

export interface EventReply {
  /** 200 when absent. */
  statusCode?: number;
  headers?: Record<string, string | string[]> | Array<[string, string]>;
  /** Text and bytes as they are, an iterable is streamed, anything else becomes JSON. */
  body?: unknown;
  isBase64Encoded?: boolean;
}

export type EventHandler = (event: Event, context: Context) => EventReply | unknown;

/** Gives a handler its types and changes nothing. */
export const defineFunction: <T extends WebHandler | EventHandler>(handler: T) => T =
  code.defineFunction;

/** JSON lines on standard output, with severity and fields. */
export const log: Record<
  'info' | 'warn' | 'error',
  (message: string, fields?: Record<string, unknown>) => void
> = code.log;
