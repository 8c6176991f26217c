/**
 * The gateway's end of one link: a process that said HELLO, becomes an instance by LOAD, and then answers calls.
 * Keeps the invariant that each call's `done` runs exactly once, whatever the process does: answers, fails,
 * breaks the protocol or dies. Does not know processes, limits or retries.
 */
import type { Socket } from 'node:net';
import { PushedBody } from '../body.ts';
import { GatewayError } from '../errors.ts';
import {
  type Body,
  type Call,
  type CallSignal,
  emptyBody,
  failedReply,
  isStream,
  type Reply,
} from '../invoke/invoke.ts';
import { Slots } from '../slots.ts';
import {
  endFlag,
  FrameDecoder,
  type FrameType,
  frameTypes,
  Outbox,
  payloadBytesMax,
  windowBytes,
} from './frames.ts';
import { CallHeaders, type LinkProblem, parseJson, parseProblem, ReplyHeads } from './payloads.ts';

export interface Hello {
  protocol: 1;
  secret: string;
  pid: number;
  runtime: string;
}

export type Loaded = { ok: true; body: 'whole' | 'stream' } | { ok: false; problem: LinkProblem };

/** Why the process is gone, for the replies of the calls that were in it. Asked once the link has closed. */
export type Obituary = () => Promise<(call: string) => Reply>;

interface Stream {
  /** Id of the call. */
  readonly call: string;
  resolve: ((reply: Reply) => void) | undefined;
  reject: (error: Error) => void;
  done: () => void;
  reply: PushedBody | undefined;
  /** Request-body bytes that may still be sent. */
  credit: number;
  /** Reply-body bytes that the process may still send. */
  replyCredit: number;
  onCredit: (() => void) | undefined;
  request: Body;
  cancelled: boolean;
}

/** After so many calls in a row of which none met another, the next is taken to be alone too. */
export const aloneCallsMin = 16;

/** Credit is returned in steps of this, so that a long body costs few CREDIT frames. */
const creditStepBytes = windowBytes / 4;

export class Link {
  readonly #socket: Socket;
  readonly #outbox: Outbox;
  readonly #streams = new Slots<Stream>();
  readonly #decoder: FrameDecoder;
  readonly #callHeaders = new CallHeaders();
  readonly #replyHeads = new ReplyHeads();
  /** Calls in a row that found the process idle. */
  #aloneCalls = 0;
  #closed = false;
  #draining: Promise<void> | undefined;
  #onHello: ((hello: Hello) => void) | undefined;
  #onLoaded: ((loaded: Loaded) => void) | undefined;
  #onPong: (() => void) | undefined;
  #obituary: Obituary | undefined;
  /** Resolves when the connection is gone; `error` when it broke the protocol. */
  readonly closed: Promise<Error | undefined>;

  constructor(socket: Socket, onHello: (hello: Hello) => void) {
    this.#socket = socket;
    this.#outbox = new Outbox(socket);
    this.#onHello = onHello;
    this.#decoder = new FrameDecoder((type, flags, stream, arg, chunk, start, end) =>
      this.#receive(type, flags, stream, arg, chunk, start, end),
    );
    let broken: Error | undefined;
    socket.on('data', chunk => {
      try {
        this.#decoder.push(chunk as Buffer);
      } catch (error) {
        broken = error as Error;
        socket.destroy();
      }
    });
    socket.on('error', () => socket.destroy());
    this.closed = new Promise(resolve => {
      socket.once('close', () => {
        this.#closed = true;
        resolve(broken);
        this.#buryStreams(broken);
      });
    });
  }

  /** Calls the process is working on, cancelled ones included. */
  get inFlight(): number {
    return this.#streams.size;
  }

  /** Who explains the process's end to the calls in it. Without one they fail as `crashed`. */
  set obituary(fn: Obituary) {
    this.#obituary = fn;
  }

  /** Once per link. Resolves with the process's answer; rejects when it dies before it answers. */
  load(settings: Record<string, unknown>): Promise<Loaded> {
    return new Promise((resolve, reject) => {
      this.#onLoaded = resolve;
      void this.closed.then(() =>
        reject(new GatewayError('INSTANCE_NOT_STARTED', 'the process ended while it was loading')),
      );
      const bytes = Buffer.from(JSON.stringify(settings));
      for (
        let at = 0, type: FrameType = frameTypes.LOAD;
        at < bytes.length;
        type = frameTypes.DATA
      ) {
        const part = bytes.subarray(at, at + payloadBytesMax);
        at += part.length;
        this.#outbox.frame(type, at === bytes.length ? endFlag : 0, 0, 0, part);
      }
      this.#outbox.flush();
    });
  }

  /** Resolves when the process's event loop answers; rejects when it dies first. */
  ping(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#onPong = resolve;
      void this.closed.then(() =>
        reject(new GatewayError('INSTANCE_NOT_STARTED', 'the process ended before its PONG')),
      );
      this.#outbox.frame(frameTypes.PING, 0, 0, 1, emptyBody);
    });
  }

  /** Asks the process to finish its calls and exit. */
  stop(): void {
    if (!this.#closed) this.#outbox.frame(frameTypes.STOP, 0, 0, 0, emptyBody);
  }

  destroy(): void {
    this.#socket.destroy();
  }

  /**
   * Runs a call. Resolves with the reply as soon as its head is there; `done` runs once, when the process no
   * longer works on the call. Rejects with the signal's reason when that comes before the head.
   */
  call(call: Call, signal: CallSignal, remainingMs: number, done: () => void): Promise<Reply> {
    return new Promise((resolve, reject) => {
      if (this.#closed) {
        done();
        return reject(
          new GatewayError('INSTANCE_NOT_STARTED', 'the instance ended before the call'),
        );
      }
      const stream: Stream = {
        call: call.id,
        resolve,
        reject,
        done,
        reply: undefined,
        credit: windowBytes,
        replyCredit: windowBytes,
        onCredit: undefined,
        request: call.body,
        cancelled: false,
      };
      const id = this.#streams.add(stream);
      this.#aloneCalls = this.#streams.size === 1 ? this.#aloneCalls + 1 : 0;
      this.#outbox.prompt = this.#aloneCalls > aloneCallsMin;
      this.#sendCall(id, stream, call, remainingMs);
      signal.onAbort(reason => this.#cancel(id, stream, reason));
    });
  }

  #sendCall(id: number, stream: Stream, call: Call, remainingMs: number): void {
    const { ownHeaders } = call;
    let head = `${call.method}\0${call.target}\0${call.id}\0${remainingMs}`;
    for (let i = 0; i < ownHeaders.length; i++) head += `\0${ownHeaders[i]!}`;
    head += this.#callHeaders.textOf(call.headers);
    if (head.length > payloadBytesMax) {
      const detail = `path and headers take ${head.length} bytes; a call has room for ${payloadBytesMax}`;
      const error = new GatewayError('HEADERS_TOO_LARGE', detail);
      this.#end(id, stream);
      this.#dropRequest(stream, error);
      stream.reject(error);
      return;
    }
    const body = call.body;
    if (isStream(body)) {
      this.#outbox.head(frameTypes.CALL, 0, id, head, emptyBody);
      void this.#sendStream(id, stream, body);
      return;
    }
    const room = payloadBytesMax - head.length;
    if (body.length <= room) {
      stream.credit -= body.length;
      this.#outbox.head(frameTypes.CALL, endFlag, id, head, body);
      return;
    }
    this.#outbox.head(frameTypes.CALL, 0, id, head, emptyBody);
    void this.#sendChunks(id, stream, body).then(sent => {
      if (sent) this.#outbox.frame(frameTypes.DATA, endFlag, id, 0, emptyBody);
    });
  }

  async #sendStream(id: number, stream: Stream, body: AsyncIterable<Uint8Array>): Promise<void> {
    try {
      for await (const chunk of body) {
        if (!(await this.#sendChunks(id, stream, chunk))) return;
      }
      if (this.#isLive(id, stream)) this.#outbox.frame(frameTypes.DATA, endFlag, id, 0, emptyBody);
    } catch (error) {
      this.#cancel(id, stream, error as GatewayError);
    }
  }

  /** False when the stream ended meanwhile. */
  async #sendChunks(id: number, stream: Stream, bytes: Uint8Array): Promise<boolean> {
    for (let at = 0; at < bytes.length; ) {
      if (!this.#isLive(id, stream)) return false;
      if (stream.credit === 0) {
        await new Promise<void>(resolve => {
          stream.onCredit = resolve;
        });
        continue;
      }
      const part = bytes.subarray(at, at + Math.min(payloadBytesMax, stream.credit));
      at += part.length;
      stream.credit -= part.length;
      this.#outbox.frame(frameTypes.DATA, 0, id, 0, part);
      if (!this.#outbox.drained) await this.#drain();
    }
    return this.#isLive(id, stream);
  }

  /** One wait for all bodies that are being sent. */
  #drain(): Promise<void> {
    this.#draining ??= new Promise(resolve => {
      const settle = () => {
        this.#socket.off('drain', settle);
        this.#socket.off('close', settle);
        this.#draining = undefined;
        resolve();
      };
      this.#socket.on('drain', settle);
      this.#socket.on('close', settle);
    });
    return this.#draining;
  }

  #isLive(id: number, stream: Stream): boolean {
    return !this.#closed && !stream.cancelled && this.#streams.get(id) === stream;
  }

  /** The gateway gives the call up. The stream stays until the process ends it: the call still holds its place. */
  #cancel(id: number, stream: Stream, reason: GatewayError): void {
    if (!this.#isLive(id, stream)) return;
    stream.cancelled = true;
    this.#outbox.frame(frameTypes.CANCEL, 0, id, 0, Buffer.from(reason.code ?? 'CALL_CANCELLED'));
    this.#dropRequest(stream, reason);
    stream.reject(reason);
    stream.reply?.fail(reason);
  }

  #dropRequest(stream: Stream, reason: Error): void {
    const wake = stream.onCredit;
    stream.onCredit = undefined;
    wake?.();
    if (isStream(stream.request)) stream.request.cancel(reason);
  }

  #end(id: number, stream: Stream): void {
    this.#streams.remove(id);
    const wake = stream.onCredit;
    stream.onCredit = undefined;
    wake?.();
    stream.done();
  }

  #receive(
    type: FrameType,
    flags: number,
    id: number,
    arg: number,
    chunk: Buffer,
    start: number,
    end: number,
  ): void {
    if (this.#onHello !== undefined) {
      if (type !== frameTypes.HELLO)
        throw new GatewayError('LINK_PROTOCOL_BROKEN', 'the first frame is not HELLO');
      const onHello = this.#onHello;
      this.#onHello = undefined;
      onHello(parseJson(chunk, start, end) as unknown as Hello);
      return;
    }
    if (id === 0) return this.#receiveOwn(type, chunk, start, end);
    const stream = this.#streams.get(id);
    if (stream === undefined) return;
    if (stream.cancelled) {
      if (type === frameTypes.CANCEL || type === frameTypes.FAIL || (flags & endFlag) !== 0)
        this.#end(id, stream);
      return;
    }
    switch (type) {
      case frameTypes.REPLY:
        return this.#receiveReply(id, stream, flags, chunk, start, start + arg, end);
      case frameTypes.DATA:
        return this.#receiveData(id, stream, flags, chunk.subarray(start, end));
      case frameTypes.CREDIT: {
        stream.credit += arg;
        const wake = stream.onCredit;
        stream.onCredit = undefined;
        return wake?.();
      }
      case frameTypes.FAIL:
        return this.#receiveFailure(id, stream, parseProblem(chunk, start, end));
      case frameTypes.CANCEL: {
        const error = new GatewayError(
          'FUNCTION_FAILED',
          chunk.toString('utf8', start, end) || 'the function broke off its answer',
        );
        this.#end(id, stream);
        this.#dropRequest(stream, error);
        stream.reject(error);
        return stream.reply?.fail(error);
      }
      default:
        throw new GatewayError('LINK_PROTOCOL_BROKEN', `a frame of type ${type} in a call`);
    }
  }

  #receiveOwn(type: FrameType, chunk: Buffer, start: number, end: number): void {
    if (type === frameTypes.LOADED) {
      const body = parseJson(chunk, start, end).body === 'whole' ? 'whole' : 'stream';
      this.#onLoaded?.({ ok: true, body });
    } else if (type === frameTypes.LOAD_FAILED) {
      this.#onLoaded?.({ ok: false, problem: parseProblem(chunk, start, end) });
    } else if (type === frameTypes.PONG) {
      this.#onPong?.();
    } else {
      throw new GatewayError('LINK_PROTOCOL_BROKEN', `a frame of type ${type} outside a call`);
    }
  }

  #receiveReply(
    id: number,
    stream: Stream,
    flags: number,
    chunk: Buffer,
    start: number,
    bodyStart: number,
    end: number,
  ): void {
    const resolve = stream.resolve;
    if (resolve === undefined)
      throw new GatewayError('LINK_PROTOCOL_BROKEN', 'a second REPLY to one call');
    const head = this.#replyHeads.parse(chunk.toString('latin1', start, bodyStart));
    const { status, headers, threw } = head;
    stream.resolve = undefined;
    const first = chunk.subarray(bodyStart, end);
    if ((flags & endFlag) !== 0) {
      this.#end(id, stream);
      if (isStream(stream.request)) stream.request.cancel(answeredEarly);
      return resolve({ status, headers, body: first, threw });
    }
    let uncredited = 0;
    const body = new PushedBody({
      onRead: bytes => {
        uncredited += bytes;
        if (uncredited < creditStepBytes || !this.#isLive(id, stream)) return;
        this.#outbox.frame(frameTypes.CREDIT, 0, id, uncredited, emptyBody);
        stream.replyCredit += uncredited;
        uncredited = 0;
      },
      onCancel: reason => this.#cancel(id, stream, reason as GatewayError),
    });
    stream.reply = body;
    stream.replyCredit -= first.length;
    body.push(first);
    resolve({ status, headers, body, threw });
  }

  #receiveData(id: number, stream: Stream, flags: number, bytes: Uint8Array): void {
    if (stream.reply === undefined) {
      throw new GatewayError('LINK_PROTOCOL_BROKEN', 'DATA before REPLY');
    }
    stream.replyCredit -= bytes.length;
    if (stream.replyCredit < 0) {
      throw new GatewayError(
        'LINK_PROTOCOL_BROKEN',
        'more bytes of a reply than there was credit for',
      );
    }
    stream.reply.push(bytes);
    if ((flags & endFlag) === 0) return;
    this.#end(id, stream);
    if (isStream(stream.request)) stream.request.cancel(answeredEarly);
    stream.reply.end();
  }

  #receiveFailure(id: number, stream: Stream, problem: LinkProblem): void {
    if (stream.reply !== undefined) {
      throw new GatewayError(
        'LINK_PROTOCOL_BROKEN',
        'FAIL after REPLY; an answer breaks off with CANCEL',
      );
    }
    this.#end(id, stream);
    this.#dropRequest(stream, answeredEarly);
    if (problem.reason === 'body-too-large') {
      return stream.reject(new GatewayError('BODY_TOO_LARGE', problem.message));
    }
    const { message, type, file, line, stack } = problem;
    const reason = problem.reason === 'reply-invalid' ? 'reply-invalid' : 'threw';
    stream.resolve?.(failedReply({ reason, message, type, file, line, stack }));
  }

  #buryStreams(broken: Error | undefined): void {
    const streams = this.#streams.entries();
    if (streams.length === 0) return;
    const explain: Obituary =
      this.#obituary ??
      (async () => () => failedReply({ reason: 'crashed', message: 'the instance ended' }));
    void explain().then(replyOf => {
      for (const [id, stream] of streams) {
        const reply = replyOf(stream.call);
        const message = broken?.message ?? reply.failure?.message ?? 'the instance ended';
        const error = broken ?? new GatewayError('FUNCTION_FAILED', message);
        this.#end(id, stream);
        this.#dropRequest(stream, error);
        stream.resolve?.(reply);
        stream.reply?.fail(error);
      }
    });
  }
}

/** Ends a request body that the function did not want to the end. */
const answeredEarly = new GatewayError(
  'CALL_CANCELLED',
  'the function answered before the body ended',
);
