/**
 * The fast ingress: reads the plain majority of data-plane requests itself, and hands the connection to the node:http
 * reader at the first request that is anything else. Strict by construction: it accepts a small subset of HTTP/1.1 in
 * which a message's length is beyond doubt, and refuses nothing; what it does not accept, Node's parser judges. So it
 * never answers an error of its own, and there is nothing to smuggle between the two.
 *
 * A connection:  idle → reading (a body of known length) → busy → flushing (the client is slow to take it) → idle …
 *                any of the first two → handed over, for good
 */

import { STATUS_CODES } from 'node:http';
import { createServer, type Server, type Socket } from 'node:net';
import { type BodyStream, Drain } from '../body.ts';
import type { Clock, Timer } from '../clock.ts';
import { GatewayError } from '../errors.ts';
import {
  type Body,
  emptyBody,
  type HeaderPairs,
  isStream,
  rememberedBytesMax,
} from '../invoke/invoke.ts';
import { type Answer, breakOff, type Exchange, type RequestHead, type Serve } from './exchange.ts';
import { parseHead } from './request-head.ts';

export interface FastReaderOptions {
  serve: Serve;
  /** Takes over a connection; its unread bytes have been put back. */
  handOver: (socket: Socket) => void;
  /** Bodies up to this are read here. */
  bodyBytesMax: number;
  headersBytesMax: number;
  /** A connection without a request for this long is closed. */
  idleMsMax: number;
  clock: Clock;
}

export interface FastReader {
  readonly server: Server;
  /** Closes connections without a request; those with one close after its answer. */
  drain(): void;
  destroy(): void;
}

const headEnd = Buffer.from('\r\n\r\n');
/** How often connections are looked at; also how long a body may pause here. */
const sweepMs = 500;
/** Pipelined bytes that may wait while a call runs. */
const waitingBytesMax = 65_536;

export function createFastReader(options: FastReaderOptions): FastReader {
  const connections = new Set<Connection>();
  const shared: Shared = {
    ...options,
    slab: new Slab(),
    date: new DateHeader(options.clock),
    connections,
    draining: false,
    sweepDueMs: options.clock.monotonicMs() + sweepMs,
  };
  // Open after the client's end, so that a request that is read can be handed over; its call is cancelled, as with
  // node:http and nginx: a client that has left looks the same.
  const server = createServer({ allowHalfOpen: true, noDelay: true }, socket => {
    connections.add(new Connection(socket, shared));
  });
  let timer: Timer | undefined = options.clock.after(sweepMs, sweep, { unref: true });
  function sweep(): void {
    const nowMs = options.clock.monotonicMs();
    shared.sweepDueMs = nowMs + sweepMs;
    for (const connection of connections) {
      connection.closeIfIdleSince(nowMs - options.idleMsMax);
      connection.closeIfStuckSince(nowMs - options.idleMsMax);
      connection.handOverIfSlowSince(nowMs - sweepMs);
    }
    timer = options.clock.after(sweepMs, sweep, { unref: true });
  }
  return {
    server,
    drain() {
      shared.draining = true;
      timer?.cancel();
      for (const connection of [...connections])
        connection.closeIfIdleSince(Number.POSITIVE_INFINITY);
    },
    destroy() {
      for (const connection of [...connections]) connection.destroy();
    },
  };
}

interface Shared extends FastReaderOptions {
  slab: Slab;
  date: DateHeader;
  connections: Set<Connection>;
  draining: boolean;
  /** When connections are looked at next: taken for now by those that begin to wait. Half a second in a minute, for no clock. */
  sweepDueMs: number;
}

class Connection {
  readonly #socket: Socket;
  readonly #shared: Shared;
  #state: 'idle' | 'reading' | 'busy' | 'flushing' | 'over' = 'idle';
  /** Bytes that have come and belong to no request yet. */
  #waiting: Buffer[] = [];
  #waitingBytes = 0;
  #head: FastHead | undefined;
  /** The last head and its text, with its end: most clients that keep a connection send the same again. */
  #lastHead: FastHead | undefined;
  #lastText = '';
  /** All of the request that is being read, for the case that it is handed over. */
  #pieces: Buffer[] = [];
  #missing = 0;
  #looping = false;
  #sinceMs: number;
  #exchange: FastExchange | undefined;
  readonly answerHeaders = new AnswerHeaders();
  readonly #onData = (chunk: Buffer) => this.#receive(chunk);
  readonly #onEnd = () => this.#clientEnded();
  readonly #onClose = () => this.#closed();
  readonly #onError = () => this.#socket.destroy();

  constructor(socket: Socket, shared: Shared) {
    this.#socket = socket;
    this.#shared = shared;
    this.#sinceMs = shared.clock.monotonicMs();
    socket.on('data', this.#onData);
    socket.on('end', this.#onEnd);
    socket.on('close', this.#onClose);
    socket.on('error', this.#onError);
  }

  closeIfIdleSince(ms: number): void {
    if (this.#state === 'idle' && this.#sinceMs <= ms) this.#socket.destroy();
  }

  /** A client that takes nothing of its answer for long will not. */
  closeIfStuckSince(ms: number): void {
    if (this.#state === 'flushing' && this.#sinceMs <= ms) this.#socket.destroy();
  }

  /** A body that comes slowly is for the other reader, which knows for how long and what to say then. */
  handOverIfSlowSince(ms: number): void {
    if (this.#state === 'reading' && this.#sinceMs <= ms)
      this.#handOver(Buffer.concat(this.#pieces));
  }

  destroy(): void {
    this.#socket.destroy();
  }

  get socket(): Socket {
    return this.#socket;
  }

  get shared(): Shared {
    return this.#shared;
  }

  #receive(chunk: Buffer): void {
    if (this.#state === 'idle' && !this.#looping) {
      this.#readHead(chunk);
      if (this.#waitingBytes > 0) this.#readWaiting();
      return;
    }
    if (this.#state === 'reading') return this.#readBody(chunk);
    if (this.#state === 'over') return;
    this.#wait(chunk);
    if (this.#waitingBytes > waitingBytesMax) this.#socket.pause();
  }

  #wait(chunk: Buffer): void {
    this.#waiting.push(chunk);
    this.#waitingBytes += chunk.length;
  }

  #takeWaiting(): Buffer {
    const waiting = this.#waiting.length === 1 ? this.#waiting[0]! : Buffer.concat(this.#waiting);
    this.#waiting = [];
    this.#waitingBytes = 0;
    return waiting;
  }

  #readHead(chunk: Buffer): void {
    const head = this.#parse(chunk);
    if (head === undefined) return this.#handOver(chunk);
    const bodyStart = head.bytes;
    const bodyEnd = bodyStart + head.bodyBytes;
    if (chunk.length < bodyEnd) {
      this.#state = 'reading';
      this.#head = head;
      this.#pieces = [chunk];
      this.#missing = bodyEnd - chunk.length;
      this.#sinceMs = this.#shared.clock.monotonicMs();
      return;
    }
    if (chunk.length > bodyEnd) this.#wait(chunk.subarray(bodyEnd));
    this.#serve(head, head.bodyBytes === 0 ? emptyBody : chunk.subarray(bodyStart, bodyEnd));
  }

  #parse(chunk: Buffer): FastHead | undefined {
    const last = this.#lastHead;
    if (last !== undefined && chunk.toString('latin1', 0, last.bytes) === this.#lastText)
      return last;
    const { headersBytesMax, bodyBytesMax } = this.#shared;
    const end = chunk.indexOf(headEnd);
    if (end === -1 || end > headersBytesMax) return undefined;
    const bytes = end + headEnd.length;
    const text = chunk.toString('latin1', 0, bytes);
    const plain = parseHead(text.slice(0, end), bodyBytesMax);
    if (plain === undefined) return undefined;
    const remoteAddress = this.#socket.remoteAddress ?? '';
    const head = { ...plain, bytes, remoteAddress, reading: undefined };
    if (bytes <= rememberedBytesMax) {
      this.#lastHead = head;
      this.#lastText = text;
    }
    return head;
  }

  #readBody(chunk: Buffer): void {
    this.#pieces.push(chunk);
    if (chunk.length < this.#missing) {
      this.#missing -= chunk.length;
      this.#sinceMs = this.#shared.clock.monotonicMs();
      return;
    }
    const head = this.#head!;
    const whole = Buffer.concat(this.#pieces);
    const bodyEnd = whole.length - (chunk.length - this.#missing);
    this.#head = undefined;
    this.#pieces = [];
    if (whole.length > bodyEnd) this.#wait(whole.subarray(bodyEnd));
    this.#serve(head, whole.subarray(bodyEnd - head.bodyBytes, bodyEnd));
  }

  #serve(head: FastHead, body: Uint8Array): void {
    this.#state = 'busy';
    this.#exchange = new FastExchange(this, head, body);
    this.#shared.serve(this.#exchange);
  }

  /**
   * The answer is written: the next request may be read. Where the kernel did not take it all, that waits for the client:
   * one that sends and never reads would fill our memory with answers.
   */
  answered(): void {
    if (this.#state !== 'busy') return;
    this.#exchange = undefined;
    if (this.#socket.writableLength === 0) return this.#next();
    this.#state = 'flushing';
    this.#sinceMs = this.#shared.clock.monotonicMs();
    this.#socket.write(emptyBody, () => this.#next());
  }

  #next(): void {
    if (this.#state === 'over') return;
    this.#state = 'idle';
    this.#sinceMs = this.#shared.sweepDueMs;
    if (this.#shared.draining) return void this.#socket.end();
    this.#readWaiting();
  }

  /** A loop, not a recursion: a client may send thousands of requests at once, and each may be answered at once. */
  #readWaiting(): void {
    if (this.#looping) return;
    this.#looping = true;
    while (this.#state === 'idle' && this.#waitingBytes > 0) this.#readHead(this.#takeWaiting());
    this.#looping = false;
    // Not once a request: then each would let in more than it takes off.
    if (this.#waitingBytes <= waitingBytesMax && this.#socket.isPaused()) this.#socket.resume();
  }

  #handOver(bytes: Buffer): void {
    const socket = this.#socket;
    this.#state = 'over';
    this.#shared.connections.delete(this);
    socket.pause();
    socket.off('data', this.#onData);
    socket.off('end', this.#onEnd);
    socket.off('close', this.#onClose);
    socket.off('error', this.#onError);
    socket.unshift(bytes);
    this.#shared.handOver(socket);
  }

  #clientEnded(): void {
    if (this.#state === 'reading') return this.#handOver(Buffer.concat(this.#pieces));
    this.#exchange?.gone();
    this.#socket.end();
  }

  #closed(): void {
    this.#shared.connections.delete(this);
    this.#state = 'over';
    this.#exchange?.gone();
  }
}

interface FastHead extends RequestHead {
  /** Of the head itself, its end included. */
  readonly bytes: number;
  readonly bodyBytes: number;
}

class FastExchange implements Exchange {
  readonly head: RequestHead;
  readonly #connection: Connection;
  readonly #body: Uint8Array;
  #onGone: (() => void) | undefined;
  #over = false;

  constructor(connection: Connection, head: RequestHead, body: Uint8Array) {
    this.#connection = connection;
    this.head = head;
    this.#body = body;
  }

  body(): Body {
    return this.#body;
  }

  onGone(fn: () => void): void {
    this.#onGone = fn;
  }

  gone(): void {
    if (this.#over) return;
    this.#over = true;
    this.#onGone?.();
  }

  respond({ status, headers, mayRepeat, ownHeaders, body }: Answer): void {
    const { socket, shared, answerHeaders } = this.#connection;
    if (this.#over || socket.destroyed) {
      if (isStream(body)) body.cancel(clientLeft);
      return;
    }
    const { text, length, isDated } = answerHeaders.linesOf(headers, mayRepeat);
    let head = (statusLines[status] ?? `HTTP/1.1 ${status} \r\n`) + text;
    for (let i = 0; i < ownHeaders.length; i += 2)
      head += `${ownHeaders[i]}: ${ownHeaders[i + 1]}\r\n`;
    if (!isDated) head += shared.date.line;
    head += shared.draining ? 'Connection: close\r\n' : keepAlive;
    const bodiless = this.head.method === 'HEAD' || status === 204 || status === 304;
    if (!isStream(body)) return this.#respondWhole(head, { status, body, length, bodiless });
    if (bodiless) {
      body.cancel(clientLeft);
      return this.#respondWhole(head, { status, body: emptyBody, length, bodiless });
    }
    void this.#respondStream(head, length, body);
  }

  #respondWhole(
    head: string,
    answer: { status: number; body: Uint8Array; length: string | undefined; bodiless: boolean },
  ): void {
    const { socket, shared } = this.#connection;
    const { status, body, length, bodiless } = answer;
    this.#over = true;
    // 204 has no length by definition; 304 and HEAD have that of the body which is not sent, where it is known.
    const bytes = bodiless ? (length ?? (body.length > 0 ? body.length : undefined)) : body.length;
    const text =
      status === 204 || bytes === undefined
        ? `${head}\r\n`
        : `${head}Content-Length: ${bytes}\r\n\r\n`;
    shared.slab.write(socket, text, bodiless ? emptyBody : body);
    this.#connection.answered();
  }

  async #respondStream(head: string, length: string | undefined, body: BodyStream): Promise<void> {
    const { socket } = this.#connection;
    const chunked = length === undefined;
    socket.write(
      `${head}${chunked ? 'Transfer-Encoding: chunked\r\n\r\n' : `Content-Length: ${length}\r\n\r\n`}`,
      'latin1',
    );
    // Ends with the body: a client that does not read holds a call no longer than its function may take.
    const drain = new Drain(socket, body);
    let left = chunked ? Number.POSITIVE_INFINITY : Number(length);
    try {
      for await (const chunk of body) {
        if (socket.destroyed) return;
        left -= chunk.length;
        if (left < 0) break;
        if (chunked) {
          socket.cork();
          socket.write(`${chunk.length.toString(16)}\r\n`, 'latin1');
          socket.write(chunk);
          socket.write('\r\n', 'latin1');
          socket.uncork();
        } else socket.write(chunk);
        if (socket.writableNeedDrain) await drain.wait();
      }
    } catch {
      left = -1;
    }
    // The head is out: an answer that breaks off, or that is not as long as it said, must be seen as broken.
    if (chunked ? left < 0 : left !== 0) return breakOff(socket);
    if (chunked) socket.write('0\r\n\r\n', 'latin1');
    this.#over = true;
    this.#connection.answered();
  }
}

const statusLines: Record<number, string> = Object.fromEntries(
  Object.entries(STATUS_CODES).map(([status, reason]) => [
    status,
    `HTTP/1.1 ${status} ${reason}\r\n`,
  ]),
);
const keepAlive = 'Connection: keep-alive\r\n';
const clientLeft = new GatewayError('CALL_CANCELLED', 'the client left');

interface HeaderLines {
  readonly text: string;
  /** Not among the lines: whether it is sent depends on the body. */
  readonly length: string | undefined;
  readonly isDated: boolean;
}

/** An answer's headers as text. The last ones are remembered: mostly they are the next ones too. */
class AnswerHeaders {
  #last: HeaderPairs = [];
  #lines: HeaderLines = { text: '', length: undefined, isDated: false };

  linesOf(headers: HeaderPairs, mayRepeat: boolean): HeaderLines {
    if (headers === this.#last) return this.#lines;
    const parts: string[] = [];
    let length: string | undefined;
    let isDated = false;
    for (let i = 0; i < headers.length; i += 2) {
      const name = headers[i]!;
      const value = headers[i + 1]!;
      if (name.length === 4 && name.toLowerCase() === 'date') isDated = true;
      if (name.length === 14 && name.toLowerCase() === 'content-length') length = value;
      else parts.push(name, ': ', value, '\r\n');
    }
    // Joined, not added up: it is in one piece then, and copied as such for every answer.
    const lines = { text: parts.join(''), length, isDated };
    if (mayRepeat) {
      this.#last = headers;
      this.#lines = lines;
    }
    return lines;
  }
}

/** The Date header, made once a second. */
class DateHeader {
  readonly #clock: Clock;
  #second = 0;
  #line = '';

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get line(): string {
    const nowMs = this.#clock.now();
    const second = Math.floor(nowMs / 1000);
    if (second !== this.#second) {
      this.#second = second;
      this.#line = `Date: ${new Date(nowMs).toUTCString()}\r\n`;
    }
    return this.#line;
  }
}

const slabBytes = 65_536;
/** Bodies above this go to the kernel as they are, behind the head in one vector. */
const copyBytesMax = 32_768;

/** Writes head and body in one piece from memory that is used again: most answers leave before the next is made. */
class Slab {
  #buffer = Buffer.allocUnsafeSlow(slabBytes);

  write(socket: Socket, head: string, body: Uint8Array): void {
    const length = head.length + body.length;
    if (body.length > copyBytesMax || length > slabBytes) {
      socket.cork();
      socket.write(head, 'latin1');
      socket.write(body);
      socket.uncork();
      return;
    }
    this.#buffer.write(head, 0, 'latin1');
    this.#buffer.set(body, head.length);
    socket.write(this.#buffer.subarray(0, length));
    // The kernel did not take it all: these bytes must stay as they are.
    if (socket.writableLength > 0) this.#buffer = Buffer.allocUnsafeSlow(slabBytes);
  }
}
