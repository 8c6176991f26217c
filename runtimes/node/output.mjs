/**
 * Whose a line of output is: each call runs in a context of its own, and what is written to the standard streams in it is
 * marked as the call's, a line at a time (docs/reference/link.md). What nobody's context writes (timers set while the
 * module loaded, other threads, file descriptors, programs that were started) goes out as it is: the instance's.
 *
 * In the stream, not beside it: lines keep their order among all that the process writes, and whole lines are written when
 * a crash comes.
 */
import { AsyncLocalStorage } from 'node:async_hooks';

const current = new AsyncLocalStorage();
const idChars = 26;
/** A line that is longer is ended. */
const lineCharsMax = 16_384;

/** Writes to a standard stream without a look at whose it is, once the stream is in use. */
const plainWrites = [];

/**
 * Runs `fn`, and all that it sets off, as part of a call.
 * @param {{ output: CallOutput }} call
 */
export function runInCall(call, fn, ...parts) {
  return current.run(call, fn, ...parts);
}

/** What a call has written without the end of its line. */
export class CallOutput {
  #mark;
  #rests = ['', ''];

  /** @param {string} id of the invocation */
  constructor(id) {
    this.#mark = `\x1e${id.slice(-idChars)}\x1f`;
  }

  /** The whole lines that this ends, marked; the rest is kept. */
  lines(stream, text) {
    let all = this.#rests[stream] + text;
    let end = all.lastIndexOf('\n') + 1;
    // The gateway cuts it there anyway: it need not grow here.
    if (all.length - end > lineCharsMax) {
      all += '\n';
      end = all.length;
    }
    this.#rests[stream] = all.slice(end);
    if (end === 0) return '';
    // Nearly always one line: nothing to split.
    if (all.indexOf('\n') === end - 1) return this.#mark + all.slice(0, end);
    const marked = all.slice(0, end - 1).split('\n');
    return `${this.#mark}${marked.join(`\n${this.#mark}`)}\n`;
  }

  /** The call is over: what has no end of its line gets one. */
  end() {
    for (const [index, rest] of this.#rests.entries())
      if (rest !== '') plainWrites[index](`${this.#mark}${rest}\n`);
    this.#rests = ['', ''];
  }
}

/** Marks what is written to `process.stdout` and `process.stderr`, and so by `console`. Neither is made before it is used. */
export function markOutput() {
  for (const [index, name] of ['stdout', 'stderr'].entries()) {
    const { get } = Object.getOwnPropertyDescriptor(process, name);
    Object.defineProperty(process, name, {
      configurable: true,
      enumerable: true,
      get() {
        const stream = get.call(process);
        Object.defineProperty(process, name, { configurable: true, enumerable: true, get });
        markStream(stream, index);
        return stream;
      },
    });
  }
}

function markStream(stream, index) {
  const write = stream.write;
  plainWrites[index] = text => write.call(stream, text);
  stream.write = function (chunk, encoding, callback) {
    const call = current.getStore();
    if (call === undefined) return write.call(this, chunk, encoding, callback);
    const text = textOf(chunk, encoding);
    // What is no text is the stream's own affair, and its error.
    if (text === undefined) return write.call(this, chunk, encoding, callback);
    call.output ??= new CallOutput(call.id);
    return write.call(this, call.output.lines(index, text), 'utf8', callbackOf(encoding, callback));
  };
}

function textOf(chunk, encoding) {
  if (typeof chunk === 'string') {
    if (typeof encoding !== 'string' || /^utf-?8$/i.test(encoding)) return chunk;
    return Buffer.isEncoding(encoding) ? Buffer.from(chunk, encoding).toString() : undefined;
  }
  if (!(chunk instanceof Uint8Array)) return undefined;
  return Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length).toString();
}

function callbackOf(encoding, callback) {
  return typeof encoding === 'function' ? encoding : callback;
}
