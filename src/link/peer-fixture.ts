/**
 * The other end of a link, for tests: encodes and decodes frames byte by byte from docs/reference/link.md and
 * shares no code with frames.ts, so that a mistake there cannot hide itself.
 */
import type { Socket } from 'node:net';

export const types = {
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
};
export const END = 1;

export interface RawFrame {
  type: number;
  flags: number;
  stream: number;
  arg: number;
  payload: Buffer;
}

export interface FrameParts {
  type: number;
  flags?: number;
  stream?: number;
  arg?: number;
  payload?: Uint8Array | string;
}

export function encode(parts: FrameParts): Buffer {
  const payload = Buffer.from(parts.payload ?? '');
  const bytes = Buffer.alloc(16 + payload.length);
  bytes.writeUInt32LE(payload.length, 0);
  bytes[4] = parts.type;
  bytes[5] = parts.flags ?? 0;
  bytes.writeUInt32LE(parts.stream ?? 0, 8);
  bytes.writeUInt32LE(parts.arg ?? 0, 12);
  bytes.set(payload, 16);
  return bytes;
}

/** A CALL or REPLY: fields joined by NUL, then body bytes; `arg` is the head's length. */
export function encodeHead(
  parts: Omit<FrameParts, 'arg' | 'payload'> & { fields: string[]; body?: Uint8Array | string },
): Buffer {
  const head = Buffer.from(parts.fields.join('\0'), 'latin1');
  const payload = Buffer.concat([head, Buffer.from(parts.body ?? '')]);
  return encode({ ...parts, arg: head.length, payload });
}

export function fieldsOf(frame: RawFrame): string[] {
  return frame.payload.toString('latin1', 0, frame.arg).split('\0');
}

export function bodyOf(frame: RawFrame): Buffer {
  return frame.payload.subarray(frame.arg);
}

export function jsonOf(frame: RawFrame): Record<string, unknown> {
  return JSON.parse(frame.payload.toString('utf8'));
}

interface Wanted {
  matches(frame: RawFrame): boolean;
  resolve(frame: RawFrame): void;
  reject(error: Error): void;
}

/** Keeps what arrives until a test asks for it. */
export class Peer {
  readonly socket: Socket;
  /** Frames that nobody has asked for yet, in order. */
  readonly frames: RawFrame[] = [];
  readonly closed: Promise<void>;
  #rest = Buffer.alloc(0);
  #wanted: Wanted[] = [];
  #over = false;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', chunk => this.#receive(chunk as Buffer));
    socket.on('error', () => {});
    this.closed = new Promise(resolve => {
      socket.once('close', () => {
        this.#over = true;
        for (const wanted of this.#wanted) wanted.reject(new Error('the link closed'));
        resolve();
      });
    });
  }

  send(...parts: Array<FrameParts | Buffer>): void {
    const buffers = parts.map(part => (Buffer.isBuffer(part) ? part : encode(part)));
    this.socket.write(Buffer.concat(buffers));
  }

  reply(stream: number, fields: string[], body: Uint8Array | string = '', flags = END): void {
    this.send(encodeHead({ type: types.REPLY, flags, stream, fields, body }));
  }

  /** The first frame of a type, and of a stream where one is given; waits for it. */
  next(type: number, stream?: number): Promise<RawFrame> {
    const matches = (frame: RawFrame) =>
      frame.type === type && (stream === undefined || frame.stream === stream);
    const at = this.frames.findIndex(matches);
    if (at !== -1) return Promise.resolve(this.frames.splice(at, 1)[0]!);
    if (this.#over) return Promise.reject(new Error('the link closed'));
    return new Promise((resolve, reject) => {
      this.#wanted.push({ matches, resolve, reject });
    });
  }

  #receive(chunk: Buffer): void {
    this.#rest = Buffer.concat([this.#rest, chunk]);
    while (this.#rest.length >= 16) {
      const end = 16 + this.#rest.readUInt32LE(0);
      if (this.#rest.length < end) return;
      const frame = this.#rest.subarray(0, end);
      this.#rest = this.#rest.subarray(end);
      this.#deliver({
        type: frame[4]!,
        flags: frame[5]!,
        stream: frame.readUInt32LE(8),
        arg: frame.readUInt32LE(12),
        payload: frame.subarray(16),
      });
    }
  }

  #deliver(frame: RawFrame): void {
    const at = this.#wanted.findIndex(wanted => wanted.matches(frame));
    if (at === -1) this.frames.push(frame);
    else this.#wanted.splice(at, 1)[0]!.resolve(frame);
  }
}
