/**
 * What the gateway knows about single headers of requests and answers: which it reads, writes, passes on or takes off.
 * Every header of every call comes through here: lengths are compared before letters.
 */
import { GatewayError } from '../errors.ts';
import type { HeaderPairs } from '../invoke/invoke.ts';

/** What the gateway itself reads of a request's headers, found in one pass. */
export interface Incoming {
  authorization: string | undefined;
  callId: string | undefined;
  connection: string | undefined;
  forwardedFor: string | undefined;
  forwardedHost: string | undefined;
  forwardedProto: string | undefined;
  host: string | undefined;
  traceparent: string | undefined;
}

export function readHeaders(pairs: HeaderPairs): Incoming {
  const incoming: Incoming = {
    authorization: undefined,
    callId: undefined,
    connection: undefined,
    forwardedFor: undefined,
    forwardedHost: undefined,
    forwardedProto: undefined,
    host: undefined,
    traceparent: undefined,
  };
  for (let i = 0; i < pairs.length; i += 2) readHeader(incoming, pairs[i]!, pairs[i + 1]!);
  return incoming;
}

/** Lengths first: most headers of most requests are none of ours, and comparing a number is cheap. */
function readHeader(incoming: Incoming, name: string, value: string): void {
  switch (name.length) {
    case 4:
      if (name.toLowerCase() === 'host') incoming.host = value;
      return;
    case 9:
      if (name.toLowerCase() === 'x-call-id' && isLabel(value)) incoming.callId = value;
      return;
    case 10:
      if (name.toLowerCase() === 'connection' && !isPlainConnection(value))
        incoming.connection = `${incoming.connection ?? ''},${value.toLowerCase()}`;
      return;
    case 11:
      if (name.toLowerCase() === 'traceparent' && isTraceparent(value))
        incoming.traceparent = value;
      return;
    case 13:
      if (name.toLowerCase() !== 'authorization') return;
      // Two of them could be meant for two readers: whoever checks one must not pass on the other.
      if (incoming.authorization !== undefined) {
        throw new GatewayError(
          'REQUEST_MALFORMED',
          'a request has at most one Authorization header',
        );
      }
      incoming.authorization = value;
      return;
    case 15:
      if (name.toLowerCase() === 'x-forwarded-for') {
        incoming.forwardedFor =
          incoming.forwardedFor === undefined ? value : `${incoming.forwardedFor}, ${value}`;
      }
      return;
    case 16:
      if (name.toLowerCase() === 'x-forwarded-host') incoming.forwardedHost = value;
      return;
    case 17:
      if (name.toLowerCase() === 'x-forwarded-proto') incoming.forwardedProto = value;
      return;
    default:
  }
}

function isPlainConnection(value: string): boolean {
  return value === 'keep-alive' || value === 'close' || value === 'Keep-Alive';
}

/** The value of a header, or undefined; the first one where it repeats. */
export function headerOf(headers: HeaderPairs, name: string): string | undefined {
  for (let i = 0; i < headers.length; i += 2) {
    const candidate = headers[i]!;
    if (candidate.length === name.length && candidate.toLowerCase() === name) return headers[i + 1];
  }
  return undefined;
}

/** Headers that the gateway writes anew. */
export function isOurs(name: string, trustProxy: boolean): boolean {
  switch (name.length) {
    case 9:
      return name.toLowerCase() === 'x-call-id';
    case 11:
      return name.toLowerCase() === 'traceparent';
    case 15:
      return name.toLowerCase() === 'x-forwarded-for';
    case 16:
      return !trustProxy && name.toLowerCase() === 'x-forwarded-host';
    case 17:
      return !trustProxy && name.toLowerCase() === 'x-forwarded-proto';
    default:
      return false;
  }
}

/** Headers about one connection only (RFC 9110, 7.6.1), and those that only our HTTP reader may answer. */
export function isHopByHop(name: string): boolean {
  switch (name.length) {
    case 2:
      return name.toLowerCase() === 'te';
    case 6:
      return name.toLowerCase() === 'expect';
    case 7: {
      const lower = name.toLowerCase();
      return lower === 'trailer' || lower === 'upgrade';
    }
    case 10: {
      const lower = name.toLowerCase();
      return lower === 'connection' || lower === 'keep-alive';
    }
    case 16:
      return name.toLowerCase() === 'proxy-connection';
    case 17:
      return name.toLowerCase() === 'transfer-encoding';
    case 18:
      return name.toLowerCase() === 'proxy-authenticate';
    case 19:
      return name.toLowerCase() === 'proxy-authorization';
    default:
      return false;
  }
}

/** The headers, in lower case, that a Connection header takes off a message. */
export function connectionOptions(connection: string): Set<string> {
  const options = new Set<string>();
  for (const option of connection.split(',')) options.add(option.trim().toLowerCase());
  // What frames or addresses the message cannot be taken off by a client's Connection header.
  for (const name of ['host', 'content-length', 'content-type']) options.delete(name);
  return options;
}

/** A caller's own id for a call: printable, short, safe in a log line. */
function isLabel(value: string): boolean {
  return /^[\x21-\x7e]{1,128}$/.test(value);
}

function isTraceparent(value: string): boolean {
  return /^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/.test(value);
}

/** Names that functions have used and that are valid: looking one up is cheaper than checking it. */
const headerNames = new Set<string>();
const headerNamesMax = 500;

export function isHeaderName(name: string): boolean {
  if (headerNames.has(name)) return true;
  if (!/^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(name)) return false;
  if (headerNames.size < headerNamesMax && name.length <= 64) headerNames.add(name);
  return true;
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: exactly what would let a function forge an answer
export const badHeaderValue = /[\0-\x08\x0a-\x1f\x7f\u0100-\uffff]/;
export interface MediaType {
  /** A browser would run it as the gateway's own origin, the console's. */
  isDocument: boolean;
  /** A browser takes it as it is; others, and none, it guesses. */
  isKnown: boolean;
}

/** Types that functions have used: looking one up is cheaper than reading it. */
const mediaTypes = new Map<string, MediaType>();
const mediaTypesMax = 500;

export function mediaType(value: string): MediaType {
  let type = mediaTypes.get(value);
  if (type === undefined) {
    type = { isDocument: isDocument(value), isKnown: isKnown(value) };
    if (mediaTypes.size < mediaTypesMax && value.length <= 64) mediaTypes.set(value, type);
  }
  return type;
}

function isDocument(value: string): boolean {
  // Anywhere, as browsers take the last of several types; and in one pass, as functions choose the text.
  return /text\/(?:html|xml|xsl)|application\/xml|\+xml|multipart\//i.test(value);
}

function isKnown(value: string): boolean {
  if (/^\s?(?:application\/unknown|unknown\/unknown|\*)/i.test(value)) return false;
  return /^\s?[\w!#$&^.+-]+\/[\w!#$&^.+-]+\s?(?:;[^,]*)?$/i.test(value);
}

/** Names that only the gateway may put into an answer. */
export function isGatewaysOwn(name: string): boolean {
  if (name.length === 9) return name.toLowerCase() === 'x-call-id';
  return name.length === 15 && name.toLowerCase() === 'x-fnway-failure';
}
