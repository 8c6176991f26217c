/**
 * The light Response: what function code sees as `Response`.
 *
 * Responsible for what authors can say in `new Response()` and the static members, and for handing
 * the parts to the runtime. Not responsible for headers and bodies, which are parts of it, nor for
 * responses of fetch, which are the built-in's.
 *
 * Invariant: a response is valid once it is constructed, so that its parts need no checking; the
 * Headers and the Body around them are made when somebody looks.
 *
 * Different from the built-in: messages of errors; `Response.json(data, null)` is allowed, as the
 * standard says.
 */
import { Body, extract, isBlob } from './body.mjs';
import { acceptBuiltIn, contentOf, readWithBuiltIn } from './built-in.mjs';
import { exposeAsWebClass, findHeader, pairsOf, wrapPairs } from './headers.mjs';

/**
 * @typedef {object} ResponseParts
 * @property {number} status 200 to 599
 * @property {string[]} headers flat names, in lower case, and values; not to be changed
 * @property {string | Uint8Array | ReadableStream | AsyncIterable<any> | null} body
 */

const fromParts = Symbol('fromParts');
/** @type {string[]} */
const noHeaders = Object.freeze(/** @type {any} */ ([]));
const redirectStatuses = new Set([301, 302, 303, 307, 308]);

/** @type {(response: LightResponse) => ResponseParts} */
let partsOf;
/** @type {(value: unknown) => value is LightResponse} */
let isLightResponse;

export class LightResponse {
  #status = 200;
  /** @type {string[]} shared with `#headers`, once that is made */
  #list = noHeaders;
  /** @type {LightHeaders | null} */
  #headers = null;
  /** @type {import('./body.mjs').Source | null} */
  #source = null;
  /** @type {Body | null} made of the source when first needed */
  #body = null;
  #statusText = '';
  /** @type {'default' | 'error'} */
  #type = 'default';
  #immutable = false;

  /** @param {any} [body] @param {any} [init] */
  constructor(body = null, init = undefined) {
    if (body === fromParts) return;
    let type = null;
    if (typeof body === 'string') {
      this.#source = body;
      type = 'text/plain;charset=UTF-8';
    } else if (body !== null) {
      const extracted = extract(body);
      this.#source = extracted.source;
      type = extracted.type;
    }
    if (init === undefined) {
      if (type !== null) this.#list = ['content-type', type];
      return;
    }
    this.#start(init, type);
  }

  /** @param {any} data @param {any} [init] */
  static json(data, init = undefined) {
    const text = JSON.stringify(data);
    if (text === undefined) throw new TypeError('Value is not JSON serializable');
    const response = new LightResponse(fromParts);
    response.#source = text;
    if (init === undefined) response.#list = ['content-type', 'application/json'];
    else response.#start(init, 'application/json');
    return response;
  }

  /** @param {string | URL} url @param {number} [status] */
  static redirect(url, status = 302) {
    const location = urlOf(url).href;
    const code = unsignedShort(status);
    if (!redirectStatuses.has(code)) throw new RangeError(`Invalid status code ${code}`);
    const response = new LightResponse(fromParts);
    response.#status = code;
    response.#list = ['location', location];
    response.#immutable = true;
    return response;
  }

  static error() {
    const response = new LightResponse(fromParts);
    response.#status = 0;
    response.#type = 'error';
    response.#immutable = true;
    return response;
  }

  get type() {
    return this.#type;
  }

  get url() {
    return '';
  }

  get redirected() {
    return false;
  }

  get status() {
    return this.#status;
  }

  get ok() {
    return this.#status >= 200 && this.#status <= 299;
  }

  get statusText() {
    return this.#statusText;
  }

  get headers() {
    if (this.#headers === null) {
      if (this.#list === noHeaders) this.#list = [];
      this.#headers = wrapPairs(this.#list, { immutable: this.#immutable });
    }
    return this.#headers;
  }

  get body() {
    return this.#content()?.stream ?? null;
  }

  get bodyUsed() {
    return this.#content()?.used ?? false;
  }

  text() {
    return contentOf(this.#content()).text();
  }

  json() {
    return contentOf(this.#content()).json();
  }

  bytes() {
    return contentOf(this.#content()).bytes();
  }

  /** @returns {Promise<ArrayBuffer>} */
  arrayBuffer() {
    return contentOf(this.#content()).bytes().then(bufferOf);
  }

  /** @returns {Promise<Blob>} */
  blob() {
    return readWithBuiltIn(this.#content(), this.headers, 'blob');
  }

  /** @returns {Promise<FormData>} */
  formData() {
    return readWithBuiltIn(this.#content(), this.headers, 'formData');
  }

  clone() {
    const body = this.#content()?.clone() ?? null;
    const copy = new LightResponse(fromParts);
    copy.#status = this.#status;
    copy.#statusText = this.#statusText;
    copy.#type = this.#type;
    copy.#immutable = this.#immutable;
    copy.#list = this.#list.slice();
    copy.#source = body === null ? null : body.source;
    copy.#body = body;
    return copy;
  }

  #content() {
    if (this.#body === null && this.#source !== null) this.#body = new Body(this.#source);
    return this.#body;
  }

  /** What the constructor's second argument says. */
  #start(init, type) {
    const { headers, status, statusText } = dictionary(init);
    if (headers !== undefined) this.#list = pairsOf(headers);
    if (status !== undefined) this.#status = statusOf(status);
    if (statusText !== undefined) this.#statusText = reasonOf(statusText);
    if (this.#source === null) return;
    const code = this.#status;
    if (code === 204 || code === 205 || code === 304) {
      throw new TypeError(`Response: status ${code} cannot have a body`);
    }
    if (type === null || findHeader(this.#list, 'content-type') !== undefined) return;
    if (this.#list === noHeaders) this.#list = ['content-type', type];
    else this.#list.push('content-type', type);
  }

  [Symbol.for('nodejs.util.inspect.custom')](depth, options, inspect) {
    const { status, statusText, headers, bodyUsed, ok, type } = this;
    const shown = { status, statusText, headers, bodyUsed, ok, type };
    return depth < 0 ? '[Response]' : `Response ${inspect(shown, { ...options, depth })}`;
  }

  static {
    isLightResponse = /** @type {any} */ (
      value => typeof value === 'object' && value !== null && #list in value
    );
    partsOf = response => {
      const source = response.#source;
      // A string or bytes that nobody has looked at, nearly always.
      const plain = response.#body === null && (source === null || typeof source === 'string');
      let body = plain ? source : response.#content().remaining;
      if (isBlob(body)) body = body.stream();
      return { status: response.#status, headers: response.#list, body };
    };
  }
}

exposeAsWebClass(LightResponse, 'Response');
acceptBuiltIn(LightResponse, 'Response');

export { isLightResponse, partsOf };

/** @param {any} init */
function dictionary(init) {
  if (init === undefined || init === null) return {};
  if (typeof init === 'object' || typeof init === 'function') return init;
  throw new TypeError('expected an object of options');
}

/** @param {any} input */
function urlOf(input) {
  const url = URL.parse(`${input}`);
  if (url === null) throw new TypeError(`Failed to parse URL from ${input}`);
  return url;
}

/** @param {any} value */
function statusOf(value) {
  const status = unsignedShort(value);
  if (status >= 200 && status <= 599) return status;
  throw new RangeError('init["status"] must be in the range of 200 to 599, inclusive.');
}

/** @param {any} value */
function unsignedShort(value) {
  // As Web IDL converts: whatever is no number is 0, large numbers wrap.
  return Number(value) & 0xffff;
}

/** @param {any} value */
function reasonOf(value) {
  const reason = `${value}`;
  if (!/^[\t\x20-\x7e\x80-\xff]*$/.test(reason)) throw new TypeError('Invalid statusText');
  return reason;
}

/** @param {Uint8Array<ArrayBuffer>} bytes */
function bufferOf(bytes) {
  return bytes.buffer;
}
