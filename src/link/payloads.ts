/**
 * What the frames of a link carry: the heads of calls and replies, and problems (docs/reference/link.md). A function is
 * called and answers with the same headers again and again: the last ones are remembered, and not read twice.
 */
import { GatewayError } from '../errors.ts';
import { type HeaderPairs, rememberedBytesMax } from '../invoke/invoke.ts';

/** What LOAD_FAILED and FAIL carry; see docs/reference/link.md. */
export interface LinkProblem {
  reason: string;
  message: string;
  type?: string;
  file?: string;
  line?: number;
  column?: number;
  stack?: string;
}

/** Headers as a CALL carries them. */
export class CallHeaders {
  #last: HeaderPairs = [];
  #text = '';

  /** Each name and value behind a NUL. */
  textOf(headers: HeaderPairs): string {
    if (headers === this.#last) return this.#text;
    const text = headers.length === 0 ? '' : `\0${headers.join('\0')}`;
    if (text.length <= rememberedBytesMax) {
      this.#last = headers;
      this.#text = text;
    }
    return text;
  }
}

export interface ReplyHead {
  readonly status: number;
  readonly headers: HeaderPairs;
  /** The function threw, and its answer says so to the client in its own way. */
  readonly threw: boolean;
}

/** How such an answer ends; the header is the gateway's, and no client gets it from a function. */
const threwEnd = '\0X-Fnway-Failure\0threw';

export class ReplyHeads {
  #last: { readonly text: string; readonly head: ReplyHead } | undefined;

  /** The same object for the same text as before. Throws LINK_PROTOCOL_BROKEN. */
  parse(text: string): ReplyHead {
    if (text === this.#last?.text) return this.#last.head;
    const headers = text.split('\0');
    const status = headers.shift()!;
    if (!/^[2-5]\d\d$/.test(status) || headers.length % 2 !== 0) {
      throw new GatewayError(
        'LINK_PROTOCOL_BROKEN',
        'a REPLY head without a status or with half a header',
      );
    }
    const head = { status: Number(status), headers, threw: text.endsWith(threwEnd) };
    if (text.length <= rememberedBytesMax) this.#last = { text, head };
    return head;
  }
}

export function parseJson(chunk: Buffer, start: number, end: number): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(chunk.toString('utf8', start, end));
    if (value !== null && typeof value === 'object' && !Array.isArray(value))
      return value as Record<string, unknown>;
  } catch {}
  throw new GatewayError('LINK_PROTOCOL_BROKEN', 'a payload that is not a JSON object');
}

/** A function can write on its process's link: nothing is taken for what the runtime would have sent. */
export function parseProblem(chunk: Buffer, start: number, end: number): LinkProblem {
  const value = parseJson(chunk, start, end);
  const { reason, message } = value;
  if (typeof reason !== 'string' || typeof message !== 'string')
    throw new GatewayError('LINK_PROTOCOL_BROKEN', 'a failure without reason and message');
  const problem: LinkProblem = { reason, message };
  for (const key of ['type', 'file', 'stack'] as const) {
    const text = value[key];
    if (typeof text === 'string') problem[key] = text;
    else if (text !== undefined && text !== null) throw notOf(key, 'text');
  }
  for (const key of ['line', 'column'] as const) {
    const number = value[key];
    if (Number.isSafeInteger(number)) problem[key] = number as number;
    else if (number !== undefined && number !== null) throw notOf(key, 'an integer');
  }
  return problem;
}

function notOf(key: string, kind: string): GatewayError {
  return new GatewayError('LINK_PROTOCOL_BROKEN', `the ${key} of a failure is not ${kind}`);
}
