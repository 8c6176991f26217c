/**
 * The light Headers class: what function code sees as `Headers`, as Node's own behaves.
 *
 * Responsible for header names and values: validation, combining, sorting, and the flat `[name,
 * value, name, value]` lists in which headers travel over the link. Not responsible for requests,
 * responses or replacing the global (../web.mjs).
 *
 * Invariant: a list that is not raw holds lower-case valid names and trimmed valid values, a
 * repeated header as repeated pairs. A list from the wire is shared with its request: reading may
 * put its names in lower case, only a copy of it is ever changed otherwise.
 *
 * Different from the built-in: `inspect` and the wire show names in lower case; a plain object's
 * non-enumerable properties are no headers (as the standard says); iterators are generators; a
 * missing argument counts as undefined instead of throwing; a copy of headers keeps repeated ones
 * apart (the built-in's are combined and trimmed, which shows only if the last value is empty).
 */
const namePattern = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const badValuePattern = /[\0\r\n\u0100-\uffff]/;

// Checking and lower-casing a name costs more than a look-up, and programs use few names. Bounded,
// because a caller may choose names.
/** @type {Map<string, string>} */
const knownNames = new Map();
const knownNamesMax = 256;
const knownNameLengthMax = 64;

const fromWire = Symbol('fromWire');

/** @type {(headers: LightHeaders, out: string[]) => string[]} */
let appendPairs;
/** @type {(init: object) => string[] | undefined} */
let copyPairs;
/** @type {(list: string[], options: { immutable: boolean }) => LightHeaders} */
let wrapPairs;
/** @type {(value: unknown) => value is LightHeaders} */
let isLightHeaders;

export class LightHeaders {
  /** @type {string[]} */
  #list;
  #raw = false;
  #shared = false;
  #immutable = false;
  /** @type {[string, string][] | null} */
  #sorted = null;

  /** @param {any} [init] pairs, an object, or other headers */
  constructor(init = undefined) {
    // Only `fromPairs` and `wrapPairs` can name the symbol; they set the list themselves.
    this.#list = init === undefined || init === fromWire ? [] : pairsOf(init);
  }

  /**
   * Wraps a flat list from the wire, which the gateway has validated, without looking at it.
   * @param {string[]} flat
   */
  static fromPairs(flat) {
    const headers = new LightHeaders(fromWire);
    headers.#list = flat;
    headers.#raw = true;
    headers.#shared = true;
    return headers;
  }

  /** @param {string} name @returns {string | null} */
  get(name) {
    const key = headerName(name);
    const list = this.#ready();
    let value = null;
    for (let i = 0; i < list.length; i += 2) {
      if (list[i] !== key) continue;
      value = value === null ? list[i + 1] : value + separator(key) + list[i + 1];
    }
    return value;
  }

  /** @returns {string[]} */
  getSetCookie() {
    const list = this.#ready();
    const cookies = [];
    for (let i = 0; i < list.length; i += 2) {
      if (list[i] === 'set-cookie') cookies.push(list[i + 1]);
    }
    return cookies;
  }

  /** @param {string} name */
  has(name) {
    return this.#indexOf(headerName(name)) !== -1;
  }

  /** @param {string} name @param {string} value */
  set(name, value) {
    const key = headerName(name);
    const text = headerValue(value);
    const list = this.#writable();
    const index = this.#indexOf(key);
    if (index === -1) {
      list.push(key, text);
      return;
    }
    list[index + 1] = text;
    removeFrom(list, index + 2, key);
  }

  /** @param {string} name @param {string} value */
  append(name, value) {
    const key = headerName(name);
    const text = headerValue(value);
    this.#writable().push(key, text);
  }

  /** @param {string} name */
  delete(name) {
    const key = headerName(name);
    removeFrom(this.#writable(), 0, key);
  }

  /**
   * @param {(value: string, name: string, headers: LightHeaders) => void} callback
   * @param {any} [thisArg]
   */
  forEach(callback, thisArg = undefined) {
    if (typeof callback !== 'function') throw new TypeError('Headers.forEach needs a function');
    for (const [name, value] of this.entries()) callback.call(thisArg, value, name, this);
  }

  /** @returns {IterableIterator<[string, string]>} */
  entries() {
    return iterate(() => this.#pairs(), copyOfPair);
  }

  // Replaced by `entries` itself below: the built-in's are one function.
  [Symbol.iterator]() {
    return this.entries();
  }

  /** @returns {IterableIterator<string>} */
  keys() {
    return iterate(() => this.#pairs(), nameOfPair);
  }

  /** @returns {IterableIterator<string>} */
  values() {
    return iterate(() => this.#pairs(), valueOfPair);
  }

  /** The list with lower-case names. */
  #ready() {
    if (this.#raw) {
      this.#raw = false;
      const list = this.#list;
      for (let i = 0; i < list.length; i += 2) list[i] = list[i].toLowerCase();
    }
    return this.#list;
  }

  /** The list, ready to be changed. */
  #writable() {
    if (this.#immutable) throw new TypeError('immutable');
    this.#ready();
    this.#sorted = null;
    if (this.#shared) {
      this.#list = this.#list.slice();
      this.#shared = false;
    }
    return this.#list;
  }

  /** @param {string} key */
  #indexOf(key) {
    const list = this.#ready();
    for (let i = 0; i < list.length; i += 2) {
      if (list[i] === key) return i;
    }
    return -1;
  }

  /** Sorted by name and combined, except for cookies being set, which stay apart. */
  #pairs() {
    if (this.#sorted !== null) return this.#sorted;
    const list = this.#ready();
    /** @type {[string, string][]} */
    const all = [];
    for (let i = 0; i < list.length; i += 2) all.push([list[i], list[i + 1]]);
    all.sort((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0));
    /** @type {[string, string][]} */
    const sorted = [];
    for (const pair of all) {
      const last = sorted[sorted.length - 1];
      if (last !== undefined && last[0] === pair[0] && pair[0] !== 'set-cookie') {
        last[1] += separator(pair[0]) + pair[1];
      } else {
        sorted.push(pair);
      }
    }
    this.#sorted = sorted;
    return sorted;
  }

  [Symbol.for('nodejs.util.inspect.custom')](depth, options, inspect) {
    /** @type {Record<string, string | string[]>} */
    const shown = {};
    for (const [name, value] of this.#pairs()) shown[name] = value;
    const cookies = this.getSetCookie();
    if (cookies.length > 1) shown['set-cookie'] = cookies;
    return `Headers ${inspect(shown, { ...options, depth })}`;
  }

  static {
    appendPairs = (headers, out) => {
      const list = headers.#ready();
      for (let i = 0; i < list.length; i++) out.push(list[i]);
      return out;
    };
    copyPairs = init => (#list in init ? init.#ready().slice() : undefined);
    wrapPairs = (list, options) => {
      const headers = new LightHeaders(fromWire);
      headers.#list = list;
      headers.#immutable = options.immutable;
      return headers;
    };
    isLightHeaders = /** @type {any} */ (
      value => typeof value === 'object' && value !== null && #list in value
    );
  }
}

exposeAsWebClass(LightHeaders, 'Headers');
Object.defineProperty(LightHeaders.prototype, Symbol.iterator, {
  value: LightHeaders.prototype.entries,
  writable: true,
  configurable: true,
});

export { isLightHeaders, wrapPairs };

/**
 * Appends headers, light or built-in, as flat pairs with lower-case names.
 * @param {any} headers
 * @param {string[]} out
 * @returns {string[]} out
 */
export function toPairs(headers, out) {
  if (isLightHeaders(headers)) return appendPairs(headers, out);
  for (const [name, value] of headers) out.push(name.toLowerCase(), value);
  return out;
}

/**
 * A new flat list of valid pairs from whatever `new Headers()` takes.
 * @param {any} init
 * @returns {string[]}
 */
export function pairsOf(init) {
  if ((typeof init !== 'object' && typeof init !== 'function') || init === null) {
    throw new TypeError('Headers: expected pairs, an object or other headers');
  }
  const copy = copyPairs(init);
  if (copy !== undefined) return copy;
  /** @type {string[]} */
  const list = [];
  if (typeof init[Symbol.iterator] === 'function') {
    for (const entry of init) {
      const pair = entryOf(entry);
      list.push(headerName(pair[0]), headerValue(pair[1]));
    }
    return list;
  }
  for (const name of Object.keys(init)) list.push(headerName(name), headerValue(init[name]));
  if (Object.getOwnPropertySymbols(init).length > 0) {
    throw new TypeError('Headers: a symbol cannot be a header name');
  }
  return list;
}

/**
 * The first value of a header in a flat list whose names may be in any case.
 * @param {string[]} flat
 * @param {string} key in lower case
 */
export function findHeader(flat, key) {
  for (let i = 0; i < flat.length; i += 2) {
    const name = flat[i];
    if (name.length === key.length && (name === key || name.toLowerCase() === key)) {
      return flat[i + 1];
    }
  }
  return undefined;
}

/**
 * Makes a class look like a built-in web class: a tag, and enumerable members.
 * @param {Function} type
 * @param {string} name
 */
export function exposeAsWebClass(type, name) {
  for (const key of Object.getOwnPropertyNames(type.prototype)) {
    if (key !== 'constructor') Object.defineProperty(type.prototype, key, { enumerable: true });
  }
  Object.defineProperty(type.prototype, Symbol.toStringTag, { value: name, configurable: true });
  Object.defineProperty(type, 'name', { value: name, configurable: true });
}

/** @param {unknown} entry */
function entryOf(entry) {
  if (typeof entry !== 'object' || entry === null) {
    throw new TypeError('Headers: each entry must be a name and a value');
  }
  const pair = Array.isArray(entry) ? entry : [.../** @type {any} */ (entry)];
  if (pair.length !== 2) {
    throw new TypeError(`Headers: expected a name and a value, found ${pair.length} items`);
  }
  return pair;
}

/** @param {unknown} name */
function headerName(name) {
  const known = knownNames.get(/** @type {string} */ (name));
  if (known !== undefined) return known;
  const text = `${name}`;
  if (!namePattern.test(text)) {
    throw new TypeError(`Headers: ${JSON.stringify(text)} is not a valid header name`);
  }
  const key = text.toLowerCase();
  if (knownNames.size < knownNamesMax && text.length <= knownNameLengthMax) {
    knownNames.set(text, key);
  }
  return key;
}

/** @param {unknown} value */
function headerValue(value) {
  const text = trim(typeof value === 'string' ? value : `${value}`);
  if (badValuePattern.test(text)) {
    throw new TypeError(`Headers: ${JSON.stringify(text)} is not a valid header value`);
  }
  return text;
}

/** @param {string} text */
function trim(text) {
  // A loop, because a regular expression for the end would be quadratic on long runs of spaces.
  let start = 0;
  let end = text.length;
  while (end > start && isSpace(text.charCodeAt(end - 1))) end--;
  while (end > start && isSpace(text.charCodeAt(start))) start++;
  return end - start === text.length ? text : text.slice(start, end);
}

/** @param {number} code */
function isSpace(code) {
  return code === 0x20 || code === 0x09 || code === 0x0a || code === 0x0d;
}

/** @param {string} key */
function separator(key) {
  // As the built-in does, against the standard: a cookie header joined by commas is unreadable.
  return key === 'cookie' ? '; ' : ', ';
}

/** @param {string[]} list @param {number} start @param {string} key */
function removeFrom(list, start, key) {
  let kept = start;
  for (let i = start; i < list.length; i += 2) {
    if (list[i] === key) continue;
    list[kept++] = list[i];
    list[kept++] = list[i + 1];
  }
  list.length = kept;
}

/**
 * Asks for the pairs at each step, so that changes made while iterating are seen.
 * @template T
 * @param {() => [string, string][]} pairs
 * @param {(pair: [string, string]) => T} select
 */
function* iterate(pairs, select) {
  for (let i = 0; i < pairs().length; i++) yield select(pairs()[i]);
}

/** @param {[string, string]} pair @returns {[string, string]} */
const copyOfPair = pair => [pair[0], pair[1]];
/** @param {[string, string]} pair */
const nameOfPair = pair => pair[0];
/** @param {[string, string]} pair */
const valueOfPair = pair => pair[1];
