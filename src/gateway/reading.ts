/**
 * What the data plane reads of a request's head: where it goes, what of it is for the gateway, and what of it the
 * function gets. Depends on nothing else, so that it holds for every later request with the same head.
 */
import { GatewayError } from '../errors.ts';
import { type HeaderPairs, rememberedBytesMax } from '../invoke/invoke.ts';
import { type AnswerHead, answerHead } from './answer-head.ts';
import type { RequestHead } from './exchange.ts';
import { connectionOptions, type Incoming, isHopByHop, isOurs, readHeaders } from './headers.ts';
import { type Address, parseTarget } from './target.ts';

export class Reading {
  readonly address: Address;
  readonly incoming: Incoming;
  readonly #head: RequestHead;
  readonly #trustProxy: boolean;
  #headers: HeaderPairs | undefined;
  #withoutAuthorization: HeaderPairs | undefined;
  #answered: { readonly given: HeaderPairs; readonly head: AnswerHead } | undefined;

  /** Throws REQUEST_MALFORMED. `trustProxy`: believe X-Forwarded-* of whoever connects. */
  constructor(head: RequestHead, trustProxy: boolean) {
    if (!isAscii(head.target)) {
      throw new GatewayError(
        'REQUEST_MALFORMED',
        'the path has a raw byte above 0x7F; percent-encode it',
      );
    }
    this.#head = head;
    this.#trustProxy = trustProxy;
    this.address = parseTarget(head.target);
    this.incoming = readHeaders(head.headers);
  }

  /** What the function gets: the client's headers and those about its way here. `consumed`: without Authorization. */
  headersFor(consumed: boolean): HeaderPairs {
    if (consumed) {
      this.#withoutAuthorization ??= this.#passed(true);
      return this.#withoutAuthorization;
    }
    this.#headers ??= this.#passed(false);
    return this.#headers;
  }

  /** As `answerHead`, which need not look again at what the function's last answer to this head had. */
  answerHead(given: HeaderPairs, isCounted: boolean): AnswerHead {
    if (isCounted && given === this.#answered?.given) return this.#answered.head;
    const head = answerHead(given, isCounted);
    if (isCounted) this.#answered = isShort(given) ? { given, head } : undefined;
    return head;
  }

  /** Whether `answerHead` may give this very head again. */
  remembers(head: AnswerHead): boolean {
    return head === this.#answered?.head;
  }

  #passed(consumed: boolean): HeaderPairs {
    const trustProxy = this.#trustProxy;
    const { connection, forwardedFor, forwardedProto, forwardedHost, host } = this.incoming;
    const { headers, remoteAddress } = this.#head;
    const passed: string[] = [];
    const named = connection === undefined ? undefined : connectionOptions(connection);
    for (let i = 0; i < headers.length; i += 2) {
      const name = headers[i]!;
      if (isOurs(name, trustProxy) || isHopByHop(name)) continue;
      if (consumed && name.length === 13 && name.toLowerCase() === 'authorization') continue;
      if (named?.has(name.toLowerCase())) continue;
      passed.push(name, headers[i + 1]!);
    }
    const way = forwardedFor === undefined ? remoteAddress : `${forwardedFor}, ${remoteAddress}`;
    passed.push('X-Forwarded-For', way);
    if (!trustProxy || forwardedProto === undefined) passed.push('X-Forwarded-Proto', 'http');
    if (!trustProxy || forwardedHost === undefined) passed.push('X-Forwarded-Host', host ?? '');
    return passed;
  }
}

function isShort(headers: HeaderPairs): boolean {
  // An empty text takes its place in the array too.
  let length = headers.length;
  for (const text of headers) length += text.length;
  return length <= rememberedBytesMax;
}

function isAscii(text: string): boolean {
  for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) > 0x7f) return false;
  return true;
}
