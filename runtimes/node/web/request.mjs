/**
 * The light Request: what function code sees as `Request`.
 *
 * Responsible for the two ways a request comes about, from a call over the link and by an author's
 * `new Request()`, and for turning one into arguments of the built-in fetch. Not responsible for
 * headers and bodies, which are parts of it.
 *
 * Invariant: whatever of a call costs time (URL, headers, signal, body) is made when asked for,
 * and the URL comes from the headers as received, whatever the author does to them later.
 *
 * Different from the built-in: messages of errors; `new Request(request)` keeps the referrer and
 * its policy if no option is given, as the standard says; every signal is made when first read;
 * every referrer is accepted, as there is no origin to compare it with.
 */
import { Body, extract, isReplayable } from './body.mjs';
import { contentOf, readWithBuiltIn } from './built-in.mjs';
import { exposeAsWebClass, findHeader, LightHeaders } from './headers.mjs';

/**
 * @typedef {object} Call
 * @property {Head} head
 * @property {Uint8Array | AsyncIterable<Uint8Array> | null} body chunks must not be reused
 * @property {() => AbortSignal} signal makes the signal; called once, if anybody asks for it
 */

/**
 * @typedef {object} Head what call-head.mjs reads
 * @property {string} method
 * @property {string} target path and query as received, starting with `/`
 * @property {string[]} headers flat names and values, which belong to the request from now on
 * @property {string} [origin] of the URL; by default what the headers say
 */

const fromCall = Symbol('fromCall');
const requestDefaults = Object.freeze({
  referrer: 'about:client',
  referrerPolicy: '',
  mode: 'cors',
  credentials: 'same-origin',
  cache: 'default',
  redirect: 'follow',
  integrity: '',
  keepalive: false,
});
const requestChoices = {
  referrerPolicy: [
    ...['', 'no-referrer', 'no-referrer-when-downgrade', 'same-origin', 'origin', 'strict-origin'],
    ...['origin-when-cross-origin', 'strict-origin-when-cross-origin', 'unsafe-url'],
  ],
  mode: ['navigate', 'same-origin', 'no-cors', 'cors'],
  credentials: ['omit', 'same-origin', 'include'],
  cache: ['default', 'no-store', 'reload', 'no-cache', 'force-cache', 'only-if-cached'],
  redirect: ['follow', 'error', 'manual'],
  duplex: ['half'],
};
const requestInitNames = [
  ...Object.keys(requestDefaults),
  ...['method', 'headers', 'body', 'signal', 'duplex', 'window', 'dispatcher', 'priority'],
];
const methodsInUpperCase = new Set(['DELETE', 'GET', 'HEAD', 'OPTIONS', 'POST', 'PUT']);
const methodsForbidden = new Set(['CONNECT', 'TRACE', 'TRACK']);
const methodPattern = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;

/** @type {(request: LightRequest) => [string, Record<string, any>]} */
let argumentsOf;
/** @type {(value: unknown) => value is LightRequest} */
let isLightRequest;

export class LightRequest {
  /** @type {Call | null} */
  #call = null;
  #method = 'GET';
  /** @type {string | null} */
  #url = null;
  /** @type {LightHeaders | null} */
  #headers = null;
  /** @type {Body | null | undefined} undefined: not made of the call's body yet */
  #body;
  /** @type {AbortSignal | null} */
  #signal = null;
  /** @type {Record<string, any>} */
  #options = requestDefaults;

  /** @param {any} input @param {any} [init] */
  constructor(input, init = undefined) {
    if (input === fromCall) {
      this.#call = init;
      this.#method = init.head.method;
      return;
    }
    this.#build(input, dictionary(init));
  }

  /** @param {Call} call @returns {LightRequest} */
  static fromCall(call) {
    return new LightRequest(fromCall, call);
  }

  get method() {
    return this.#method;
  }

  get url() {
    this.#url ??= urlOf(/** @type {Call} */ (this.#call));
    return this.#url;
  }

  get headers() {
    if (this.#headers === null) {
      const call = /** @type {Call} */ (this.#call);
      this.#headers = LightHeaders.fromPairs(call.head.headers);
    }
    return this.#headers;
  }

  get signal() {
    if (this.#signal === null) {
      this.#signal = this.#call === null ? new AbortController().signal : this.#call.signal();
    }
    return this.#signal;
  }

  get body() {
    return this.#content()?.stream ?? null;
  }

  get bodyUsed() {
    return this.#content()?.used ?? false;
  }

  get destination() {
    return '';
  }

  get referrer() {
    return this.#options.referrer;
  }

  get referrerPolicy() {
    return this.#options.referrerPolicy;
  }

  get mode() {
    return this.#options.mode;
  }

  get credentials() {
    return this.#options.credentials;
  }

  get cache() {
    return this.#options.cache;
  }

  get redirect() {
    return this.#options.redirect;
  }

  get integrity() {
    return this.#options.integrity;
  }

  get keepalive() {
    return this.#options.keepalive;
  }

  get isReloadNavigation() {
    return false;
  }

  get isHistoryNavigation() {
    return false;
  }

  get duplex() {
    return 'half';
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
    const signal = () => followerOf(this.signal);
    const copy = new LightRequest(fromCall, { head: { method: this.#method }, signal });
    copy.#url = this.url;
    copy.#headers = new LightHeaders(this.headers);
    copy.#body = body;
    copy.#options = this.#options;
    return copy;
  }

  #content() {
    if (this.#body === undefined) {
      const source = /** @type {Call} */ (this.#call).body;
      const none = source === null || this.#method === 'GET' || this.#method === 'HEAD';
      this.#body = none ? null : new Body(source);
    }
    return this.#body;
  }

  /** The constructor that authors use, step by step as the standard has it. */
  #build(input, init) {
    const from = isRequest(input) ? input : null;
    const given = requestInitNames.some(name => init[name] !== undefined);
    this.#url = from === null ? parsedUrl(input) : from.url;
    this.#options = requestOptions(init, from, given);
    this.#method = init.method === undefined ? (from?.method ?? 'GET') : methodOf(init.method);
    if (this.#options.mode === 'no-cors' && !/^(GET|HEAD|POST)$/.test(this.#method)) {
      throw new TypeError(`Request: ${this.#method} is unsupported in no-cors mode`);
    }
    this.#headers = new LightHeaders(init.headers === undefined ? from?.headers : init.headers);
    this.#body = this.#takeBody(init, from);
    if (init.signal !== undefined && init.signal !== null) needSignal(init.signal);
    if (init.signal !== null && (init.signal !== undefined || from !== null)) {
      const signal = () => followerOf(init.signal ?? from.signal);
      this.#call = /** @type {any} */ ({ signal });
    }
  }

  /** @returns {Body | null} */
  #takeBody(init, from) {
    const { body } = init;
    if (body === undefined || body === null) return this.#takeBodyOf(from);
    this.#refuseBodyOfGet();
    const { source, type } = extract(body);
    if (type !== null && !this.headers.has('content-type')) this.headers.set('content-type', type);
    if (!isReplayable(source)) {
      if (init.duplex === undefined) {
        throw new TypeError('RequestInit: duplex option is required when sending a body.');
      }
      if (this.mode === 'no-cors') throw new TypeError('Request: no-cors mode cannot stream');
      if (this.keepalive) throw new TypeError('Request: keepalive cannot stream');
    }
    return new Body(source);
  }

  /** @returns {Body | null} */
  #takeBodyOf(from) {
    const body = isLightRequest(from) ? from.#content() : from?.body;
    if (body === null || body === undefined) return null;
    this.#refuseBodyOfGet();
    return body instanceof Body ? body.move() : new Body(body).move();
  }

  #refuseBodyOfGet() {
    if (this.#method !== 'GET' && this.#method !== 'HEAD') return;
    throw new TypeError('Request with GET/HEAD method cannot have body.');
  }

  [Symbol.for('nodejs.util.inspect.custom')](depth, options, inspect) {
    const { method, url, headers, bodyUsed, redirect } = this;
    const shown = { method, url, headers, bodyUsed, redirect };
    return depth < 0 ? '[Request]' : `Request ${inspect(shown, { ...options, depth })}`;
  }

  static {
    isLightRequest = /** @type {any} */ (
      value => typeof value === 'object' && value !== null && #call in value
    );
    argumentsOf = request => {
      const body = request.#content();
      const source = body === null ? null : body.remaining;
      /** @type {Record<string, any>} */
      const init = {
        method: request.#method,
        headers: [...request.headers],
        // Text would make the built-in add a content type that the request does not have.
        body: typeof source === 'string' ? Buffer.from(source) : source,
        signal: request.signal,
      };
      if (source !== null && !isReplayable(source)) init.duplex = 'half';
      for (const [name, value] of Object.entries(request.#options)) {
        if (value !== requestDefaults[name]) init[name] = value;
      }
      return [request.url, init];
    };
  }
}

exposeAsWebClass(LightRequest, 'Request');

export { isLightRequest };

/**
 * What to call the built-in fetch with, for a light Request; its body is used from then on.
 * @param {LightRequest} input
 * @param {any} init
 * @returns {[string, Record<string, any>]}
 */
export function fetchArguments(input, init) {
  return argumentsOf(new LightRequest(input, init));
}

/** @param {any} value */
function isRequest(value) {
  if (typeof value !== 'object' || value === null) return false;
  return isLightRequest(value) || value[Symbol.toStringTag] === 'Request';
}

// The URL of a call.

/** Origins by what the headers say, because parsing one costs more than all the rest of a call. */
const origins = new Map();
const originsMax = 64;
// A target that URL leaves as it is: nothing to escape, no segment that starts with a dot. A quote
// is escaped in a query only.
const plainTargetPattern = /^(?:\/(?![.%])[\w\-~!$&()*+,;=:@.%]*)+(?:\?[\w\-~!$&()*+,;=:@.%/?]*)?$/;

/** @param {Call} call */
function urlOf({ head }) {
  const origin = head.origin ?? originOf(head.headers);
  const { target } = head;
  return plainTargetPattern.test(target) ? origin + target : new URL(origin + target).href;
}

/** @param {string[]} headers */
export function originOf(headers) {
  const proto = findHeader(headers, 'x-forwarded-proto') ?? 'http';
  const forwarded = findHeader(headers, 'x-forwarded-host');
  const host = forwarded ?? findHeader(headers, 'host') ?? 'localhost';
  const key = `${proto}://${host}`;
  let origin = origins.get(key);
  if (origin === undefined) {
    const scheme = firstOf(proto).toLowerCase() === 'https' ? 'https' : 'http';
    const url = URL.parse(`${scheme}://${firstOf(host)}`);
    origin = url === null ? `${scheme}://localhost` : url.origin;
    // Callers choose their Host: the table must not grow with them.
    if (origins.size >= originsMax) origins.clear();
    origins.set(key, origin);
  }
  return origin;
}

/** @param {string} list what several proxies appended to, comma-separated */
function firstOf(list) {
  return list.split(',', 1)[0].trim();
}

/** @param {any} init */
function dictionary(init) {
  if (init === undefined || init === null) return {};
  if (typeof init === 'object' || typeof init === 'function') return init;
  throw new TypeError('expected an object of options');
}

/** @param {any} input */
function parsedUrl(input) {
  const url = parsedUrlOf(input);
  if (url.username !== '' || url.password !== '') {
    throw new TypeError(`Request: the URL must not include credentials: ${input}`);
  }
  return url.href;
}

/** @param {any} input */
function parsedUrlOf(input) {
  const url = URL.parse(`${input}`);
  if (url === null) throw new TypeError(`Failed to parse URL from ${input}`);
  return url;
}

function requestOptions(init, from, given) {
  if (!given && from === null) return requestDefaults;
  if (init.window !== undefined && init.window !== null) {
    throw new TypeError("Request: 'window' option must be null");
  }
  for (const [name, choices] of Object.entries(requestChoices)) {
    if (init[name] !== undefined && !choices.includes(`${init[name]}`)) {
      throw new TypeError(`Request: ${init[name]} is not an accepted ${name}`);
    }
  }
  if (init.mode === 'navigate') throw new TypeError('Request: invalid mode navigate');
  const options = { ...requestDefaults };
  if (from?.mode === 'navigate') options.mode = 'same-origin';
  for (const name of Object.keys(requestDefaults)) {
    const inherited = !given || (name !== 'referrer' && name !== 'referrerPolicy');
    if (from !== null && inherited) options[name] = from[name];
    if (init[name] !== undefined && name !== 'referrer') options[name] = init[name];
  }
  options.keepalive = Boolean(options.keepalive);
  options.integrity = `${options.integrity}`;
  if (init.referrer !== undefined) options.referrer = referrerOf(init.referrer);
  if (init.dispatcher !== undefined) options.dispatcher = init.dispatcher;
  if (options.cache === 'only-if-cached' && options.mode !== 'same-origin') {
    throw new TypeError("Request: 'only-if-cached' needs 'same-origin' mode");
  }
  return options;
}

/** @param {any} referrer */
function referrerOf(referrer) {
  if (`${referrer}` === '') return '';
  const url = parsedUrlOf(referrer);
  return url.protocol === 'about:' && url.pathname === 'client' ? 'about:client' : url.href;
}

/** @param {any} value */
function methodOf(value) {
  const method = `${value}`;
  if (!methodPattern.test(method)) throw new TypeError(`'${method}' is not a valid HTTP method.`);
  const upper = method.toUpperCase();
  if (methodsForbidden.has(upper)) throw new TypeError(`'${method}' HTTP method is unsupported.`);
  return methodsInUpperCase.has(upper) ? upper : method;
}

/** @param {any} signal */
function needSignal(signal) {
  if (!(signal instanceof AbortSignal)) throw new TypeError('Request: signal is no AbortSignal');
}

/** @param {AbortSignal} signal */
function followerOf(signal) {
  return AbortSignal.any([signal]);
}

/** @param {Uint8Array<ArrayBuffer>} bytes */
function bufferOf(bytes) {
  return bytes.buffer;
}
