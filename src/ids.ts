/**
 * Ids, secrets and randomness: the only place that makes them. Ids are a visible prefix and 26 characters
 * that sort by time: 10 of milliseconds, 16 of randomness (Crockford's base 32).
 */
import { randomBytes, randomFillSync } from 'node:crypto';

const alphabet = '0123456789abcdefghjkmnpqrstvwxyz';

/** 8 KiB of randomness at a time: a call to the generator per id costs more than the id. */
const pool = new Uint8Array(8192);
let poolOffset = pool.length;

let lastMs = -1;
let timePrefix = '';

/** A new id. `nowMs` is the caller's clock, so that ids follow a fake clock in tests. */
export function newId(prefix: string, nowMs: number): string {
  if (nowMs !== lastMs) {
    lastMs = nowMs;
    timePrefix = encodeTime(nowMs);
  }
  if (poolOffset + 16 > pool.length) {
    randomFillSync(pool);
    poolOffset = 0;
  }
  let tail = '';
  for (let i = 0; i < 16; i++) tail += alphabet[pool[poolOffset++]! & 31];
  return `${prefix}_${timePrefix}${tail}`;
}

function encodeTime(ms: number): string {
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
  if (poolOffset + 24 > pool.length) {
    randomFillSync(pool);
    poolOffset = 0;
  }
  const hex = toHex(24);
  return `00-${hex.slice(0, 32)}-${hex.slice(32)}-01`;
}

const hexPairs = Array.from({ length: 256 }, (_, i) => i.toString(16).padStart(2, '0'));

function toHex(bytes: number): string {
  let text = '';
  for (let i = 0; i < bytes; i++) text += hexPairs[pool[poolOffset++]!];
  return text;
}
