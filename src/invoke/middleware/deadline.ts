/**
 * Bounds the whole call by its version's timeout: until the head 504, after it the answer breaks off. Outside of all
 * middleware that takes time, so that theirs counts.
 */
import type { Clock } from '../../clock.ts';
import { formatDuration } from '../../domain/units.ts';
import { GatewayError } from '../../errors.ts';
import type { TimerWheel } from '../../timer-wheel.ts';
import { failedReply, isStream, type Middleware, type Reply } from '../invoke.ts';

export function deadline(options: { clock: Clock; wheel: TimerWheel }): Middleware {
  const { clock, wheel } = options;
  return next =>
    function withDeadline(call, signal) {
      const { timeoutMs } = call.version.spec;
      call.deadlineMs = clock.monotonicMs() + timeoutMs;
      const entry = wheel.add(call.deadlineMs, () => {
        const text = `the function did not answer within ${formatDuration(timeoutMs)}`;
        signal.abort(new GatewayError('CALL_DEADLINE_EXCEEDED', text));
      });
      return next(call, signal).then(
        reply => {
          if (isStream(reply.body)) reply.body.onClose(() => wheel.remove(entry));
          else wheel.remove(entry);
          return reply;
        },
        (error): Reply => {
          wheel.remove(entry);
          if (error !== signal.reason || signal.reason?.code !== 'CALL_DEADLINE_EXCEEDED')
            throw error;
          return failedReply({ reason: 'timeout', message: signal.reason.message });
        },
      );
    };
}
