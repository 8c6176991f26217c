/**
 * The body of a light Request or Response: a source, read once.
 *
 * Responsible for turning what `new Response()` takes into a source, for reading a source as text,
 * JSON or bytes, for showing it as a ReadableStream, and for what "used" means. Not responsible
 * for headers, nor for `blob()` and `formData()`, which need the built-in (built-in.mjs).
 *
 * Invariant: a source is read at most once, unless it is a string, bytes or a Blob (which cannot
 * be used up; clones share them). Once `stream` exists, every reading goes through it, so that the
 * stream's own lock and disturbance decide.
 *
 * Different from the built-in: streams are not byte streams (no BYOB readers, which would need a
 * copy of every chunk); both branches of a cloned stream see the same chunks, not copies; reading
 * a body releases the lock on its stream.
 */
import { isDisturbed } from 'node:stream';
import { isAnyArrayBuffer, isSharedArrayBuffer, isUint8Array } from 'node:util/types';

/**
 * @typedef {string | Uint8Array | Blob | ReadableStream | AsyncIterable<Uint8Array>} Source
 */

const encoder = new TextEncoder();
// The decoder of Buffer is the fastest of those Node has: it needs no options object per call.
const { utf8Slice } = /** @type {any} */ (Buffer.prototype);

export class Body {
  /** @type {ReadableStream | null} */
  #stream = null;
  #taken = false;

  /** @param {Source} source */
  constructor(source) {
    this.source = source;
    if (isReadableStream(source)) this.#stream = source;
  }

  /** @returns {ReadableStream} */
  get stream() {
    if (this.#stream === null) {
      this.#stream = streamOf(this.#taken ? '' : this.source);
      // A body read before anyone saw its stream shows a stream that somebody has read.
      if (this.#taken) this.#stream.getReader().cancel();
    }
    return this.#stream;
  }

  get used() {
    return this.#taken || (this.#stream !== null && isDisturbed(this.#stream));
  }

  get unusable() {
    return this.used || (this.#stream?.locked ?? false);
  }

  /** What is left to send or to read, without reading it: the plain source where possible. */
  get remaining() {
    if (this.unusable) throw unusableError();
    return isReplayable(this.source) || this.#stream === null ? this.source : this.#stream;
  }

  /** @returns {Promise<string>} */
  text() {
    const { source } = this;
    if (this.unusable) return Promise.reject(unusableError());
    if (this.#stream === null) {
      if (typeof source === 'string') {
        this.#taken = true;
        return Promise.resolve(withoutMark(source.toWellFormed()));
      }
      if (isUint8Array(source)) {
        this.#taken = true;
        return Promise.resolve(decode(source));
      }
    }
    return this.#read().then(decode);
  }

  /** @returns {Promise<any>} */
  json() {
    // Not `text().then(JSON.parse)`: one turn of the microtask queue less, for the common case.
    if (this.#stream === null && !this.#taken && isUint8Array(this.source)) {
      this.#taken = true;
      try {
        return Promise.resolve(JSON.parse(decode(this.source)));
      } catch (error) {
        return Promise.reject(error);
      }
    }
    return this.text().then(JSON.parse);
  }

  /** @returns {Promise<Uint8Array<ArrayBuffer>>} bytes that nobody else holds */
  bytes() {
    return this.unusable ? Promise.reject(unusableError()) : this.#read();
  }

  /** The same body again; a stream is split, so the slower reader makes the faster one buffer. */
  clone() {
    if (this.unusable) throw unusableError();
    if (isReplayable(this.source)) return new Body(this.source);
    const [mine, theirs] = this.stream.tee();
    this.#stream = mine;
    return new Body(theirs);
  }

  /** A body with what is left of this one, which is used from now on. */
  move() {
    if (this.unusable) throw unusableError();
    if (this.#stream === null) {
      this.#taken = true;
      return new Body(this.source);
    }
    // Somebody may hold the stream: it must be seen to be locked.
    const moved = this.#stream.pipeThrough(new TransformStream());
    return new Body(isReplayable(this.source) ? this.source : moved);
  }

  /** @returns {Promise<Uint8Array<ArrayBuffer>>} */
  async #read() {
    const { source } = this;
    if (this.#stream === null) {
      this.#taken = true;
      if (typeof source === 'string') return encoder.encode(source);
      if (isUint8Array(source)) return new Uint8Array(source);
      if (source instanceof Blob) return new Uint8Array(await source.arrayBuffer());
      return collect(source, bytesOfAny);
    }
    return collect(this.#stream, isReadableStream(source) ? bytesOnly : bytesOfAny);
  }
}

/**
 * @param {any} body what `new Response()` and `new Request()` take, not null
 * @returns {{ source: Source, type: string | null }} type: the content type that goes with it
 */
export function extract(body) {
  if (typeof body === 'string') return { source: body, type: 'text/plain;charset=UTF-8' };
  if (isBufferSource(body)) return { source: copyOf(body), type: null };
  const tag = typeof body === 'object' ? body[Symbol.toStringTag] : undefined;
  if (isReadableStream(body) || typeof body[Symbol.asyncIterator] === 'function') {
    if (isDisturbed(body) || body.locked) {
      throw new TypeError('Body must not be a stream that is locked or was read from');
    }
    return { source: body, type: null };
  }
  // By tag, because naming the classes would load them.
  if (tag === 'FormData') return encodeForm(body);
  if ((tag === 'Blob' || tag === 'File') && body instanceof Blob) {
    return { source: body, type: body.type === '' ? null : body.type };
  }
  if (body instanceof URLSearchParams) {
    const type = 'application/x-www-form-urlencoded;charset=UTF-8';
    return { source: body.toString(), type };
  }
  return { source: `${body}`, type: 'text/plain;charset=UTF-8' };
}

/** @param {Source} source */
export function isReplayable(source) {
  return typeof source === 'string' || isUint8Array(source) || isBlob(source);
}

/** @param {unknown} value @returns {value is ReadableStream} */
function isReadableStream(value) {
  return tagOf(value) === 'ReadableStream' && value instanceof ReadableStream;
}

/** @param {unknown} value @returns {value is Blob} */
export function isBlob(value) {
  const tag = tagOf(value);
  return (tag === 'Blob' || tag === 'File') && value instanceof Blob;
}

/** @param {any} value */
function tagOf(value) {
  return typeof value === 'object' && value !== null ? value[Symbol.toStringTag] : undefined;
}

/** @param {unknown} value @returns {value is ArrayBuffer | ArrayBufferView} */
function isBufferSource(value) {
  if (ArrayBuffer.isView(value)) return true;
  return isAnyArrayBuffer(value) && !isSharedArrayBuffer(value);
}

/** @param {ArrayBuffer | ArrayBufferView} value */
function copyOf(value) {
  // A copy, because the author may reuse the memory before the reply is written.
  // Buffer's is the cheapest: small ones come from a pool, large ones are not zeroed first.
  if (!ArrayBuffer.isView(value)) return Buffer.from(new Uint8Array(value));
  return Buffer.from(new Uint8Array(value.buffer, value.byteOffset, value.byteLength));
}

/** @param {Uint8Array} bytes @returns {string} */
function decode(bytes) {
  return withoutMark(utf8Slice.call(bytes, 0, bytes.length));
}

/** @param {string} text */
function withoutMark(text) {
  return text.charCodeAt(0) === 0xfeff ? text.slice(1) : text;
}

/** @param {unknown} chunk */
function bytesOnly(chunk) {
  if (!isUint8Array(chunk)) throw new TypeError('Received non-Uint8Array chunk');
  return chunk;
}

/** @param {any} chunk */
function bytesOfAny(chunk) {
  return isUint8Array(chunk) ? chunk : Buffer.from(chunk);
}

/** @param {AsyncIterable<any>} chunks @param {(chunk: any) => Uint8Array} convert */
async function collect(chunks, convert) {
  const parts = [];
  let length = 0;
  for await (const chunk of chunks) {
    const part = convert(chunk);
    length += part.length;
    parts.push(part);
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** @param {Source} source @returns {ReadableStream} */
function streamOf(source) {
  if (isReadableStream(source)) return source;
  if (isBlob(source)) return source.stream();
  if (typeof source === 'string') return streamOfBytes(() => encoder.encode(source));
  // A copy, because the reader owns the chunk, and clones share the source.
  if (isUint8Array(source)) return streamOfBytes(() => new Uint8Array(source));
  /** @type {AsyncIterator<any> | undefined} */
  let iterator;
  return new ReadableStream(
    {
      async pull(controller) {
        iterator ??= source[Symbol.asyncIterator]();
        for (;;) {
          const { done, value } = await iterator.next();
          if (done) return controller.close();
          const bytes = bytesOfAny(value);
          if (bytes.length > 0) return controller.enqueue(bytes);
        }
      },
      async cancel(reason) {
        iterator ??= source[Symbol.asyncIterator]();
        await iterator.return?.(reason);
      },
    },
    // Nothing is taken from the link before somebody reads: its credit is the back-pressure.
    { highWaterMark: 0 },
  );
}

/** @param {() => Uint8Array} make */
function streamOfBytes(make) {
  return new ReadableStream(
    {
      pull(controller) {
        const bytes = make();
        if (bytes.length > 0) controller.enqueue(bytes);
        controller.close();
      },
    },
    { highWaterMark: 0 },
  );
}

/** @param {FormData} form */
function encodeForm(form) {
  // Not with the built-in Response: its class cannot be had without waiting (see built-in.mjs).
  const digits = `${Math.floor(Math.random() * 1e11)}`.padStart(11, '0');
  const boundary = `----formdata-fnway-0${digits}`;
  const parts = [];
  for (const [name, value] of form) {
    const start = `--${boundary}\r\nContent-Disposition: form-data; name="${escapeName(name)}"`;
    if (typeof value === 'string') {
      parts.push(`${start}\r\n\r\n${crlf(value)}\r\n`);
    } else {
      const type = value.type || 'application/octet-stream';
      const file = value.name ? `; filename="${escapeQuoted(value.name)}"` : '';
      parts.push(`${start}${file}\r\nContent-Type: ${type}\r\n\r\n`, value, '\r\n');
    }
  }
  parts.push(`--${boundary}--\r\n`);
  return { source: new Blob(parts), type: `multipart/form-data; boundary=${boundary}` };
}

/** @param {string} name */
function escapeName(name) {
  return escapeQuoted(crlf(name));
}

/** @param {string} text */
function escapeQuoted(text) {
  return text.replace(/\n/g, '%0A').replace(/\r/g, '%0D').replace(/"/g, '%22');
}

/** @param {string} text */
function crlf(text) {
  return text.replace(/\r?\n|\r/g, '\r\n');
}

function unusableError() {
  return new TypeError('Body is unusable: Body has already been read');
}
