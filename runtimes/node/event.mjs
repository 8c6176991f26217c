/** Event style: the request as a plain object, and what a handler may return, as bytes for the wire. */

class Event {
  constructor(method, path, query, headers, body) {
    this.method = method;
    this.path = path;
    this.query = query;
    this.headers = headers;
    /** Bytes; `JSON.parse(event.body)` works too. */
    this.body = body;
  }

  text() {
    return this.body.toString('utf8');
  }

  json() {
    return JSON.parse(this.text());
  }
}

/** Undefined when the body is longer than `bytesMax`. */
export async function makeEvent(head, body, bytesMax) {
  const { target } = head;
  const mark = target.indexOf('?');
  const path = mark === -1 ? target : target.slice(0, mark);
  const query = queryOf(mark === -1 ? '' : target.slice(mark + 1));
  const headers = Object.create(null);
  for (let i = 0; i < head.headers.length; i += 2) {
    const name = head.headers[i].toLowerCase();
    const value = head.headers[i + 1];
    headers[name] = name in headers ? `${headers[name]}, ${value}` : value;
  }
  const bytes = await collect(body, bytesMax);
  return bytes === undefined ? undefined : new Event(head.method, path, query, headers, bytes);
}

/** Without a prototype, as the headers: a caller may name a parameter `constructor`. */
function queryOf(text) {
  const query = Object.create(null);
  for (const [key, value] of new URLSearchParams(text)) if (!(key in query)) query[key] = value;
  return query;
}

/** Undefined when there is more. */
export async function collect(body, bytesMax) {
  if (body === null) return Buffer.alloc(0);
  if (body instanceof Uint8Array) return body.length > bytesMax ? undefined : body;
  const chunks = [];
  let bytes = 0;
  for await (const chunk of body) {
    bytes += chunk.length;
    if (bytes > bytesMax) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

const responseKeys = new Set(['statusCode', 'headers', 'body', 'isBase64Encoded']);

export function replyOfEvent(value) {
  if (value === undefined || value === null) return { status: 200, headers: [], body: null };
  if (!isResponseShaped(value)) return bodyReply(200, [], value);
  const status = value.statusCode ?? 200;
  if (!Number.isInteger(status) || status < 200 || status > 599) {
    return {
      invalid: `statusCode must be a number from 200 to 599, not ${JSON.stringify(value.statusCode)}`,
    };
  }
  const headers = [];
  const pairs = Array.isArray(value.headers) ? value.headers : Object.entries(value.headers ?? {});
  for (const pair of pairs) {
    if (!Array.isArray(pair) || pair.length !== 2)
      return { invalid: 'headers must be an object or a list of pairs' };
    for (const item of Array.isArray(pair[1]) ? pair[1] : [pair[1]]) {
      const problem = headerProblem(String(pair[0]), String(item));
      if (problem !== undefined) return { invalid: problem };
      headers.push(String(pair[0]).toLowerCase(), String(item));
    }
  }
  const body =
    value.isBase64Encoded === true && typeof value.body === 'string'
      ? Buffer.from(value.body, 'base64')
      : value.body;
  return bodyReply(status, headers, body);
}

function isResponseShaped(value) {
  if (typeof value !== 'object' || Array.isArray(value) || value instanceof Uint8Array)
    return false;
  const keys = Object.keys(value);
  return (
    keys.length > 0 &&
    keys.every(key => responseKeys.has(key)) &&
    (keys.includes('statusCode') || keys.includes('body'))
  );
}

function bodyReply(status, headers, value) {
  if (value === undefined || value === null) return { status, headers, body: null };
  if (value instanceof Uint8Array)
    return { status, headers: typed(headers, 'application/octet-stream'), body: value };
  if (typeof value === 'string')
    return { status, headers: typed(headers, 'text/plain; charset=utf-8'), body: value };
  if (isStreamed(value)) {
    return { status, headers: typed(headers, 'application/octet-stream'), body: value };
  }
  let text;
  try {
    text = JSON.stringify(value);
  } catch (error) {
    return { invalid: `the value returned has no JSON form: ${error.message}` };
  }
  if (text === undefined) return { invalid: `a ${typeof value} has no JSON form` };
  return { status, headers: typed(headers, 'application/json'), body: text };
}

/** A stream or a generator; a list is none, it becomes JSON. */
function isStreamed(value) {
  if (typeof value !== 'object') return false;
  if (value[Symbol.asyncIterator] !== undefined) return true;
  return typeof value.next === 'function' && value[Symbol.iterator] !== undefined;
}

function typed(headers, type) {
  for (let i = 0; i < headers.length; i += 2) if (headers[i] === 'content-type') return headers;
  return ['content-type', type, ...headers];
}

function headerProblem(name, value) {
  if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name))
    return `${JSON.stringify(name)} is not a header name`;
  if (/[^\t\x20-\x7e\x80-\xff]/.test(value))
    return `the value of ${name} has a character that a header cannot carry`;
  return undefined;
}
