/**
 * The instance's end of the link (docs/reference/link.md): frames in, frames out, flow control. Knows nothing of
 * handlers; main.mjs does. Outgoing frames of one turn of the event loop leave in one write, but for a reply that is alone.
 */
import { connect } from 'node:net';

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

const headerBytes = 16;
export const payloadBytesMax = 65_536;
export const windowBytes = 262_144;
export const endFlag = 1;
const bufferBytes = 65_536;
const copyBytesMax = 8192;
const readBytes = 65_536;
const empty = new Uint8Array(0);

export class Link {
  #socket;
  #buffer = Buffer.allocUnsafeSlow(bufferBytes);
  #start = 0;
  #used = 0;
  #scheduled = false;
  #waiting = [];
  /** All reads go here, one after the other: a fresh buffer for each costs more than copying the bytes that stay. */
  #reading = Buffer.allocUnsafeSlow(readBytes);
  #partial = undefined;
  #filled = 0;
  #onFrame;
  /** A head is written at once, and not at the end of the turn: there is nobody to share the write with. */
  prompt = false;
  #flush = () => {
    this.#scheduled = false;
    this.flush();
  };

  /**
   * @param {string} path the gateway's socket
   * @param {(type: number, flags: number, stream: number, arg: number, chunk: Buffer, start: number, end: number) => void} onFrame
   * @param {() => void} onClose
   */
  constructor(path, onFrame, onClose) {
    this.#onFrame = onFrame;
    const buffer = this.#reading;
    const callback = bytes => {
      this.#receive(bytes === readBytes ? buffer : buffer.subarray(0, bytes));
      return true;
    };
    this.#socket = connect({ path, onread: { buffer, callback } });
    this.#socket.on('error', () => {});
    this.#socket.on('close', onClose);
  }

  /** A frame with a Latin-1 head; `body` is bytes, or text that is written as UTF-8 without a copy in between. */
  head(type, flags, stream, head, body) {
    if (typeof body === 'string') {
      // Three bytes a character at most: reserve for that, write, and put the true length into the header.
      if (body.length * 3 <= copyBytesMax) {
        this.#reserve(headerBytes + head.length + body.length * 3);
        const at = this.#used;
        this.#used += headerBytes;
        this.#used += this.#buffer.write(head, this.#used, 'latin1');
        const bytes = this.#buffer.write(body, this.#used, 'utf8');
        this.#used += bytes;
        this.#header(at, type, flags, stream, head.length, head.length + bytes);
        return this.#leave();
      }
      body = Buffer.from(body);
    }
    const inline = body.length <= copyBytesMax;
    this.#reserve(headerBytes + head.length + (inline ? body.length : 0));
    this.#header(this.#used, type, flags, stream, head.length, head.length + body.length);
    this.#used += headerBytes;
    this.#used += this.#buffer.write(head, this.#used, 'latin1');
    this.#body(body, inline);
    this.#leave();
  }

  frame(type, flags, stream, arg, payload = empty) {
    const inline = payload.length <= copyBytesMax;
    this.#reserve(headerBytes + (inline ? payload.length : 0));
    this.#header(this.#used, type, flags, stream, arg, payload.length);
    this.#used += headerBytes;
    this.#body(payload, inline);
    this.#schedule();
  }

  json(type, stream, value) {
    const bytes = Buffer.from(JSON.stringify(value));
    this.frame(type, 0, stream, 0, bytes.length > payloadBytesMax ? shorten(value) : bytes);
  }

  get drained() {
    return !this.#socket.writableNeedDrain;
  }

  /** Bytes of a frame that outlive its handling. */
  keep(chunk, start, end) {
    const view = chunk.subarray(start, end);
    return chunk.buffer === this.#reading.buffer ? Buffer.from(view) : view;
  }

  /** One listener for all replies that wait. */
  onceDrained(fn) {
    if (this.#waiting.push(fn) > 1) return;
    this.#socket.once('drain', () => {
      for (const wake of this.#waiting.splice(0)) wake();
    });
  }

  flush() {
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

  /** Flushes, then calls back once the kernel has it all. */
  end(fn) {
    this.flush();
    this.#socket.end(fn);
  }

  #leave() {
    if (this.prompt) this.flush();
    else this.#schedule();
  }

  #schedule() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.#flush);
  }

  #reserve(bytes) {
    if (this.#used + bytes <= this.#buffer.length) return;
    this.#spill();
    this.#buffer = Buffer.allocUnsafeSlow(Math.max(bufferBytes, bytes));
    this.#start = 0;
    this.#used = 0;
  }

  #header(at, type, flags, stream, arg, length) {
    const buffer = this.#buffer;
    buffer.writeUInt32LE(length, at);
    buffer[at + 4] = type;
    buffer[at + 5] = flags;
    buffer[at + 6] = 0;
    buffer[at + 7] = 0;
    buffer.writeUInt32LE(stream, at + 8);
    buffer.writeUInt32LE(arg, at + 12);
  }

  #body(body, inline) {
    if (inline) {
      this.#buffer.set(body, this.#used);
      this.#used += body.length;
      return;
    }
    this.#spill();
    this.#socket.write(body);
  }

  #spill() {
    if (this.#socket.writableCorked === 0) this.#socket.cork();
    if (this.#used > this.#start) {
      this.#socket.write(this.#buffer.subarray(this.#start, this.#used));
      this.#start = this.#used;
    }
  }

  /** As the gateway's FrameDecoder: of a frame that comes in pieces, only the frame is copied, not the chunks. */
  #receive(chunk) {
    let offset = this.#partial === undefined ? 0 : this.#fill(chunk);
    while (chunk.length - offset >= headerBytes) {
      const end = offset + headerBytes + checkedLength(chunk, offset);
      if (end > chunk.length) break;
      this.#dispatch(chunk, offset, end);
      offset = end;
    }
    if (offset === chunk.length) return;
    const rest = chunk.length - offset;
    const length = rest < headerBytes ? headerBytes : headerBytes + checkedLength(chunk, offset);
    this.#partial = Buffer.allocUnsafe(length);
    this.#filled = chunk.copy(this.#partial, 0, offset);
  }

  #fill(chunk) {
    let offset = 0;
    if (this.#filled < headerBytes) {
      offset = chunk.copy(this.#partial, this.#filled, 0, headerBytes - this.#filled);
      this.#filled += offset;
      if (this.#filled < headerBytes) return offset;
      const whole = Buffer.allocUnsafe(headerBytes + checkedLength(this.#partial, 0));
      this.#partial.copy(whole, 0, 0, headerBytes);
      this.#partial = whole;
    }
    const partial = this.#partial;
    const taken = chunk.copy(partial, this.#filled, offset);
    this.#filled += taken;
    if (this.#filled === partial.length) {
      this.#partial = undefined;
      this.#dispatch(partial, 0, partial.length);
    }
    return offset + taken;
  }

  #dispatch(chunk, offset, end) {
    const type = chunk[offset + 4];
    if (type === types.CALL && chunk.readUInt32LE(offset + 12) > end - offset - headerBytes) {
      broken(`a head longer than its frame`);
    }
    this.#onFrame(
      chunk[offset + 4],
      chunk[offset + 5],
      chunk.readUInt32LE(offset + 8),
      chunk.readUInt32LE(offset + 12),
      chunk,
      offset + headerBytes,
      end,
    );
  }
}

function checkedLength(chunk, offset) {
  const length = chunk.readUInt32LE(offset);
  const type = chunk[offset + 4];
  if (length > payloadBytesMax || type === 0 || type > types.STOP) {
    broken(`a frame of type ${type} and ${length} bytes`);
  }
  return length;
}

/** Nothing that the peer sends can be trusted any more. */
export function broken(what) {
  process.stderr.write(`fnway: the gateway broke the link protocol: ${what}\n`);
  process.exit(1);
}

/** A problem too long for a frame loses the ends of its texts, never its place. JSON may take six bytes for a letter. */
function shorten(value) {
  for (let charsMax = 8000; ; charsMax = Math.floor(charsMax / 2)) {
    const short = Object.entries(value).map(([key, text]) =>
      typeof text === 'string' && text.length > charsMax
        ? [key, `${text.slice(0, charsMax)} …`]
        : [key, text],
    );
    const bytes = Buffer.from(JSON.stringify(Object.fromEntries(short)));
    if (bytes.length <= payloadBytesMax) return bytes;
  }
}

/** A request body that arrives in chunks, read once. Reading gives the gateway credit. */
export class RequestBody {
  #chunks = [];
  #state = 'open';
  #error = undefined;
  #wake = undefined;
  #uncredited = 0;
  #credit;

  /** @param {(bytes: number) => void} credit tells the gateway that it may send more */
  constructor(credit) {
    this.#credit = credit;
  }

  push(chunk) {
    if (this.#state !== 'open' || chunk.length === 0) return;
    this.#chunks.push(chunk);
    this.#signal();
  }

  end() {
    if (this.#state === 'open') this.#state = 'ended';
    this.#signal();
  }

  fail(error) {
    if (this.#state === 'failed') return;
    this.#state = 'failed';
    this.#error = error;
    this.#signal();
  }

  async *[Symbol.asyncIterator]() {
    while (true) {
      const chunk = this.#chunks.shift();
      if (chunk !== undefined) {
        this.#uncredited += chunk.length;
        if (this.#uncredited >= windowBytes / 4 && this.#state === 'open') {
          this.#credit(this.#uncredited);
          this.#uncredited = 0;
        }
        yield chunk;
      } else if (this.#state === 'failed') {
        throw this.#error;
      } else if (this.#state === 'ended') {
        return;
      } else {
        await new Promise(resolve => {
          this.#wake = resolve;
        });
      }
    }
  }

  #signal() {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }
}
