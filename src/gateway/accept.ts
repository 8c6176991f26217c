/**
 * `POST /async-function/{name}[.{namespace}][@version][/path]`: the call is accepted, and runs later. What cannot become a
 * call is refused here, while its caller listens.
 */
import type { Clock } from '../clock.ts';
import type { FunctionEntry } from '../deploy/registry.ts';
import type { Caller } from '../domain/record.ts';
import { GatewayError } from '../errors.ts';
import { newTraceparent } from '../ids.ts';
import type { Version } from '../invoke/invoke.ts';
import type { Calls, Submission } from '../queue/calls.ts';
import type { CallHead } from '../queue/job-call.ts';
import { type AsyncAsked, readAsyncHeaders } from './async-headers.ts';
import type { Exchange } from './exchange.ts';
import { queuedFunctionOf } from './queued-function.ts';
import type { Reading } from './reading.ts';
import type { WholeBodies } from './whole-bodies.ts';

export interface AcceptOptions {
  calls: Pick<Calls, 'submit'>;
  refuseInput(version: Version, body: Uint8Array): Promise<GatewayError | undefined>;
  /** Throws ADDRESS_REFUSED for what says of itself that it is not public. */
  checkCallback(url: string): void;
  bodies: WholeBodies;
  clock: Clock;
}

export class Accept {
  readonly #options: AcceptOptions;

  constructor(options: AcceptOptions) {
    this.#options = options;
  }

  /** Answers 202 once it is on disk. Throws what it is refused with. */
  async accept(
    exchange: Exchange,
    reading: Reading,
    called: { entry: FunctionEntry; version: Version; caller: Caller },
  ): Promise<void> {
    const { checkCallback, clock } = this.#options;
    const { method, headers } = exchange.head;
    if (method !== 'POST') {
      const detail = `${method} is not for async calls; they take POST`;
      throw new GatewayError('METHOD_NOT_ALLOWED', detail);
    }
    const asked = readAsyncHeaders(headers, clock.now());
    if (asked.callbackUrl !== undefined) checkCallback(asked.callbackUrl);
    await this.#options.bodies.whole(exchange, body =>
      this.#acceptWhole(exchange, reading, called, { asked, body }),
    );
  }

  async #acceptWhole(
    exchange: Exchange,
    reading: Reading,
    { entry, version, caller }: { entry: FunctionEntry; version: Version; caller: Caller },
    { asked, body }: { asked: AsyncAsked; body: Uint8Array },
  ): Promise<void> {
    const { calls, refuseInput } = this.#options;
    const { method } = exchange.head;
    const error = await refuseInput(version, body);
    if (error !== undefined) throw error;
    const { callId, traceparent } = reading.incoming;
    const { dueMs, priority, callbackUrl, idempotencyKey } = asked;
    const head: CallHead = {
      name: entry.row.name,
      method,
      target: reading.address.rest,
      caller,
      headers: reading.headersFor(caller !== 'anonymous'),
      traceparent: traceparent ?? newTraceparent(),
    };
    if (reading.address.version !== undefined) head.version = version.number;
    if (callId !== undefined) head.label = callId;
    if (callbackUrl !== undefined) head.callbackUrl = callbackUrl;
    const submission: Submission = { function: queuedFunctionOf(entry), head, body };
    if (dueMs !== undefined) submission.dueMs = dueMs;
    if (priority !== undefined) submission.priority = priority;
    if (idempotencyKey !== undefined) submission.idempotencyKey = idempotencyKey;
    const { id } = await calls.submit(submission);
    const location = `/v1/namespaces/${entry.row.namespace}/invocations/${id}`;
    exchange.respond({
      status: 202,
      headers: ['Content-Type', 'application/json', 'Location', location],
      mayRepeat: false,
      ownHeaders: ['X-Call-Id', callId ?? id],
      body: Buffer.from(`${JSON.stringify({ id, location })}\n`),
    });
  }
}
