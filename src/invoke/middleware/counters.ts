/** Counts calls by function and status, and how long they take to their reply's head. */
import type { Clock } from '../../clock.ts';
import { isGatewayError } from '../../errors.ts';
import type { CallMetrics } from '../../telemetry/metrics.ts';
import type { Middleware } from '../invoke.ts';

export function counters(options: { clock: Clock; metrics: CallMetrics }): Middleware {
  const { clock, metrics } = options;
  return next =>
    function withCounters(call, signal) {
      const startMs = clock.monotonicMs();
      const { namespace, name } = call.version;
      const series = metrics.started(namespace, name);
      return next(call, signal).then(
        reply => {
          metrics.ended(series, reply.status, clock.monotonicMs() - startMs, reply.failure?.reason);
          return reply;
        },
        error => {
          const status = isGatewayError(error) ? error.status : 500;
          metrics.ended(series, status, clock.monotonicMs() - startMs, undefined);
          throw error;
        },
      );
    };
}
