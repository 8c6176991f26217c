/**
 * A call as Node's own request and response, for what is written for a Node server: no port and no connection, only a
 * stream in place of a socket. What the response writes into it is read back as status, headers and body, and leaves as
 * the answers of other styles do. Keeps the invariant that a call gets one answer, or none once nobody waits for it.
 */
import { IncomingMessage, ServerResponse } from 'node:http';
import { Duplex } from 'node:stream';

/** Of a body that nobody has taken yet: what writes more has to wait. */
const waitingBytesMax = 65_536;

/** The call that a request belongs to. */
const exchanges = new WeakMap();

/** @returns {Exchange} */
export function exchangeOf(req) {
  return exchanges.get(req);
}

/**
 * @param {(req: IncomingMessage, res: ServerResponse) => void} app
 * @param {CallOfApp} call
 */
export function answerWith(app, call) {
  const exchange = new Exchange(call);
  app(exchange.req, exchange.res);
}

/**
 * @typedef {object} CallOfApp
 * @property {string} method
 * @property {string} target
 * @property {string[]} headers names and values in turn
 * @property {Uint8Array | null} body
 * @property {(status: number, headers: string[], body: any) => void} send
 * @property {(message: string) => void} fail no answer that can be sent; also when nobody waits any more
 * @property {(fn: (reason: DOMException) => void) => void} onCancel
 * @property {() => DOMException | undefined} cancelled why nobody waits any more
 */

class Exchange {
  req;
  res;
  /** The function threw: counted as its failure, though the answer is its own. */
  threw = false;
  #call;
  #socket;
  #state = /** @type {'open' | 'deciding' | 'answered'} */ ('open');
  #cancelled = undefined;
  #running = undefined;
  #controller = undefined;
  #head = undefined;
  #body = new WaitingBody(() => this.#cancel(this.#call.cancelled() ?? unread));

  constructor(call) {
    this.#call = call;
    this.#socket = new CallSocket(
      (chunk, done) => this.#written(chunk, done),
      () => this.#destroyed(),
    );
    this.req = requestOf(call, this.#socket);
    this.res = responseTo(this.req, this.#socket);
    exchanges.set(this.req, this);
    this.res.on('finish', () => this.#finished());
    // Also of a response that is ended when nobody reads it any more.
    this.res.on('prefinish', () => this.#giveUp());
    call.onCancel(reason => this.#cancel(reason));
  }

  /** The caller left, or its time is up. */
  get isGone() {
    return this.#cancelled !== undefined;
  }

  /** What handlers that know the framework look at. Made when first asked for. */
  get abortController() {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.isGone) this.#controller.abort(reasonOf(this.#cancelled));
    }
    return this.#controller;
  }

  /** Until it settles the handler is at work, whatever becomes of the caller. */
  runs(promise) {
    this.#running = promise;
  }

  /** Sends what is there at once: for a process that is about to end. */
  answerNow() {
    if (this.#state === 'deciding') this.#answer();
  }

  /** Bytes of the response: the head is always whole in the first ones. */
  #written(chunk, done) {
    let bytes = chunk;
    if (this.#head === undefined) {
      const end = chunk.indexOf('\r\n\r\n');
      this.#head = parseHead(chunk.toString('latin1', 0, end));
      bytes = chunk.subarray(end + 4);
      this.#state = 'deciding';
      // The rest of a short answer comes in the same turn: then all of it goes in one frame.
      process.nextTick(() => this.answerNow());
    }
    this.#body.push(bytes, done);
  }

  #answer() {
    this.#state = 'answered';
    const { status, headers } = this.#head;
    if (status < 200 || status > 599) {
      this.#socket.destroy();
      return this.#call.fail(`a status must be from 200 to 599, not ${status}`);
    }
    // Read by the gateway, and seen by nobody else.
    if (this.threw) headers.push('X-Fnway-Failure', 'threw');
    const isWhole = this.res.writableEnded && this.#socket.writableLength === 0;
    if (!isWhole) return this.#call.send(status, headers, this.#body);
    this.#call.send(status, headers, this.#body.takeAll());
  }

  #finished() {
    const { req, res } = this;
    this.answerNow();
    this.#body.end();
    res.detachSocket(this.#socket);
    req.resume();
    // As Node's server does: nothing else says so without a connection.
    process.nextTick(() => {
      if (res.closed) return;
      res.destroyed = true;
      res._closed = true;
      res.emit('close');
    });
  }

  /** The handler itself cut the connection, or we did because the caller left. */
  #destroyed() {
    this.#body.fail(new Error('the response was destroyed before its end'));
    if (this.#state === 'answered' || this.isGone) return;
    this.#state = 'answered';
    this.#call.fail('the function destroyed its response before it had sent a status');
  }

  #cancel(reason) {
    if (this.isGone) return;
    this.#cancelled = reason;
    this.#controller?.abort(reasonOf(reason));
    this.#socket.destroy();
    if (!this.req.destroyed) this.req.destroy();
    // Whoever has not promised anything is told by `close`, and has returned.
    if (this.#running === undefined) this.#giveUp();
    else {
      const giveUp = () => this.#giveUp();
      this.#running.then(giveUp, giveUp);
    }
  }

  #giveUp() {
    if (!this.isGone || this.#state === 'answered') return;
    this.#state = 'answered';
    this.#call.fail('nobody waits for the answer any more');
  }
}

const unread = new DOMException('nobody reads the answer', 'AbortError');

function reasonOf(error) {
  return error.name === 'TimeoutError' ? 'timeout' : 'request closed';
}

/** @param {CallOfApp} call */
function requestOf({ method, target, headers, body }, socket) {
  const req = new IncomingMessage(socket);
  req.method = method;
  req.url = target;
  req.httpVersion = '1.1';
  req.httpVersionMajor = 1;
  req.httpVersionMinor = 1;
  const pairs = withLength(headers, body);
  // As Node's parser does it: joins what repeats, and fills rawHeaders.
  req._addHeaderLines(pairs, pairs.length);
  if (body !== null) req.push(body);
  req.complete = true;
  req.push(null);
  return req;
}

/** Of a body that came in chunks the length is known by now; whoever parses bodies looks whether there is one. */
function withLength(headers, body) {
  if (body === null || body.length === 0) return headers;
  for (let i = 0; i < headers.length; i += 2)
    if (headers[i].length === 14 && headers[i].toLowerCase() === 'content-length') return headers;
  return [...headers, 'Content-Length', String(body.length)];
}

function responseTo(req, socket) {
  const res = new ServerResponse(req);
  res.sendDate = false;
  res.useChunkedEncodingByDefault = false;
  // Own properties: Express gives a response another prototype, and so does an app within the app.
  Object.defineProperties(res, {
    // What is written is the body itself, also when the handler asks for chunks.
    chunkedEncoding: { get: () => false, set() {} },
    writableNeedDrain: { get: () => socket.writableNeedDrain && !res.finished },
    writeContinue: { value: done => done?.() },
    writeProcessing: { value: done => done?.() },
    writeEarlyHints: { value: (_, done) => done?.() },
  });
  socket.on('drain', () => {
    if (!res.finished) res.emit('drain');
  });
  res.assignSocket(socket);
  return res;
}

/** What the response takes for its connection. */
class CallSocket extends Duplex {
  /** Of whoever connects to the instance: the caller is in X-Forwarded-For. */
  remoteAddress = '127.0.0.1';
  remoteFamily = 'IPv4';
  remotePort = 0;
  #written;
  #gone;

  constructor(written, gone) {
    super({ highWaterMark: waitingBytesMax });
    this.#written = written;
    this.#gone = gone;
  }

  _read() {}

  _write(chunk, _, done) {
    this.#written(chunk, done);
  }

  _writev(chunks, done) {
    this.#written(Buffer.concat(chunks.map(({ chunk }) => chunk)), done);
  }

  _destroy(error, done) {
    this.#gone();
    done(error);
  }

  /** The gateway has the only clock. */
  setTimeout() {
    return this;
  }
  setNoDelay() {
    return this;
  }
  setKeepAlive() {
    return this;
  }
  address() {
    return { address: '127.0.0.1', family: 'IPv4', port: 8080 };
  }
}

/** Chunks between the handler that writes and the link that takes. */
class WaitingBody {
  #chunks = [];
  #bytes = 0;
  #ended = false;
  #error = undefined;
  /** Told when there is room again. */
  #written = undefined;
  #wake = undefined;
  #onReturn;

  constructor(onReturn) {
    this.#onReturn = onReturn;
  }

  push(chunk, done) {
    if (chunk.length > 0) this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    if (this.#bytes < waitingBytesMax) done();
    else this.#written = done;
    this.#wakeUp();
  }

  /** Of a body that is complete. */
  takeAll() {
    const chunks = this.#chunks;
    this.#chunks = [];
    if (chunks.length === 0) return null;
    const all = chunks.length === 1 ? chunks[0] : Buffer.concat(chunks);
    this.#release();
    return all;
  }

  end() {
    this.#ended = true;
    this.#wakeUp();
  }

  fail(error) {
    if (!this.#ended) this.#error ??= error;
    this.#wakeUp();
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  async next() {
    while (true) {
      const value = this.#chunks.shift();
      if (value !== undefined) {
        this.#bytes -= value.length;
        if (this.#bytes < waitingBytesMax) this.#release();
        return { done: false, value };
      }
      if (this.#error !== undefined) throw this.#error;
      if (this.#ended) return { done: true, value: undefined };
      await new Promise(resolve => {
        this.#wake = resolve;
      });
    }
  }

  /** By a reader that wants no more. */
  async return() {
    this.#onReturn();
    return { done: true, value: undefined };
  }

  #release() {
    const written = this.#written;
    this.#written = undefined;
    written?.();
  }

  #wakeUp() {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }
}

/** @param {string} text status line and header lines, as Node writes them */
function parseHead(text) {
  const [first, ...lines] = text.split('\r\n');
  const headers = [];
  for (const line of lines) {
    const colon = line.indexOf(': ');
    headers.push(line.slice(0, colon), line.slice(colon + 2));
  }
  return { status: Number(first.split(' ', 2)[1]), headers };
}
