/** What may be said with a request to the control plane, beside what it is about. */
import type { InvocationOrigin, InvocationState, VersionState } from './api.ts';

export interface ReadOptions {
  signal?: AbortSignal;
}

export interface PutOptions extends ReadOptions {
  /**
   * How long the gateway may wait for the build before it answers, as a duration: `30s`. At most
   * `10m`.
   */
  wait?: string;
}

export interface ListOptions extends ReadOptions {
  /** `key=value` pairs; a function must have them all. */
  labels?: readonly string[];
  state?: VersionState;
  prefix?: string;
  /** Only what this project's manifest has applied. */
  project?: string;
  limit?: number;
  cursor?: string;
}

export interface ResourceListOptions extends ReadOptions {
  project?: string;
  limit?: number;
  /** The name behind which the page begins. */
  cursor?: string;
}

/** Which dead letters: all that are given must fit. */
export interface DeadLetterChoice {
  subscription?: string;
  function?: string;
  cause?: string;
  ids?: readonly string[];
  /** Of the namespace. */
  all?: true;
}

export interface LogOptions extends ReadOptions {
  /** So many of the newest lines. */
  lines?: number;
  /** Only what this invocation wrote. */
  call?: string;
  instance?: string;
  version?: number;
  /** `1h` ago, or a time such as `2026-01-31T12:00:00Z`. */
  since?: string;
}

export interface InvocationOptions extends ReadOptions {
  function?: string;
  version?: number;
  /** `502` or `5xx`. */
  status?: string;
  state?: InvocationState;
  kind?: 'input' | 'function' | 'system';
  origin?: InvocationOrigin;
  /** Began at or after: `1h` ago, or a time. */
  since?: string;
  until?: string;
  /** The beginning of the id. */
  prefix?: string;
  limit?: number;
  cursor?: string;
}

export interface InvokeOptions extends ReadOptions {
  /** POST when there is a body, else GET. */
  method?: string;
  /** What follows the function's name, query included: `/orders?page=2`. */
  path?: string;
  /** An Authorization header given here is sent instead of the client's token. */
  headers?: HeadersInit;
  body?: BodyInit | null;
  version?: number;
  redirect?: RequestRedirect;
}
