/**
 * Bounds the whole call by its version's timeout: until the head 504, after it the answer breaks off. Outside of all
 * middleware that takes time, so that theirs counts. A call that no instance was free for is no failure of the function.
 */
import { formatDuration } from '../../domain/units.ts';
import { GatewayError } from '../../errors.ts';
import type { TimerWheel } from '../../timer-wheel.ts';
import { failedReply, isStream, type Middleware, type Reply } from '../invoke.ts';

export function deadline(wheel: TimerWheel): Middleware {
  return next =>
    function withDeadline(call, signal) {
      const { timeoutMs } = call.version.spec;
      const entry = wheel.after(timeoutMs, () => {
        const within = `within ${formatDuration(timeoutMs)}, the function's timeout`;
        if (call.gathering)
          return signal.abort(
            new GatewayError('REQUEST_TIMED_OUT', `the body did not come ${within}`),
          );
        const what = call.instance === undefined ? 'no instance was free' : 'it did not answer';
        signal.abort(new GatewayError('CALL_DEADLINE_EXCEEDED', `${what} ${within}`));
      });
      call.deadlineMs = entry.dueMs;
      return next(call, signal).then(
        reply => {
          if (isStream(reply.body)) reply.body.onClose(() => wheel.remove(entry));
          else wheel.remove(entry);
          return reply;
        },
        (error): Reply => {
          wheel.remove(entry);
          const { reason } = signal;
          if (error !== reason || reason?.code !== 'CALL_DEADLINE_EXCEEDED') throw error;
          if (call.instance === undefined) throw error;
          return failedReply({ reason: 'timeout', message: reason.message });
        },
      );
    };
}
