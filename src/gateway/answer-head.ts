/** What of a function's headers goes to the client: pure, and the same for the same headers. */
import type { HeaderPairs } from '../invoke/invoke.ts';
import {
  badHeaderValue,
  connectionOptions,
  headerOf,
  isGatewaysOwn,
  isHeaderName,
  isHopByHop,
  mediaType,
} from './headers.ts';

export type AnswerHead = { headers: HeaderPairs } | { invalid: string };

/**
 * `isCounted`: the gateway has the body whole and counts its bytes; of a stream, and for HEAD, only the function can know
 * the length. `invalid` says what HTTP cannot carry.
 */
export function answerHead(given: HeaderPairs, isCounted: boolean): AnswerHead {
  const headers: string[] = [];
  const connection = headerOf(given, 'connection');
  const named = connection === undefined ? undefined : connectionOptions(connection);
  let isTyped = false;
  let length: string | undefined;
  for (let i = 0; i < given.length; i += 2) {
    const name = given[i]!;
    if (isHopByHop(name) || isGatewaysOwn(name)) continue;
    if (named?.has(name.toLowerCase())) continue;
    const value = given[i + 1]!;
    if (!isHeaderName(name) || badHeaderValue.test(value))
      return { invalid: `the header ${JSON.stringify(name)}` };
    if (name.length === 14 && name.toLowerCase() === 'content-length') {
      if (isCounted || !/^\d{1,15}$/.test(value) || value === length) continue;
      // Whoever stands between would take one, the client another, and the rest for the next answer.
      if (length !== undefined) return { invalid: 'two lengths' };
      length = value;
    } else if (name.length === 12 && name.toLowerCase() === 'content-type') {
      const type = mediaType(value);
      isTyped = type.isKnown;
      if (type.isDocument) headers.push('Content-Security-Policy', sandbox);
    }
    headers.push(name, value);
  }
  // Without a type that it knows a browser would guess one, and might guess a document.
  if (!isTyped) headers.push('X-Content-Type-Options', 'nosniff');
  return { headers };
}

const sandbox = 'sandbox allow-scripts allow-forms allow-popups';
