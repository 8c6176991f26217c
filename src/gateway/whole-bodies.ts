/** Bodies that are needed whole before anything is done with them: each bounded, and all together. */
import { GatewayError } from '../errors.ts';
import { isStream } from '../invoke/invoke.ts';
import { contentLengthOf } from '../invoke/middleware/gather.ts';
import type { Exchange } from './exchange.ts';

/** Of bodies that are on their way to be accepted, all together. */
export const acceptingBytesMax = 256 * 1024 ** 2;
/** The same of webhooks: apart, for whoever sends them is known only when they are whole. */
export const webhookBytesMax = 64 * 1024 ** 2;

export class WholeBodies {
  readonly #what: string;
  readonly #bytesMax: number;
  readonly #allBytesMax: number;
  #acceptingBytes = 0;

  /** `what` is accepted, for messages. */
  constructor(what: string, options: { bufferedBodyBytesMax: number; allBytesMax: number }) {
    this.#what = what;
    this.#bytesMax = options.bufferedBodyBytesMax;
    this.#allBytesMax = options.allBytesMax;
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
    if (contentLengthOf(exchange.head.headers) > this.#bytesMax) throw this.#tooLarge();
    const given = exchange.body();
    const body = given instanceof Promise ? await given : given;
    if (!isStream(body)) return body;
    const chunks: Uint8Array[] = [];
    for await (const chunk of body) {
      if (held.bytes + chunk.length > this.#bytesMax) throw this.#tooLarge();
      if (this.#acceptingBytes + chunk.length > this.#allBytesMax) {
        const detail = `too many bodies of ${this.#what}s are being read to be accepted`;
        throw new GatewayError('FUNCTION_BUSY', detail, { retryAfterMs: 1000 });
      }
      held.bytes += chunk.length;
      this.#acceptingBytes += chunk.length;
      chunks.push(chunk);
    }
    return Buffer.concat(chunks, held.bytes);
  }

  #tooLarge(): GatewayError {
    const detail = `the body of this ${this.#what} is longer than ${this.#bytesMax} bytes, and is kept whole until it has run`;
    return new GatewayError('BODY_TOO_LARGE', detail, {
      remedy: 'Send a smaller body, or raise FNWAY_BUFFERED_BODY_BYTES_MAX.',
    });
  }
}
