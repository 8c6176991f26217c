/**
 * Node's own web classes, had back when they are needed.
 *
 * Responsible for the built-in `fetch`, for the built-in classes behind it, and for the two ways
 * of reading a body that need them. Not responsible for converting a light Request (request.mjs).
 *
 * Invariant: importing this file loads none of them.
 *
 * Node's globals are lazy: even looking at `globalThis.Response`'s descriptor loads all of them (7
 * MiB), only assigning does not. Assigning forgets the built-in class, so it is taken from a
 * response of the built-in `fetch`, an ordinary function that loads what it needs when called. The
 * built-in Request cannot be had this way, and nobody can meet an instance of it.
 */
import { Body } from './body.mjs';

const builtInFetch = globalThis.fetch;

/** @type {{ Headers: any, Response: any }} undefined until the first fetch */
const builtIn = { Headers: undefined, Response: undefined };

/** @param {any} input @param {any} init @returns {Promise<any>} a built-in Response */
export async function fetchBuiltIn(input, init) {
  const response = await builtInFetch(input, init);
  builtIn.Response ??= response.constructor;
  builtIn.Headers ??= response.headers.constructor;
  return response;
}

/**
 * @param {Body | null} body
 * @param {any} headers
 * @param {'blob' | 'formData'} form
 */
export async function readWithBuiltIn(body, headers, form) {
  const type = headers.get('content-type');
  const bytes = await contentOf(body).bytes();
  if (builtIn.Response === undefined) await fetchBuiltIn('data:,', undefined);
  const init = { headers: type === null ? [] : [['content-type', type]] };
  return new builtIn.Response(bytes, init)[form]();
}

/** @param {Body | null} body */
export function contentOf(body) {
  // Nothing reads as an empty body, as often as one likes.
  return body ?? new Body('');
}

/**
 * Makes `instanceof` hold for the built-in's instances, too.
 * @param {Function} type the light class
 * @param {'Headers' | 'Response'} name
 */
export function acceptBuiltIn(type, name) {
  Object.defineProperty(type, Symbol.hasInstance, {
    value: function hasInstance(value) {
      if (Function.prototype[Symbol.hasInstance].call(this, value)) return true;
      // A subclass inherits this method, but has no built-in counterpart.
      return this === type && builtIn[name] !== undefined && value instanceof builtIn[name];
    },
  });
}
