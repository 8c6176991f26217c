/**
 * Admits as many calls of a version as its instances can run plus a bounded number that waits; refuses the rest
 * at once with FUNCTION_BUSY, before anything is spent on them.
 */
import { GatewayError } from '../../errors.ts';
import { type Middleware, type Version, whenReplyEnds } from '../invoke.ts';

export function concurrency(options: { waitingCallsMax: number }): Middleware {
  const inFlight = new Map<Version, number>();

  function leave(version: Version): void {
    const left = inFlight.get(version)! - 1;
    if (left === 0) inFlight.delete(version);
    else inFlight.set(version, left);
  }

  return next =>
    function withConcurrency(call, signal) {
      const { version } = call;
      const now = inFlight.get(version) ?? 0;
      const capacity = version.settings.instances.max * version.concurrency;
      if (now >= capacity + options.waitingCallsMax) {
        const detail = `${capacity} calls run and ${options.waitingCallsMax} wait already`;
        return Promise.reject(new GatewayError('FUNCTION_BUSY', detail, { retryAfterMs: 1000 }));
      }
      inFlight.set(version, now + 1);
      return next(call, signal).then(
        reply => {
          whenReplyEnds(reply, () => leave(version));
          return reply;
        },
        error => {
          leave(version);
          throw error;
        },
      );
    };
}
