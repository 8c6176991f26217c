/**
 * `POST /async-function/{name}[.{namespace}][@version][/path]`: the call is accepted, and runs later. What cannot become a
 * call is refused here, while its caller listens.
 */
import type { Clock } from '../clock.ts';
import type { FunctionEntry } from '../deploy/registry.ts';
import type { Caller } from '../domain/record.ts';
import { GatewayError } from '../errors.ts';
import { newTraceparent } from '../ids.ts';
import { isStream, type Version } from '../invoke/invoke.ts';
import { contentLengthOf } from '../invoke/middleware/gather.ts';
import type { Calls } from '../queue/calls.ts';
import { type AsyncAsked, readAsyncHeaders } from './async-headers.ts';
import type { Exchange } from './exchange.ts';
import { queuedFunctionOf } from './queued-function.ts';
import type { Reading } from './reading.ts';

export interface AcceptOptions {
  calls: Pick<Calls, 'submit'>;
  refuseInput(version: Version, body: Uint8Array): Promise<GatewayError | undefined>;
  /** Throws ADDRESS_REFUSED for what says of itself that it is not public. */
  checkCallback(url: string): void;
  bufferedBodyBytesMax: number;
  clock: Clock;
}

/** Of bodies that are on their way to be accepted, all together. */
export const acceptingBytesMax = 256 * 1024 ** 2;

export class Accept {
  readonly #options: AcceptOptions;
  #acceptingBytes = 0;

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
    const held = { bytes: 0 };
    try {
      await this.#acceptWhole(exchange, reading, called, { asked, held });
    } finally {
      this.#acceptingBytes -= held.bytes;
    }
  }

  async #acceptWhole(
    exchange: Exchange,
    reading: Reading,
    { entry, version, caller }: { entry: FunctionEntry; version: Version; caller: Caller },
    { asked, held }: { asked: AsyncAsked; held: { bytes: number } },
  ): Promise<void> {
    const { calls, refuseInput } = this.#options;
    const { method } = exchange.head;
    const body = await this.#wholeBody(exchange, held);
    const error = await refuseInput(version, body);
    if (error !== undefined) throw error;
    const { callId, traceparent } = reading.incoming;
    const { dueMs, priority, callbackUrl, idempotencyKey } = asked;
    const { id } = await calls.submit({
      function: queuedFunctionOf(entry),
      head: {
        name: entry.row.name,
        ...(reading.address.version !== undefined && { version: version.number }),
        ...{ method, target: reading.address.rest, caller },
        headers: reading.headersFor(caller !== 'anonymous'),
        ...(callId !== undefined && { label: callId }),
        traceparent: traceparent ?? newTraceparent(),
        ...(callbackUrl !== undefined && { callbackUrl }),
      },
      body,
      ...(dueMs !== undefined && { dueMs }),
      ...(priority !== undefined && { priority }),
      ...(idempotencyKey !== undefined && { idempotencyKey }),
    });
    const location = `/v1/namespaces/${entry.row.namespace}/invocations/${id}`;
    exchange.respond({
      status: 202,
      headers: ['Content-Type', 'application/json', 'Location', location],
      mayRepeat: false,
      ownHeaders: ['X-Call-Id', callId ?? id],
      body: Buffer.from(`${JSON.stringify({ id, location })}\n`),
    });
  }

  /** `held`: what of it is in memory, until it is on disk or refused. */
  async #wholeBody(exchange: Exchange, held: { bytes: number }): Promise<Uint8Array> {
    const { bufferedBodyBytesMax } = this.#options;
    if (contentLengthOf(exchange.head.headers) > bufferedBodyBytesMax)
      throw tooLarge(bufferedBodyBytesMax);
    const given = exchange.body();
    const body = given instanceof Promise ? await given : given;
    if (!isStream(body)) return body;
    const chunks: Uint8Array[] = [];
    for await (const chunk of body) {
      if (held.bytes + chunk.length > bufferedBodyBytesMax) throw tooLarge(bufferedBodyBytesMax);
      if (this.#acceptingBytes + chunk.length > acceptingBytesMax) {
        const detail = 'too many bodies are being read to be accepted';
        throw new GatewayError('FUNCTION_BUSY', detail, { retryAfterMs: 1000 });
      }
      held.bytes += chunk.length;
      this.#acceptingBytes += chunk.length;
      chunks.push(chunk);
    }
    return Buffer.concat(chunks, held.bytes);
  }
}

function tooLarge(bytesMax: number): GatewayError {
  const detail = `an async call is kept whole until it has run, and its body is longer than ${bytesMax} bytes`;
  return new GatewayError('BODY_TOO_LARGE', detail, {
    remedy: 'Send a smaller body, or raise FNWAY_BUFFERED_BODY_BYTES_MAX.',
  });
}
