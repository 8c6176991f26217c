/** Bodies that are needed whole before anything is done with them: each bounded, and all together. */
import { GatewayError } from '../errors.ts';
import { isStream } from '../invoke/invoke.ts';
import { contentLengthOf } from '../invoke/middleware/gather.ts';
import type { Exchange } from './exchange.ts';

/** Of bodies that are on their way to be accepted, all together. */
export const acceptingBytesMax = 256 * 1024 ** 2;

export class WholeBodies {
  readonly #bytesMax: number;
  #acceptingBytes = 0;

  constructor(options: { bufferedBodyBytesMax: number }) {
    this.#bytesMax = options.bufferedBodyBytesMax;
  }

  /** Counted until `use` has resolved: then it is on disk, or refused. Throws BODY_TOO_LARGE and FUNCTION_BUSY. */
  async whole<T>(exchange: Exchange, use: (body: Uint8Array) => Promise<T>): Promise<T> {
    const held = { bytes: 0 };
    try {
      return await use(await this.#read(exchange, held));
    } finally {
      this.#acceptingBytes -= held.bytes;
    }
  }

  async #read(exchange: Exchange, held: { bytes: number }): Promise<Uint8Array> {
    if (contentLengthOf(exchange.head.headers) > this.#bytesMax) throw tooLarge(this.#bytesMax);
    const given = exchange.body();
    const body = given instanceof Promise ? await given : given;
    if (!isStream(body)) return body;
    const chunks: Uint8Array[] = [];
    for await (const chunk of body) {
      if (held.bytes + chunk.length > this.#bytesMax) throw tooLarge(this.#bytesMax);
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
