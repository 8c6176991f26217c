/**
 * The bytes of the link protocol (docs/reference/link.md): a decoder that turns chunks into frames, and an
 * outbox that turns frames into few writes. Knows nothing of calls; link.ts does. The decoder never trusts a
 * length: a frame that breaks the rules ends the connection, it is not skipped.
 */
import type { Socket } from 'node:net';
import { GatewayError } from '../errors.ts';

export const frameTypes = {
  HELLO: 1,
  LOAD: 2,
  LOADED: 3,
  LOAD_FAILED: 4,
  CALL: 5,
  REPLY: 6,
  DATA: 7,
  CREDIT: 8,
  CANCEL: 9,
  FAIL: 10,
  PING: 11,
  PONG: 12,
  STOP: 13,
} as const;

export type FrameType = (typeof frameTypes)[keyof typeof frameTypes];

export const headerBytes = 16;
export const payloadBytesMax = 65_536;
/** Body bytes that may be on their way in one direction of one stream without credit. */
export const windowBytes = 262_144;
export const endFlag = 1;

const typeMax = 13;

/** `payload` is a view of `chunk` between `start` and `end`: valid as long as the receiver keeps the chunk. */
export type FrameHandler = (
  type: FrameType,
  flags: number,
  stream: number,
  arg: number,
  chunk: Buffer,
  start: number,
  end: number,
) => void;

/** Calls `onFrame` for every whole frame of the chunks pushed. Throws LINK_PROTOCOL_BROKEN on a bad frame. */
export class FrameDecoder {
  readonly #onFrame: FrameHandler;
  /** A frame of which only the start has come, in a buffer of its whole length; less than a header is kept as it is. */
  #partial: Buffer | undefined;
  #filled = 0;

  constructor(onFrame: FrameHandler) {
    this.#onFrame = onFrame;
  }

  push(chunk: Buffer): void {
    let offset = this.#partial === undefined ? 0 : this.#fill(chunk);
    while (chunk.length - offset >= headerBytes) {
      const end = offset + headerBytes + checkedLength(chunk, offset);
      if (end > chunk.length) break;
      this.#dispatch(chunk, offset, end);
      offset = end;
    }
    if (offset < chunk.length) this.#keep(chunk, offset);
  }

  /** Copies what the partial frame lacks, not the chunk: a frame is copied at most once. */
  #fill(chunk: Buffer): number {
    let offset = 0;
    if (this.#filled < headerBytes) {
      const taken = chunk.copy(this.#partial!, this.#filled, 0, headerBytes - this.#filled);
      this.#filled += taken;
      offset = taken;
      if (this.#filled < headerBytes) return offset;
      const whole = Buffer.allocUnsafe(headerBytes + checkedLength(this.#partial!, 0));
      this.#partial!.copy(whole, 0, 0, headerBytes);
      this.#partial = whole;
    }
    const partial = this.#partial!;
    const taken = chunk.copy(partial, this.#filled, offset);
    this.#filled += taken;
    offset += taken;
    if (this.#filled === partial.length) {
      this.#partial = undefined;
      this.#dispatch(partial, 0, partial.length);
    }
    return offset;
  }

  #keep(chunk: Buffer, offset: number): void {
    const rest = chunk.length - offset;
    const length = rest < headerBytes ? headerBytes : headerBytes + checkedLength(chunk, offset);
    this.#partial = Buffer.allocUnsafe(length);
    this.#filled = chunk.copy(this.#partial, 0, offset);
  }

  #dispatch(chunk: Buffer, offset: number, end: number): void {
    const type = chunk[offset + 4]!;
    const arg = chunk.readUInt32LE(offset + 12);
    const start = offset + headerBytes;
    if ((type === frameTypes.CALL || type === frameTypes.REPLY) && arg > end - start) {
      throw new GatewayError('LINK_PROTOCOL_BROKEN', 'a head longer than its frame');
    }
    const stream = chunk.readUInt32LE(offset + 8);
    this.#onFrame(type as FrameType, chunk[offset + 5]!, stream, arg, chunk, start, end);
  }
}

/** The length of the payload whose header is at `offset`. */
function checkedLength(chunk: Buffer, offset: number): number {
  const length = chunk.readUInt32LE(offset);
  const type = chunk[offset + 4]!;
  if (length > payloadBytesMax || type === 0 || type > typeMax) {
    throw new GatewayError('LINK_PROTOCOL_BROKEN', `a frame of type ${type} and ${length} bytes`);
  }
  return length;
}

const bufferBytes = 65_536;
/** Bodies above this are handed to the socket as they are: copying them costs more than one more vector. */
const copyBytesMax = 8192;

/**
 * Collects frames and writes them once per turn of the event loop, or at once: with many calls in flight, the system call
 * is shared by all of them (measured: a third of the cost of a call at 64 connections).
 */
export class Outbox {
  readonly #socket: Socket;
  #buffer = Buffer.allocUnsafeSlow(bufferBytes);
  #start = 0;
  #used = 0;
  #scheduled = false;
  /** A head is written at once instead, for there is nobody to share with. */
  prompt = false;
  readonly #flush = () => {
    this.#scheduled = false;
    this.flush();
  };

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  /** A frame whose payload is a Latin-1 head followed by body bytes. The caller keeps both within the limit. */
  head(type: FrameType, flags: number, stream: number, head: string, body: Uint8Array): void {
    const inline = body.length <= copyBytesMax;
    const length = head.length + body.length;
    this.#reserve(headerBytes + head.length + (inline ? body.length : 0));
    this.#header(type, flags, stream, head.length, length);
    this.#buffer.write(head, this.#used, 'latin1');
    this.#used += head.length;
    this.#body(body, inline);
    if (this.prompt) this.flush();
    else this.#schedule();
  }

  frame(type: FrameType, flags: number, stream: number, arg: number, payload: Uint8Array): void {
    const inline = payload.length <= copyBytesMax;
    this.#reserve(headerBytes + (inline ? payload.length : 0));
    this.#header(type, flags, stream, arg, payload.length);
    this.#body(payload, inline);
    this.#schedule();
  }

  /** True while the socket takes bytes faster than they arrive here. */
  get drained(): boolean {
    return !this.#socket.writableNeedDrain;
  }

  flush(): void {
    if (this.#used > this.#start) {
      this.#socket.write(this.#buffer.subarray(this.#start, this.#used));
      this.#start = this.#used;
    }
    if (this.#socket.writableCorked > 0) this.#socket.uncork();
    // Only when the kernel took everything may the bytes be written over.
    if (this.#socket.writableLength === 0) {
      this.#start = 0;
      this.#used = 0;
    }
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.#flush);
  }

  #reserve(bytes: number): void {
    if (this.#used + bytes <= this.#buffer.length) return;
    this.#spill();
    this.#buffer = Buffer.allocUnsafeSlow(Math.max(bufferBytes, bytes));
    this.#start = 0;
    this.#used = 0;
  }

  #header(type: number, flags: number, stream: number, arg: number, length: number): void {
    const buffer = this.#buffer;
    let at = this.#used;
    at = buffer.writeUInt32LE(length, at);
    buffer[at++] = type;
    buffer[at++] = flags;
    buffer[at++] = 0;
    buffer[at++] = 0;
    at = buffer.writeUInt32LE(stream, at);
    this.#used = buffer.writeUInt32LE(arg, at);
  }

  #body(body: Uint8Array, inline: boolean): void {
    if (inline) {
      this.#buffer.set(body, this.#used);
      this.#used += body.length;
      return;
    }
    this.#spill();
    this.#socket.write(body);
  }

  /** Hands what is collected to the socket, held back by the cork so that the turn still makes one write. */
  #spill(): void {
    if (this.#socket.writableCorked === 0) this.#socket.cork();
    if (this.#used > this.#start) {
      this.#socket.write(this.#buffer.subarray(this.#start, this.#used));
      this.#start = this.#used;
    }
  }
}
