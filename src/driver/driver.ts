/**
 * The driver port: knows how to run one kind of version. A driver does not retry, pool, queue, time out or meter;
 * the core does each of these once. Implementations: process/, http.ts, mock.ts. Suite: contract.ts.
 */
import type { VersionFailure } from '../domain/function.ts';
import type { Call, CallSignal, Reply, Version } from '../invoke/invoke.ts';

export interface Driver {
  /** Whether this driver runs versions of this kind. */
  runs(version: Version): boolean;
  /**
   * Brings up one instance. A mistake of the user's (syntax, missing handler) is a value; what the platform could
   * not do (no process, no runtime) is a GatewayError INSTANCE_NOT_STARTED. Not idempotent: each call makes one.
   */
  start(version: Version): Promise<Started>;
  /** Ends everything it started, at once. Idempotent. */
  close(): Promise<void>;
}

export type Started = { ok: true; instance: Instance } | { ok: false; failure: VersionFailure };

export interface Instance {
  readonly id: string;
  /** False once it has ended: it takes no call any more. */
  readonly alive: boolean;
  /** The handler needs request bodies whole: they may not exceed `bufferedBodyBytesMax`. */
  readonly wholeBodies: boolean;
  /**
   * Runs one call. `done` is called exactly once, when the instance no longer works on it: after the last byte
   * of the reply, or after it has really given up a call that was aborted. Rejects with the signal's reason when
   * that comes before the reply's head; aborted later, the reply's body fails with it. A call that cannot be sent is
   * `done` before this returns.
   */
  invoke(call: Call, signal: CallSignal, done: () => void): Promise<Reply>;
  /** Resolves when it has ended, for whatever reason. */
  readonly exited: Promise<Exit>;
  /**
   * Finishes the calls in flight within `graceMs`, then is killed with all its descendants. Of several graces, the
   * first to be over counts.
   */
  stop(graceMs: number): Promise<Exit>;
}

export interface Exit {
  /** `status 1`, `signal SIGKILL`; undefined when nobody can know. */
  status?: string;
  reason: 'stopped' | 'crashed' | 'out-of-memory';
}
