/** What a job of kind `call` has to do, and what came of it: the heads beside their bodies. */
import type { Caller, Origin, RecordFailure } from '../domain/record.ts';
import type { HeaderPairs } from '../invoke/invoke.ts';
import type { Attempt } from './story.ts';

/** What it is about, for people. */
export interface CallAbout {
  name: string;
  method: string;
  target: string;
  caller: Caller;
  /** What the caller named it. */
  label?: string;
  /** What brought it, where it was not a call of `/async-function`. */
  trigger?: { origin: Origin; name: string };
}

export interface CallHead extends CallAbout {
  /** When its first try was due, where that was later than its acceptance. */
  dueMs?: number;
  /** When the caller asked for one. */
  version?: number;
  headers: HeaderPairs;
  traceparent: string;
  callbackUrl?: string;
}

export interface ResultHead {
  /** The input is not kept with the result of what has succeeded. */
  about: CallAbout | undefined;
  /** Every try, the last included. */
  attempts: Attempt[];
  status: number;
  headers: HeaderPairs;
  durationMs: number;
  version?: number;
  /** Why there is no answer of the function. */
  failure?: RecordFailure;
}
