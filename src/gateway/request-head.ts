/**
 * The heads that the fast reader takes: a strict subset of HTTP/1.1 in which a message's length is beyond doubt. Whatever
 * is outside of it is not refused here but left to node:http. Pure but for a bounded memory of header names.
 */
import type { HeaderPairs } from '../invoke/invoke.ts';
import { isDataPlane } from './target.ts';

/** What the text of such a head says. */
export interface PlainHead {
  method: string;
  target: string;
  headers: HeaderPairs;
  bodyBytes: number;
}

const methods = new Set(['GET', 'POST', 'PUT', 'DELETE', 'PATCH', 'HEAD', 'OPTIONS']);

/**
 * A head of the subset: GET, POST, … of a data-plane path in ASCII, HTTP/1.1, one Host, at most one Content-Length
 * within the limit, no transfer coding, no expectation, no upgrade, a connection that is kept. Undefined: not that.
 */
export function parseHead(text: string, bodyBytesMax: number): PlainHead | undefined {
  const lines = text.split('\r\n');
  const first = lines[0]!;
  const space = first.indexOf(' ');
  const method = first.slice(0, space);
  const target = first.slice(space + 1, -9);
  if (
    !methods.has(method) ||
    !first.endsWith(' HTTP/1.1') ||
    !isDataPlane(target) ||
    badTarget.test(target)
  )
    return undefined;
  const headers: string[] = [];
  let hasHost = false;
  let bodyBytes = -1;
  for (let i = 1; i < lines.length; i++) {
    const line = lines[i]!;
    const colon = line.indexOf(':');
    if (colon <= 0 || badValue.test(line)) return undefined;
    const name = line.slice(0, colon);
    const kind = kindOf(name);
    const value = trimSpace(line, colon + 1);
    if (kind === 'other') headers.push(name, value);
    else if (kind === 'bad' || kind === 'unusual') return undefined;
    else if (kind === 'host') {
      if (hasHost) return undefined;
      hasHost = true;
      headers.push(name, value);
    } else if (kind === 'connection') {
      if (value !== 'keep-alive' && value !== 'Keep-Alive') return undefined;
    } else {
      if (bodyBytes !== -1 || !/^\d{1,9}$/.test(value)) return undefined;
      bodyBytes = Number(value);
      if (bodyBytes > bodyBytesMax) return undefined;
      headers.push(name, value);
    }
  }
  return hasHost ? { method, target, headers, bodyBytes: Math.max(0, bodyBytes) } : undefined;
}

/** Without the optional white space around a value: spaces and tabs, not what Unicode calls space. */
function trimSpace(line: string, from: number): string {
  let start = from;
  let end = line.length;
  while (start < end && isSpace(line.charCodeAt(start))) start++;
  while (end > start && isSpace(line.charCodeAt(end - 1))) end--;
  return line.slice(start, end);
}

function isSpace(code: number): boolean {
  return code === 0x20 || code === 0x09;
}

const badTarget = /[^\x21-\x7e]/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: exactly what a header line may not hold
const badValue = /[\0-\x08\x0a-\x1f\x7f]/;
const token = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;

type Kind = 'other' | 'bad' | 'unusual' | 'host' | 'connection' | 'length';

/** Clients send the same few names: looking one up costs a tenth of checking it. Bounded, since clients choose them. */
const kinds = new Map<string, Kind>();
const kindsMax = 500;

function kindOf(name: string): Kind {
  const known = kinds.get(name);
  if (known !== undefined) return known;
  const kind = classify(name);
  if (kinds.size < kindsMax && name.length <= 64) kinds.set(name, kind);
  return kind;
}

function classify(name: string): Kind {
  if (!token.test(name)) return 'bad';
  switch (name.toLowerCase()) {
    case 'host':
      return 'host';
    case 'connection':
      return 'connection';
    case 'content-length':
      return 'length';
    case 'transfer-encoding':
    case 'expect':
    case 'upgrade':
    case 'trailer':
    case 'te':
    case 'http2-settings':
    case 'proxy-connection':
    case 'keep-alive':
      return 'unusual';
    default:
      return 'other';
  }
}
