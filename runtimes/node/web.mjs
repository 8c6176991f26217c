/**
 * The web classes of function code in a Node instance: light stand-ins for Node's own Request,
 * Response and Headers.
 *
 * Responsible for replacing the globals, and for what the runtime needs: a Request made of a call,
 * the parts of a Response. They behave as Node's own do, at a tenth of their cost per call, and
 * without loading them (7 MiB) until `fetch()`, `formData()` or `blob()` needs them. Not
 * responsible for the link, nor for how the classes work (web/).
 *
 * Invariant: loading and installing this file, answering, and reading a body as text, JSON or
 * bytes never load the built-in classes.
 *
 * Different from the built-in (the files in web/ say what else is, for each class):
 * - an error's message may differ; its class does not;
 * - `structuredClone` copies an empty object instead of throwing;
 * - `WebAssembly.compileStreaming` takes a response of `fetch`, not one made with `new Response`;
 * - `fetch` returns the built-in Response; `instanceof Response` and `Headers` hold for both.
 */
import { acceptBuiltIn, fetchBuiltIn } from './web/built-in.mjs';
import { LightHeaders, toPairs } from './web/headers.mjs';
import { fetchArguments, isLightRequest, LightRequest } from './web/request.mjs';
import { isLightResponse, LightResponse, partsOf } from './web/response.mjs';

export { LightHeaders, LightRequest, LightResponse, toPairs };

acceptBuiltIn(LightHeaders, 'Headers');

/** Makes the light classes what `Request`, `Response`, `Headers` and `fetch` mean. */
export function installWebGlobals() {
  // By assignment: see web/built-in.mjs. The properties stay writable and configurable.
  const scope = /** @type {any} */ (globalThis);
  scope.Request = LightRequest;
  scope.Response = LightResponse;
  scope.Headers = LightHeaders;
  scope.fetch = fetch;
}

/**
 * Whether a handler's result is a Response: light, built-in, or of a package such as undici.
 * @param {any} value
 */
function isResponse(value) {
  return isLightResponse(value) || value?.[Symbol.toStringTag] === 'Response';
}

/**
 * What the runtime sends, without reading the body. Throws TypeError if the body was
 * used, or it is no Response.
 * @param {any} response light or built-in
 * @returns {import('./web/response.mjs').ResponseParts}
 */
export function responseParts(response) {
  if (!isResponse(response)) throw new TypeError(`not a Response, but ${typeof response}`);
  if (response.type === 'error') throw new TypeError('Response.error() is no answer');
  if (isLightResponse(response)) return partsOf(response);
  const { status, headers, body } = response;
  if (response.bodyUsed || body?.locked) {
    throw new TypeError('Body is unusable: Body has already been read');
  }
  const decoded = body !== null && response.url !== '' && isDecodedByFetch(headers);
  const pairs = toPairs(headers, []);
  return { status, headers: decoded ? withoutEncoding(pairs) : pairs, body };
}

/**
 * The built-in fetch, which also takes a light Request.
 * @param {any} input
 * @param {any} [init]
 * @returns {Promise<any>} a built-in Response
 */
async function fetch(input, init = undefined) {
  if (!isLightRequest(input)) return fetchBuiltIn(input, init);
  return fetchBuiltIn(...fetchArguments(input, init));
}

const codingsDecodedByFetch = new Set(['gzip', 'x-gzip', 'deflate', 'br', 'zstd']);

/** Whether fetch unpacked the body, so that these headers speak of bytes nobody has any more. */
function isDecodedByFetch(headers) {
  const codings = headers.get('content-encoding')?.toLowerCase().split(',') ?? [];
  return codings.length > 0 && codings.every(coding => codingsDecodedByFetch.has(coding.trim()));
}

/** @param {string[]} pairs */
function withoutEncoding(pairs) {
  const kept = [];
  for (let i = 0; i < pairs.length; i += 2) {
    if (pairs[i] === 'content-encoding' || pairs[i] === 'content-length') continue;
    kept.push(pairs[i], pairs[i + 1]);
  }
  return kept;
}
