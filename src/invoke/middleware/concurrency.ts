/**
 * Admits as many calls of a version as its instances can run plus a bounded number that waits; refuses the rest
 * at once with FUNCTION_BUSY, before anything is spent on them.
 */
import { GatewayError } from '../../errors.ts';
import { type Middleware, type Reply, type Version, whenReplyEnds } from '../invoke.ts';

export function concurrency(options: { waitingCallsMax: number }): Middleware {
  // Counters stay with their version: deleting and adding entries at every call would cost the collector.
  const counters = new WeakMap<Version, { inFlight: number }>();

  function counterOf(version: Version): { inFlight: number } {
    let counter = counters.get(version);
    if (counter === undefined) {
      counter = { inFlight: 0 };
      counters.set(version, counter);
    }
    return counter;
  }

  return next =>
    function withConcurrency(call, signal) {
      const { version } = call;
      const counter = counterOf(version);
      const capacity = version.settings.instances.max * version.concurrency;
      if (counter.inFlight >= capacity + options.waitingCallsMax) {
        const detail = `${counter.inFlight} calls are under way: ${capacity} that all its instances can run, and ${options.waitingCallsMax} that may wait`;
        return Promise.reject(new GatewayError('FUNCTION_BUSY', detail, { retryAfterMs: 1000 }));
      }
      counter.inFlight++;
      let reply: Promise<Reply>;
      try {
        reply = next(call, signal);
      } catch (error) {
        // No step throws; one that did would take a place for good.
        reply = Promise.reject(error);
      }
      return reply.then(
        reply => {
          whenReplyEnds(reply, () => {
            counter.inFlight--;
          });
          return reply;
        },
        error => {
          counter.inFlight--;
          throw error;
        },
      );
    };
}
