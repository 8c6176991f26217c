/**
 * The head of a CALL (docs/reference/link.md). Two of its headers are its own; the others mostly come again with the next
 * call, and are then not read again.
 */
import { originOf } from './web/request.mjs';

/** Longer ones rarely come again, and are not worth their memory. */
const rememberedCharsMax = 1024;
const ownNames = ['X-Call-Id', 'Traceparent'];

/** Headers that may be those of several calls. */
class SharedHeaders {
  #origin = undefined;

  constructor(text) {
    this.text = text;
    this.pairs = text === '' ? [] : text.split('\0');
  }

  /** Where the client came to. */
  get origin() {
    this.#origin ??= originOf(this.pairs);
    return this.#origin;
  }
}

let last = new SharedHeaders('');

export class CallHead {
  #text;
  #at = 0;
  #shared;

  /** @param {string} text fields separated by NUL */
  constructor(text) {
    this.#text = text;
    this.method = this.#next();
    this.target = this.#next();
    this.id = this.#next();
    this.timeoutMs = Number(this.#next());
    /** Names and values in turn: an array of this call alone. */
    this.headers = this.#readHeaders();
  }

  /** Of the request's URL. */
  get origin() {
    return this.#shared.origin;
  }

  #readHeaders() {
    const start = this.#at;
    const own = [this.#next(), this.#next(), this.#next(), this.#next()];
    // A gateway that orders them in another way is served as well, only not as fast.
    const isOwn = own[0] === ownNames[0] && own[2] === ownNames[1];
    const rest = this.#text.slice(isOwn ? this.#at : start);
    const shared = rest === last.text ? last : new SharedHeaders(rest);
    if (rest.length <= rememberedCharsMax) last = shared;
    this.#shared = shared;
    return isOwn ? own.concat(shared.pairs) : shared.pairs.slice();
  }

  #next() {
    const start = this.#at;
    const end = this.#text.indexOf('\0', start);
    this.#at = end === -1 ? this.#text.length + 1 : end + 1;
    return end === -1 ? this.#text.slice(start) : this.#text.slice(start, end);
  }
}
