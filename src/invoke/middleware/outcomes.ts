/**
 * Notes how each call ended: counts it by function and status, and writes its record. The outermost of all, so that also
 * what other middleware refuses, or takes its time for, is told as the caller saw it.
 */
import type { Clock } from '../../clock.ts';
import {
  failureOf,
  type InvocationRecord,
  kindOf,
  type RecordFailure,
  type RecordState,
  recordLimits,
} from '../../domain/record.ts';
import { GatewayError, isGatewayError } from '../../errors.ts';
import type { CallMetrics } from '../../telemetry/metrics.ts';
import { type Call, type CallSignal, isStream, type Middleware, type Reply } from '../invoke.ts';

export function outcomes(options: {
  clock: Clock;
  metrics: CallMetrics;
  /** Absent where no records are kept. */
  record?: ((record: InvocationRecord) => void) | undefined;
}): Middleware {
  const { clock, metrics, record } = options;
  return next =>
    function withOutcome(call, signal) {
      const startMs = clock.monotonicMs();
      const { namespace, name } = call.version;
      const series = metrics.started(namespace, name);
      return next(call, signal).then(
        reply => {
          const { status, failure, body } = reply;
          const durationMs = clock.monotonicMs() - startMs;
          metrics.ended(
            series,
            status,
            durationMs,
            failure?.reason ?? (reply.threw ? 'threw' : undefined),
          );
          if (record === undefined) return reply;
          if (!isStream(body)) record(recordOf(call, status, durationMs, failureIn(reply)));
          else
            body.onClose(error => {
              const whole = clock.monotonicMs() - startMs;
              const broken = error === undefined ? failureIn(reply) : brokenOff(error, signal);
              record(recordOf(call, status, whole, broken));
            });
          return reply;
        },
        error => {
          const status = isGatewayError(error) ? error.status : 500;
          const durationMs = clock.monotonicMs() - startMs;
          metrics.ended(series, status, durationMs, undefined);
          record?.(recordOf(call, status, durationMs, refused(error)));
          throw error;
        },
      );
    };
}

function recordOf(
  call: Call,
  status: number,
  durationMs: number,
  failure: RecordFailure | undefined,
): InvocationRecord {
  const { id, version, origin, caller, attempt, method, target, instance, parent, label } = call;
  return {
    id,
    subject: version,
    version: version.number,
    status,
    state: stateOf(failure),
    origin,
    caller,
    attempt,
    durationMs,
    method,
    target:
      target.length <= recordLimits.targetCharsMax
        ? target
        : target.slice(0, recordLimits.targetCharsMax),
    // As they are: an object that is made in one piece costs a fraction of one that is put together.
    instance,
    parent,
    label,
    failure,
  };
}

function failureIn({ failure, threw }: Reply): RecordFailure | undefined {
  if (failure !== undefined) return failureOf(failure);
  // It has answered for its handler, whose error is among the lines of the call.
  return threw ? failureOf({ reason: 'threw', message: 'the handler threw' }) : undefined;
}

function stateOf(failure: RecordFailure | undefined): RecordState {
  if (failure === undefined) return 'succeeded';
  return failure.code === 'CALL_CANCELLED' ? 'cancelled' : 'failed';
}

/** Why a call has no answer: what is no GatewayError is a mistake of ours, and its text stays in the log. */
function refused(error: unknown): RecordFailure {
  const known = isGatewayError(error) ? error : new GatewayError('INTERNAL', 'see the log');
  const message = known.message.slice(0, recordLimits.failureCharsMax);
  return { kind: kindOf(known), code: known.code, message };
}

/** Why an answer ended before its end. */
function brokenOff(error: Error, signal: CallSignal): RecordFailure {
  const { reason } = signal;
  if (reason?.code === 'CALL_DEADLINE_EXCEEDED')
    return failureOf({ reason: 'timeout', message: reason.message });
  return refused(reason ?? error);
}
