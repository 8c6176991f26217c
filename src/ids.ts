/**
 * Ids, secrets and randomness: the only place that makes them. Ids are a visible prefix and 26 characters
 * that sort by time: 10 of milliseconds, 16 of randomness (Crockford's base 32).
 */
import { randomBytes, randomFillSync } from 'node:crypto';

export const alphabet = '0123456789abcdefghjkmnpqrstvwxyz';

const textsAtOnce = 128;

/**
 * Randomness as text, for many ids or traces at a time: a call to the generator for each would cost more than all the
 * rest, and a part of a text costs less than putting letters together.
 */
class RandomText {
  readonly #encode: (bytes: Buffer) => string;
  readonly #bytes: Buffer;
  #text = '';
  #offset = 0;

  /** `bytes` of randomness for one text; `encode` makes the letters of all. */
  constructor(bytes: number, encode: (bytes: Buffer) => string) {
    this.#bytes = Buffer.alloc(bytes * textsAtOnce);
    this.#encode = encode;
  }

  take(length: number): string {
    if (this.#offset + length > this.#text.length) {
      this.#text = this.#encode(randomFillSync(this.#bytes));
      this.#offset = 0;
    }
    this.#offset += length;
    return this.#text.slice(this.#offset - length, this.#offset);
  }
}

const idTails = new RandomText(16, bytes => {
  for (let i = 0; i < bytes.length; i++) bytes[i] = alphabet.charCodeAt(bytes[i]! & 31);
  return bytes.toString('latin1');
});
const hexDigits = new RandomText(24, bytes => bytes.toString('hex'));

let lastMs = -1;
let timePrefix = '';

/** A new id. `nowMs` is the caller's clock, so that ids follow a fake clock in tests. */
export function newId(prefix: string, nowMs: number): string {
  if (nowMs !== lastMs) {
    lastMs = nowMs;
    timePrefix = encodeTime(nowMs);
  }
  return `${prefix}_${timePrefix}${idTails.take(16)}`;
}

/** The ten characters behind the prefix of an id that is made at a time. */
export function encodeTime(ms: number): string {
  let rest = ms;
  let text = '';
  for (let i = 0; i < 10; i++) {
    text = alphabet[rest % 32] + text;
    rest = Math.floor(rest / 32);
  }
  return text;
}

/** 256 bits, base64url, behind a visible prefix: for tokens and one-time secrets. */
export function newSecret(prefix: string): string {
  return `${prefix}${randomBytes(32).toString('base64url')}`;
}

/** A W3C `traceparent` of a new trace, sampled. */
export function newTraceparent(): string {
  return `00-${hexDigits.take(32)}-${hexDigits.take(16)}-01`;
}

/** From 0 up to 1, for what need not be secret: jitter. */
export function random(): number {
  return Math.random();
}
