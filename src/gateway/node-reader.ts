/**
 * The ingress by node:http: reads requests, makes Exchanges of those for the data plane and leaves the rest to
 * the control plane. Owns everything about HTTP framing: limits, timeouts, 100-continue, HEAD, hop-by-hop answers.
 */
import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerOptions,
  type ServerResponse,
  STATUS_CODES,
} from 'node:http';
import type { Socket } from 'node:net';
import { type BodyStream, Drain, PushedBody } from '../body.ts';
import type { Clock, Timer } from '../clock.ts';
import { GatewayError, toProblem } from '../errors.ts';
import { newId } from '../ids.ts';
import { type Body, emptyBody, isStream } from '../invoke/invoke.ts';
import { type Answer, breakOff, type Exchange, type RequestHead, type Serve } from './exchange.ts';
import { headerOf } from './headers.ts';
import { isDataPlane } from './target.ts';

export interface ReaderLimits {
  /** Request line and headers together. */
  headersBytesMax: number;
  /** From the first byte of a request to the end of its headers. */
  headersMsMax: number;
  /** Between two pieces of a body. */
  bodyIdleMsMax: number;
}

export interface NodeReaderOptions {
  serve: Serve;
  control: (request: IncomingMessage, response: ServerResponse) => void;
  limits: ReaderLimits;
  clock: Clock;
  /** The gateway is stopping: connections end with their answer. */
  isDraining: () => boolean;
}

/** Bodies up to this are read whole before the call starts: they travel in the call's first frame. */
export const wholeBodyBytesMax = 65_536;
/** A connection without a request for this long is closed; longer than most proxies keep theirs. */
export const keepAliveMs = 75_000;
/** A streamed body's unread bytes above which the socket is paused. */
const bufferedBytesMax = 262_144;

export function createNodeReader(options: NodeReaderOptions): Server {
  const { limits, serve } = options;
  const server = createServer({
    maxHeaderSize: limits.headersBytesMax,
    headersTimeout: limits.headersMsMax,
    // A body may take as long as it needs, as long as it moves; see bodyIdleMsMax.
    requestTimeout: 0,
    connectionsCheckingInterval: Math.min(1000, limits.headersMsMax),
    keepAliveTimeout: keepAliveMs,
    insecureHTTPParser: false,
    // Ours has words for it.
    requireHostHeader: false,
    // Other offers, such as h2c, may be declined by answering in HTTP/1.1.
    shouldUpgradeCallback: (request: IncomingMessage) =>
      request.headers.upgrade?.toLowerCase() === 'websocket',
    noDelay: true,
    highWaterMark: 65_536,
  } as ServerOptions);
  server.maxHeadersCount = 0;

  function take(
    request: IncomingMessage,
    response: ServerResponse,
    expectsContinue: boolean,
  ): void {
    // Node goes on reading behind a refusal: what stands there may be what the refusal was for.
    if (refused.has(request.socket)) return;
    const problem = ambiguity(request);
    if (problem !== undefined) return refuse(response, problem, options);
    request.url = originForm(request.url!);
    if (isDataPlane(request.url)) {
      return serve(new NodeExchange(request, response, expectsContinue, options));
    }
    if (options.isDraining()) response.setHeader('connection', 'close');
    watchControlBody(request, response, options);
    options.control(request, response);
  }

  server.on('request', (request, response) => take(request, response, false));
  server.on('checkContinue', (request, response) => take(request, response, true));
  server.on('checkExpectation', (request: IncomingMessage, response: ServerResponse) => {
    const what = `the expectation ${request.headers.expect} cannot be met; only 100-continue can`;
    refuse(response, new GatewayError('REQUEST_MALFORMED', what), { ...options, status: 417 });
  });
  server.on('upgrade', (_request, socket: Socket) => {
    const what = 'this gateway does not take connections over for other protocols';
    writeRaw(socket, new GatewayError('UPGRADE_NOT_SUPPORTED', what), options);
  });
  server.on('connect', (_request, socket: Socket) => {
    writeRaw(socket, new GatewayError('METHOD_NOT_ALLOWED', 'CONNECT is for proxies'), options);
  });
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Socket) => {
    if (!socket.writable || error.code === 'ECONNRESET') return void socket.destroy();
    const pending = pendingOf(socket);
    const isItsOwnBody = pending !== undefined && !pending.req.complete;
    if (isItsOwnBody && pending.headersSent) return void socket.destroy();
    if (pending === undefined || isItsOwnBody) {
      return writeRaw(socket, clientProblem(error, limits), options);
    }
    // The call before the garbage has run: its answer comes first.
    refused.add(socket);
    if (pending.headersSent && pending.writableEnded) return void socket.destroySoon();
    pending.once('finish', () => {
      if (error.code === 'HPE_CLOSED_CONNECTION' || pending.shouldKeepAlive === false)
        return void socket.destroySoon();
      writeRaw(socket, clientProblem(error, limits), options);
    });
  });
  return server;
}

/** Connections that end with an answer already given: nothing more of them is served. */
const refused = new WeakSet<Socket>();

/** The answer that Node is about to give on a connection. */
function pendingOf(socket: Socket): ServerResponse | undefined {
  return (socket as { _httpMessage?: ServerResponse })._httpMessage ?? undefined;
}

/** What two parsers could read differently is refused, whoever might be in front of us. */
function ambiguity(request: IncomingMessage): GatewayError | undefined {
  if (request.httpVersion !== '1.1' && request.httpVersion !== '1.0') {
    return new GatewayError(
      'REQUEST_MALFORMED',
      `HTTP/${request.httpVersion} is not spoken here; use HTTP/1.1`,
    );
  }
  let hosts = 0;
  for (let i = 0; i < request.rawHeaders.length; i += 2) {
    if (request.rawHeaders[i]!.toLowerCase() === 'host') hosts++;
  }
  if (hosts > 1 || (hosts === 0 && request.httpVersion === '1.1')) {
    return new GatewayError(
      'REQUEST_MALFORMED',
      `a request has exactly one Host header; this one has ${hosts}`,
    );
  }
  const coding = request.headers['transfer-encoding'];
  if (coding === undefined) return undefined;
  if (request.httpVersion === '1.0' || coding.toLowerCase() !== 'chunked') {
    return new GatewayError(
      'REQUEST_MALFORMED',
      `the transfer coding ${coding} of HTTP/${request.httpVersion} is not taken; send chunked over HTTP/1.1`,
    );
  }
  return undefined;
}

/** `GET http://host/path` is what clients send to proxies; the authority is in Host as well. */
function originForm(target: string): string {
  if (target.startsWith('/')) return target;
  const match = /^https?:\/\/[^/?#]*(.*)$/i.exec(target);
  if (match === null) return target;
  return match[1]!.startsWith('/') ? match[1]! : `/${match[1]}`;
}

/** The control plane's framework waits for a body without end: here the wait is bounded. */
function watchControlBody(
  request: IncomingMessage,
  response: ServerResponse,
  options: NodeReaderOptions,
): void {
  if (!hasBody(request)) return;
  const { bodyIdleMsMax } = options.limits;
  const { socket } = request;
  socket.setTimeout(bodyIdleMsMax);
  // The answer may take as long as it needs: a build, or a log that is quiet.
  request.once('end', () => socket.setTimeout(0));
  request.once('timeout', () => {
    const error = new GatewayError(
      'REQUEST_TIMED_OUT',
      `no byte of the body came for ${bodyIdleMsMax} ms`,
    );
    if (response.headersSent) response.destroy();
    else refuse(response, error, options);
  });
}

function hasBody({ headers }: IncomingMessage): boolean {
  const length = headers['content-length'];
  return headers['transfer-encoding'] !== undefined || (length !== undefined && length !== '0');
}

function clientProblem(error: NodeJS.ErrnoException, limits: ReaderLimits): GatewayError {
  if (error.code === 'HPE_HEADER_OVERFLOW') {
    return new GatewayError(
      'HEADERS_TOO_LARGE',
      `the request line and the headers take more than ${limits.headersBytesMax} bytes`,
    );
  }
  if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT') {
    return new GatewayError(
      'REQUEST_TIMED_OUT',
      `the headers were not complete after ${limits.headersMsMax} ms`,
    );
  }
  return new GatewayError(
    'REQUEST_MALFORMED',
    `this is not a well-formed HTTP/1.1 request: ${error.message}`,
  );
}

/** Answers a client whose request never became one, and closes. */
function writeRaw(socket: Socket, error: GatewayError, options: { clock: Clock }): void {
  const body = JSON.stringify(toProblem(error, newId('req', options.clock.now())));
  socket.on('error', () => {});
  socket.end(
    `HTTP/1.1 ${error.status} ${STATUS_CODES[error.status] ?? error.code}\r\nContent-Type: application/problem+json\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
  // A client that goes on sending must not hold the connection.
  socket.destroySoon();
}

function refuse(
  response: ServerResponse,
  error: GatewayError,
  options: { clock: Clock; status?: number },
): void {
  const status = options.status ?? error.status;
  if (response.socket !== null) refused.add(response.socket);
  const body = JSON.stringify({ ...toProblem(error, newId('req', options.clock.now())), status });
  response.writeHead(status, {
    'content-type': 'application/problem+json',
    'content-length': Buffer.byteLength(body),
    connection: 'close',
  });
  response.end(body);
}

class NodeExchange implements Exchange {
  readonly head: RequestHead;
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #expectsContinue: boolean;
  readonly #options: NodeReaderOptions;

  constructor(
    request: IncomingMessage,
    response: ServerResponse,
    expectsContinue: boolean,
    options: NodeReaderOptions,
  ) {
    this.#request = request;
    this.#response = response;
    this.#expectsContinue = expectsContinue;
    this.#options = options;
    this.head = {
      method: request.method!,
      target: request.url!,
      headers: request.rawHeaders,
      remoteAddress: request.socket.remoteAddress ?? '',
    };
  }

  body(): Body | Promise<Body> {
    if (!hasBody(this.#request)) return emptyBody;
    const length = this.#request.headers['content-length'];
    if (this.#expectsContinue) return this.#streamed(() => this.#response.writeContinue());
    if (length !== undefined && Number(length) <= wholeBodyBytesMax)
      return this.#whole(Number(length));
    return this.#streamed();
  }

  onGone(fn: () => void): void {
    this.#response.once('close', () => {
      if (!this.#response.writableFinished) fn();
    });
  }

  respond({ status, body, ...answer }: Answer): void {
    const response = this.#response;
    const { method } = this.head;
    const headers = [...answer.headers, ...answer.ownHeaders];
    // Half an answer is out already: what comes now cannot be told.
    if (response.headersSent) response.destroy();
    if (response.destroyed) {
      if (isStream(body)) body.cancel(new GatewayError('CALL_CANCELLED', 'the client left'));
      return;
    }
    // A body that nobody reads would hold the connection: it ends with the answer.
    const isUnread = hasBody(this.#request) && !this.#request.complete;
    if (isUnread || this.#options.isDraining()) headers.push('Connection', 'close');
    const bodiless = method === 'HEAD' || status === 204 || status === 304;
    if (!isStream(body)) {
      if (!bodiless || (method === 'HEAD' && body.length > 0))
        headers.push('Content-Length', String(body.length));
      response.writeHead(status, headers);
      response.end(bodiless || body.length === 0 ? undefined : body);
      return;
    }
    response.writeHead(status, headers);
    if (bodiless) {
      body.cancel(new GatewayError('CALL_CANCELLED', 'this answer has no body'));
      response.end();
      return;
    }
    response.flushHeaders();
    const length = headerOf(headers, 'content-length');
    void this.#sendStream(body, length === undefined ? undefined : Number(length));
  }

  async #sendStream(body: BodyStream, length: number | undefined): Promise<void> {
    const response = this.#response;
    // Ends with the body: a client that does not read holds a call no longer than its function may take.
    const drain = new Drain(response, body);
    let left = length ?? Number.POSITIVE_INFINITY;
    try {
      for await (const chunk of body) {
        if (response.destroyed) return;
        left -= chunk.length;
        if (left < 0) break;
        if (!response.write(chunk)) await drain.wait();
      }
      if (length === undefined || left === 0) return void response.end();
    } catch {
      // Told below.
    }
    // The head is out: an answer that breaks off, or is not as long as it said, must be seen as broken.
    if (response.socket === null) response.destroy();
    else breakOff(response.socket);
  }

  #whole(length: number): Promise<Body> {
    const request = this.#request;
    return new Promise((resolve, reject) => {
      const idle = this.#watchIdle(() => reject(this.#tooSlow()));
      let first: Buffer | undefined;
      let rest: Buffer[] | undefined;
      request.on('data', (chunk: Buffer) => {
        idle.moved();
        if (first === undefined) first = chunk;
        else if (rest === undefined) rest = [first, chunk];
        else rest.push(chunk);
      });
      request.once('end', () => {
        idle.stop();
        resolve(rest !== undefined ? Buffer.concat(rest, length) : (first ?? emptyBody));
      });
      request.once('error', cause => {
        idle.stop();
        reject(new GatewayError('CALL_CANCELLED', 'the client left', { cause }));
      });
    });
  }

  /** With `ask`, the body comes when it was called. */
  #streamed(ask?: () => void): BodyStream {
    const request = this.#request;
    let buffered = 0;
    const idle = this.#watchIdle(() => body.fail(this.#tooSlow()));
    const body = new PushedBody({
      onRead(bytes) {
        buffered -= bytes;
        if (buffered < bufferedBytesMax && request.isPaused()) {
          idle.moved();
          request.resume();
        }
      },
      // The connection is needed for the answer; what still comes is dropped.
      onCancel: () => request.resume(),
    });
    request.on('data', (chunk: Buffer) => {
      idle.moved();
      buffered += chunk.length;
      body.push(chunk);
      if (buffered >= bufferedBytesMax) {
        idle.rest();
        request.pause();
      }
    });
    request.once('end', () => body.end());
    request.once('error', error =>
      body.fail(new GatewayError('CALL_CANCELLED', 'the client left', { cause: error })),
    );
    body.onClose(() => {
      idle.stop();
      if (!request.complete) {
        request.removeAllListeners('data');
        request.resume();
      }
    });
    if (ask === undefined) return body;
    // Nobody is late before it was asked.
    idle.rest();
    return new BodyOnRequest(body, () => {
      idle.moved();
      ask();
    });
  }

  #tooSlow(): GatewayError {
    return new GatewayError(
      'REQUEST_TIMED_OUT',
      `no byte of the body came for ${this.#options.limits.bodyIdleMsMax} ms`,
    );
  }

  /** Fires when nothing moved for too long. One timer per body, re-armed when it fires early. */
  #watchIdle(onIdle: () => void): { moved(): void; rest(): void; stop(): void } {
    const { clock, limits } = this.#options;
    let lastMs = clock.monotonicMs();
    let resting = false;
    let timer: Timer | undefined = clock.after(limits.bodyIdleMsMax, check, { unref: true });
    function check(): void {
      const leftMs = lastMs + limits.bodyIdleMsMax - clock.monotonicMs();
      if (!resting && leftMs <= 0) return onIdle();
      timer = clock.after(resting ? limits.bodyIdleMsMax : Math.max(1, leftMs), check, {
        unref: true,
      });
    }
    return {
      moved() {
        lastMs = clock.monotonicMs();
        resting = false;
      },
      rest() {
        resting = true;
      },
      stop() {
        timer?.cancel();
        timer = undefined;
      },
    };
  }
}

/** A body that the client sends only when asked: it is asked when somebody begins to read. */
class BodyOnRequest implements BodyStream {
  readonly #body: BodyStream;
  readonly #ask: () => void;

  constructor(body: BodyStream, ask: () => void) {
    this.#body = body;
    this.#ask = ask;
  }

  cancel(reason: Error): void {
    this.#body.cancel(reason);
  }

  onClose(fn: () => void): void {
    this.#body.onClose(fn);
  }

  [Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
    this.#ask();
    return this.#body[Symbol.asyncIterator]();
  }
}
