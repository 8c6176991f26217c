/**
 * `ANY /function/{name}[.{namespace}][@version][/path]`: from an HTTP request to a Call and from a Reply to an HTTP
 * answer. Who may call is decided before anything is looked up: unknown name, wrong token and no token get the
 * same 401; only the admin token sees that a function does not exist.
 */
import { parseAuthorization, tokensEqual } from '../auth/token.ts';
import type { Clock } from '../clock.ts';
import type { FunctionEntry, Registry } from '../deploy/registry.ts';
import { GatewayError, toProblem } from '../errors.ts';
import { newId, newTraceparent } from '../ids.ts';
import {
  type Body,
  CallSignal,
  failedReply,
  type HeaderPairs,
  type Invoke,
  isStream,
  type Reply,
  type Version,
} from '../invoke/invoke.ts';
import type { Log } from '../log.ts';
import type { Slots } from '../slots.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { type Exchange, headerOf } from './exchange.ts';
import {
  badHeaderValue,
  connectionOptions,
  type Incoming,
  isGatewaysOwn,
  isHeaderName,
  isHopByHop,
  isOurs,
  mediaType,
  readHeaders,
} from './headers.ts';

export interface DataPlaneOptions {
  registry: Registry;
  invoke: Invoke;
  /** A version for a call that pins one. */
  pinned(entry: FunctionEntry, number: number): Promise<Version>;
  adminToken: string;
  /** Believe X-Forwarded-* of whoever connects: a proxy in front sets them. */
  trustProxy: boolean;
  clock: Clock;
  metrics: Metrics;
  log: Log;
  /** Calls that are running, so that a stop can end those that take too long. */
  inFlight: Slots<CallSignal>;
}

const prefix = '/function/';

export function isDataPlane(target: string): boolean {
  return target.startsWith(prefix);
}

interface Address {
  namespace: string;
  name: string;
  version: number | undefined;
  /** Path and query for the function. */
  rest: string;
}

/** Where a request goes. Names are not checked here: what is no name is no function. */
export function parseTarget(target: string): Address {
  let end = prefix.length;
  while (end < target.length) {
    const c = target.charCodeAt(end);
    if (c === 0x2f || c === 0x3f) break;
    end++;
  }
  let name = target.slice(prefix.length, end);
  let version: number | undefined;
  const at = name.indexOf('@');
  if (at !== -1) {
    const text = name.slice(at + 1);
    version = /^[1-9]\d{0,8}$/.test(text) ? Number(text) : Number.NaN;
    name = name.slice(0, at);
  }
  let namespace = 'default';
  const dot = name.indexOf('.');
  if (dot !== -1) {
    namespace = name.slice(dot + 1);
    name = name.slice(0, dot);
  }
  const tail = target.slice(end);
  return { namespace, name, version, rest: tail.charCodeAt(0) === 0x2f ? tail : `/${tail}` };
}

export function createDataPlane(options: DataPlaneOptions): (exchange: Exchange) => void {
  const plane = new DataPlane(options);
  return exchange => plane.serve(exchange);
}

class DataPlane {
  readonly #options: DataPlaneOptions;

  constructor(options: DataPlaneOptions) {
    this.#options = options;
  }

  serve(exchange: Exchange): void {
    try {
      const { target } = exchange;
      if (!isAscii(target)) {
        throw new GatewayError(
          'REQUEST_MALFORMED',
          'the path has a raw byte above 0x7F; percent-encode it',
        );
      }
      const address = parseTarget(target);
      const incoming = readHeaders(exchange.headers);
      const { entry, consumed } = this.#admit(address, incoming);
      if (address.version !== undefined)
        void this.#servePinned(exchange, address, incoming, entry, consumed);
      else if (entry.active !== undefined)
        this.#call(exchange, address, incoming, entry.active, consumed);
      else throw notReady(entry);
    } catch (error) {
      this.#refuse(exchange, error);
    }
  }

  async #servePinned(
    exchange: Exchange,
    address: Address,
    incoming: Incoming,
    entry: FunctionEntry,
    consumed: boolean,
  ): Promise<void> {
    try {
      if (Number.isNaN(address.version))
        throw new GatewayError('VERSION_NOT_FOUND', 'a version is a whole number from 1: NAME@3');
      const version = await this.#options.pinned(entry, address.version!);
      this.#call(exchange, address, incoming, version, consumed);
    } catch (error) {
      this.#refuse(exchange, error);
    }
  }

  #admit(address: Address, incoming: Incoming): { entry: FunctionEntry; consumed: boolean } {
    const { registry, adminToken } = this.#options;
    const entry = registry.get(address.namespace, address.name);
    const token =
      incoming.authorization === undefined ? undefined : parseAuthorization(incoming.authorization);
    const isOpen = entry?.row.settings.auth === 'none';
    // First, for this is what most callers send.
    if (entry !== undefined && !isOpen && token !== undefined && tokensEqual(token, entry.token))
      return { entry, consumed: true };
    const isAdmin = token !== undefined && tokensEqual(token, adminToken);
    // The admin token never reaches a function, also not one that asks for none.
    if (entry !== undefined && (isAdmin || isOpen)) return { entry, consumed: isAdmin };
    if (isAdmin) {
      throw new GatewayError(
        'FUNCTION_NOT_FOUND',
        `there is no function ${address.name} in the namespace ${address.namespace}`,
      );
    }
    throw new GatewayError(
      'UNAUTHENTICATED',
      'this function needs its token, or there is no such function',
    );
  }

  #call(
    exchange: Exchange,
    address: Address,
    incoming: Incoming,
    version: Version,
    consumed: boolean,
  ): void {
    const id = newId('inv', this.#options.clock.now());
    const label = incoming.callId ?? id;
    const headers = this.#headersFor(exchange, incoming, label, consumed);
    const body = exchange.body();
    if (body instanceof Promise) {
      body.then(
        whole => this.#invoke(exchange, address, version, { id, label, headers, body: whole }),
        error => this.#refuse(exchange, error),
      );
    } else this.#invoke(exchange, address, version, { id, label, headers, body });
  }

  #invoke(
    exchange: Exchange,
    address: Address,
    version: Version,
    made: { id: string; label: string; headers: HeaderPairs; body: Body },
  ): void {
    const { inFlight } = this.#options;
    if (inFlight.isFull) {
      const detail = `${inFlight.size} calls are running in this gateway`;
      return this.#refuse(
        exchange,
        new GatewayError('FUNCTION_BUSY', detail, { retryAfterMs: 1000 }),
      );
    }
    const signal = new CallSignal();
    const place = inFlight.add(signal);
    exchange.onGone(() => signal.abort(clientLeft));
    const call = {
      id: made.id,
      version,
      attempt: 1,
      method: exchange.method,
      target: address.rest,
      headers: made.headers,
      body: made.body,
      origin: 'http' as const,
      deadlineMs: Number.POSITIVE_INFINITY,
      gathering: false,
      instance: undefined,
    };
    let reply: Promise<Reply>;
    try {
      reply = this.#options.invoke(call, signal);
    } catch (error) {
      reply = Promise.reject(error);
    }
    reply.then(
      answer => {
        if (isStream(answer.body)) answer.body.onClose(() => inFlight.remove(place));
        else inFlight.remove(place);
        try {
          this.#answer(exchange, answer, made.label);
        } catch (error) {
          // A mistake of ours costs one call, never the gateway.
          if (isStream(answer.body)) answer.body.cancel(error as Error);
          this.#refuse(exchange, error, made.label);
        }
      },
      error => {
        inFlight.remove(place);
        if (isStream(made.body)) made.body.cancel(error as Error);
        this.#refuse(exchange, error, made.label);
      },
    );
  }

  #answer(exchange: Exchange, reply: Reply, label: string): void {
    if (reply.failure !== undefined) return this.#answerFailure(exchange, reply, label);
    const headers: HeaderPairs = [];
    const connection = headerOf(reply.headers, 'connection');
    const named = connection === undefined ? undefined : connectionOptions(connection);
    let isTyped = false;
    let length: string | undefined;
    for (let i = 0; i < reply.headers.length; i += 2) {
      const name = reply.headers[i]!;
      if (isHopByHop(name) || isGatewaysOwn(name)) continue;
      if (named?.has(name.toLowerCase())) continue;
      const value = reply.headers[i + 1]!;
      if (!isHeaderName(name) || badHeaderValue.test(value)) {
        return this.#answerInvalid(exchange, reply, label, `the header ${JSON.stringify(name)}`);
      }
      if (name.length === 14 && name.toLowerCase() === 'content-length') {
        // The length of bytes is counted; of a stream, and for HEAD, only the function can know.
        if (!isStream(reply.body) && (exchange.method !== 'HEAD' || reply.body.length > 0))
          continue;
        if (!/^\d{1,15}$/.test(value) || value === length) continue;
        // Whoever stands between would take one, the client another, and the rest for the next answer.
        if (length !== undefined) return this.#answerInvalid(exchange, reply, label, 'two lengths');
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
    headers.push('X-Call-Id', label);
    exchange.respond({ status: reply.status, headers, body: reply.body });
  }

  #answerInvalid(exchange: Exchange, reply: Reply, label: string, what: string): void {
    if (isStream(reply.body)) reply.body.cancel(brokenHeader);
    const message = `the function answered with what HTTP cannot carry: ${what}`;
    this.#answerFailure(exchange, failedReply({ reason: 'reply-invalid', message }), label);
  }

  #answerFailure(exchange: Exchange, reply: Reply, label: string): void {
    const failure = reply.failure!;
    const code = failure.reason === 'timeout' ? 'CALL_DEADLINE_EXCEEDED' : 'FUNCTION_FAILED';
    const type = failure.type === undefined ? '' : `${failure.type}: `;
    const place =
      failure.file === undefined
        ? ''
        : ` (${failure.file}${failure.line === undefined ? '' : `:${failure.line}`})`;
    const error = new GatewayError(code, `${type}${failure.message}${place}`, {
      ...(failure.log !== undefined && { log: failure.log }),
    });
    this.#send(exchange, { ...toProblem(error, label), reason: failure.reason }, [
      'X-Fnway-Failure',
      failure.reason,
      'X-Call-Id',
      label,
    ]);
  }

  #refuse(exchange: Exchange, error: unknown, label?: string): void {
    const requestId = label ?? newId('req', this.#options.clock.now());
    const problem = toProblem(error, requestId);
    this.#options.metrics.refused(problem.code);
    if (problem.code === 'INTERNAL')
      this.#options.log.error('a request broke the gateway', { requestId, error });
    const headers: HeaderPairs = ['X-Call-Id', requestId];
    if (problem.status === 401) headers.push('WWW-Authenticate', 'Bearer');
    const retryAfterMs = (error as GatewayError).retryAfterMs;
    if (retryAfterMs !== undefined)
      headers.push('Retry-After', String(Math.ceil(retryAfterMs / 1000)));
    this.#send(exchange, problem, headers);
  }

  #send(exchange: Exchange, problem: ReturnType<typeof toProblem>, headers: HeaderPairs): void {
    exchange.respond({
      status: problem.status,
      headers: ['Content-Type', 'application/problem+json', ...headers],
      body: Buffer.from(`${JSON.stringify(problem)}\n`),
    });
  }

  #headersFor(
    exchange: Exchange,
    incoming: Incoming,
    label: string,
    consumed: boolean,
  ): HeaderPairs {
    const { trustProxy } = this.#options;
    const headers: HeaderPairs = [];
    const { pairs, connection } = incoming;
    const named = connection === undefined ? undefined : connectionOptions(connection);
    for (let i = 0; i < pairs.length; i += 2) {
      const name = pairs[i]!;
      if (isOurs(name, trustProxy) || isHopByHop(name)) continue;
      if (consumed && name.length === 13 && name.toLowerCase() === 'authorization') continue;
      if (named?.has(name.toLowerCase())) continue;
      headers.push(name, pairs[i + 1]!);
    }
    const address = exchange.remoteAddress;
    const before = incoming.forwardedFor;
    headers.push('X-Forwarded-For', before === undefined ? address : `${before}, ${address}`);
    if (!trustProxy || incoming.forwardedProto === undefined)
      headers.push('X-Forwarded-Proto', 'http');
    if (!trustProxy || incoming.forwardedHost === undefined)
      headers.push('X-Forwarded-Host', incoming.host ?? '');
    headers.push('X-Call-Id', label, 'Traceparent', incoming.traceparent ?? newTraceparent());
    return headers;
  }
}

function isAscii(text: string): boolean {
  for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) > 0x7f) return false;
  return true;
}

const brokenHeader = new GatewayError(
  'FUNCTION_FAILED',
  'the answer has a header that HTTP cannot carry',
);

const sandbox = 'sandbox allow-scripts allow-forms allow-popups';

const clientLeft = new GatewayError(
  'CALL_CANCELLED',
  'the client left before the answer was complete',
);

function notReady(entry: FunctionEntry): GatewayError {
  return new GatewayError('VERSION_NOT_READY', `no version of ${entry.row.name} is ready yet`, {
    retryAfterMs: 1000,
  });
}
