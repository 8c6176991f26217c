/**
 * The calls in this instance: hands each to the handler and sends what it returns. Keeps the invariant that every
 * stream ends exactly once: with END, FAIL or CANCEL, also when the caller left or the handler threw.
 */

import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { performance } from 'node:perf_hooks';
import { inspect } from 'node:util';
import { CallHead } from './call-head.mjs';
import { collect, makeEvent, replyOfEvent } from './event.mjs';
import { problemOf } from './handler.mjs';
import { endFlag, payloadBytesMax, RequestBody, types, windowBytes } from './link.mjs';
import { runInCall } from './output.mjs';
import { LightRequest, responseParts } from './web.mjs';

/** By the lower 16 bits of their stream, which the gateway never has twice in use. See Slots in the gateway's sources. */
const calls = [];

function callOf(stream) {
  const call = calls[stream & 0xffff];
  return call?.stream === stream ? call : undefined;
}

const host = hostname();
const empty = new Uint8Array(0);
/** Of an error's message in a frame. */
const textBytesMax = 8192;

let style = 'web';
let handle;
let settings;
let secrets;

export function useHandler(handlerStyle, handler, loadSettings) {
  style = handlerStyle;
  handle = handler;
  settings = loadSettings;
}

class CallInProgress {
  constructor(link, stream, id, onEnd) {
    this.link = link;
    this.stream = stream;
    this.id = id;
    /** What it has written to the standard streams, once it has: see output.mjs. */
    this.output = undefined;
    this.onEnd = onEnd;
    this.body = undefined;
    this.credit = windowBytes;
    this.onCredit = undefined;
    this.cancelled = undefined;
    this.controller = undefined;
    this.onCancel = undefined;
  }

  /** Made when first asked for: most handlers never do. */
  signal() {
    if (this.controller === undefined) {
      this.controller = new AbortController();
      if (this.cancelled !== undefined) this.controller.abort(this.cancelled);
    }
    return this.controller.signal;
  }

  end() {
    calls[this.stream & 0xffff] = undefined;
    const onCredit = this.onCredit;
    this.onCredit = undefined;
    onCredit?.();
    this.endOutput();
    this.onEnd();
  }

  /** Before the last frame: whoever has the answer finds all that was written before it. */
  endOutput() {
    this.output?.end();
  }
}

function secretsOf({ secrets: values = {}, secretFiles = {} }) {
  const found = { ...values };
  for (const [name, file] of Object.entries(secretFiles))
    Object.defineProperty(found, name, { enumerable: true, get: () => readFileSync(file, 'utf8') });
  return Object.freeze(found);
}

/** What a handler gets beside the request. */
class Context {
  #call;
  #deadlineMs;

  constructor(call, { id, timeoutMs, target }) {
    this.#call = call;
    this.#deadlineMs = timeoutMs === 0 ? Number.POSITIVE_INFINITY : performance.now() + timeoutMs;
    this.callId = id;
    this.rawPath = target;
  }

  get function() {
    return settings.function;
  }
  get namespace() {
    return settings.namespace;
  }
  get version() {
    return settings.version;
  }
  get hostname() {
    return host;
  }
  /** Aborted when the caller leaves or the call's time is up. */
  get signal() {
    return this.#call.signal();
  }
  /** Values by name; one that is a file is read anew each time. */
  get secrets() {
    secrets ??= secretsOf(settings);
    return secrets;
  }
  /** Milliseconds until the call's timeout; Infinity without one. */
  remainingMs() {
    return Math.max(0, this.#deadlineMs - performance.now());
  }
}

export function answerCall(link, flags, stream, chunk, start, bodyStart, end, onEnd) {
  const head = new CallHead(chunk.toString('latin1', start, bodyStart));
  const call = new CallInProgress(link, stream, head.id, onEnd);
  calls[stream & 0xffff] = call;
  let body = null;
  if ((flags & endFlag) !== 0) {
    if (end > bodyStart) body = link.keep(chunk, bodyStart, end);
  } else {
    body = call.body = new RequestBody(bytes => link.frame(types.CREDIT, 0, stream, bytes));
    body.push(link.keep(chunk, bodyStart, end));
  }
  const context = new Context(call, head);
  const answer = style === 'web' ? answerWeb : style === 'event' ? answerEvent : answerFramework;
  runInCall(call, answer, call, head, body, context);
}

export function dataOfCall(stream, flags, bytes) {
  const body = callOf(stream)?.body;
  if (body === undefined) return;
  body.push(bytes.length === 0 ? empty : bytes);
  if ((flags & endFlag) !== 0) body.end();
}

export function creditCall(stream, bytes) {
  const call = callOf(stream);
  if (call === undefined) return;
  call.credit += bytes;
  const onCredit = call.onCredit;
  call.onCredit = undefined;
  onCredit?.();
}

export function cancelCall(stream, reason) {
  const call = callOf(stream);
  if (call === undefined || call.cancelled !== undefined) return;
  const error = new DOMException(
    reason === 'CALL_DEADLINE_EXCEEDED' ? 'the call took too long' : 'the caller left',
    reason === 'CALL_DEADLINE_EXCEEDED' ? 'TimeoutError' : 'AbortError',
  );
  call.cancelled = error;
  call.controller?.abort(error);
  call.body?.fail(error);
  const onCredit = call.onCredit;
  call.onCredit = undefined;
  onCredit?.();
  call.onCancel?.(error);
}

function answerWeb(call, head, body, context) {
  let result;
  try {
    const request = LightRequest.fromCall({
      head,
      body,
      signal: () => call.signal(),
    });
    result = handle(request, context);
  } catch (error) {
    return fail(call, problemOf(error, settings), error);
  }
  if (typeof result?.then !== 'function') return sendResponse(call, result);
  result.then(
    response => sendResponse(call, response),
    error => fail(call, problemOf(error, settings), error),
  );
}

function sendResponse(call, response) {
  let parts;
  try {
    parts = responseParts(response);
  } catch (error) {
    return fail(call, {
      reason: 'reply-invalid',
      message: `a web-standard handler returns a Response: ${error.message}`,
    });
  }
  send(call, parts.status, parts.headers, parts.body);
}

async function answerEvent(call, head, body, context) {
  let reply;
  try {
    const event = await makeEvent(head, body, settings.bufferedBodyBytesMax);
    if (event === undefined) return fail(call, bodyTooLarge());
    reply = replyOfEvent(await handle(event, context));
  } catch (error) {
    return fail(call, problemOf(error, settings), error);
  }
  if (reply.invalid !== undefined)
    return fail(call, { reason: 'reply-invalid', message: reply.invalid });
  send(call, reply.status, reply.headers, reply.body);
}

function bodyTooLarge() {
  return {
    reason: 'body-too-large',
    message: `the body is longer than ${settings.bufferedBodyBytesMax} bytes; a web-standard handler can stream it`,
  };
}

/** The app answers when it likes, and has failures of its own: see framework/. */
async function answerFramework(call, head, body) {
  try {
    const bytes = body === null ? null : await collect(body, settings.bufferedBodyBytesMax);
    if (bytes === undefined) return fail(call, bodyTooLarge());
    handle({
      method: head.method,
      target: head.target,
      headers: head.headers,
      body: bytes,
      send: (status, headers, answer) => send(call, status, headers, answer),
      fail: message => fail(call, { reason: 'reply-invalid', message }),
      onCancel: fn => {
        call.onCancel = fn;
      },
      cancelled: () => call.cancelled,
    });
  } catch (error) {
    fail(call, problemOf(error, settings), error);
  }
}

function fail(call, problem, error) {
  if (call.cancelled !== undefined) {
    call.link.frame(types.CANCEL, 0, call.stream, 0);
    return call.end();
  }
  call.link.json(types.FAIL, call.stream, problem);
  call.end();
  print(error ?? problem.message);
}

/** An error can throw while it is printed. */
function print(error) {
  try {
    console.error(withoutOurs(typeof error === 'string' ? error : inspect(error)));
  } catch {
    console.error('fnway: an error that cannot be printed');
  }
}

/** Of a stack, what the user can read: not how the runtime came to call the handler. */
function withoutOurs(text) {
  const lines = text.split('\n').filter(line => !/^\s+at /.test(line) || !isOurs(line));
  return lines
    .join('\n')
    .replaceAll(`file://${settings.directory}/`, '')
    .replaceAll(`${settings.directory}/`, '');
}

function isOurs(line) {
  return (
    line.includes(ownDirectory) ||
    line.includes('(node:internal') ||
    line.includes('at node:internal')
  );
}

const ownDirectory = import.meta.dirname;

function send(call, status, headers, body) {
  if (call.cancelled !== undefined) {
    giveUp(body, call.cancelled);
    call.link.frame(types.CANCEL, 0, call.stream, 0);
    return call.end();
  }
  let head = String(status);
  for (let i = 0; i < headers.length; i++) head += `\0${headers[i]}`;
  if (head.length > payloadBytesMax / 2) {
    giveUp(body, new Error('the answer was not sent'));
    return fail(call, {
      reason: 'reply-invalid',
      message: `the reply's headers take ${head.length} bytes; ${payloadBytesMax / 2} are allowed`,
    });
  }
  if (body === null || typeof body === 'string' || body instanceof Uint8Array) {
    const bytes = body === null ? empty : body;
    const room = payloadBytesMax - head.length;
    if (bytes.length * (typeof bytes === 'string' ? 3 : 1) <= room) {
      call.endOutput();
      call.link.head(types.REPLY, endFlag, call.stream, head, bytes);
      return call.end();
    }
    call.link.head(types.REPLY, 0, call.stream, head, empty);
    return sendBody(call, [typeof bytes === 'string' ? Buffer.from(bytes) : bytes]);
  }
  call.link.head(types.REPLY, 0, call.stream, head, empty);
  sendBody(call, body);
}

/** Tells a body's source that nobody reads it. */
async function giveUp(body, reason) {
  try {
    if (body instanceof ReadableStream) await body.cancel(reason);
    else if (typeof body?.return === 'function') await body.return();
  } catch {
    // Its trouble while it ends is nobody's any more.
  }
}

/** A stream that waits for its next chunk must hear of a cancel at once: only its reader's cancel does that. */
function readerOf(body) {
  if (body instanceof ReadableStream) {
    const reader = body.getReader();
    return {
      next: () => reader.read().then(({ done, value }) => ({ done, value })),
      cancel: reason => reader.cancel(reason),
    };
  }
  const iterator = body[Symbol.asyncIterator]?.() ?? body[Symbol.iterator]();
  // One at a time: a race with a promise that lives as long as the body would keep every chunk of it.
  let giveUp;
  return {
    next: () =>
      new Promise((resolve, reject) => {
        giveUp = () => resolve({ done: true });
        Promise.resolve(iterator.next()).then(resolve, reject);
      }),
    cancel: async () => {
      giveUp?.();
      await iterator.return?.();
    },
  };
}

async function sendBody(call, body) {
  try {
    const reader = readerOf(body);
    call.onCancel = reason => reader.cancel(reason).catch(() => {});
    while (call.cancelled === undefined) {
      const { value, done } = await reader.next();
      if (done) break;
      const bytes = typeof value === 'string' ? Buffer.from(value) : value;
      if (!(bytes instanceof Uint8Array))
        throw new TypeError(`a body's chunk must be bytes or text, not ${typeof value}`);
      await sendChunk(call, bytes);
    }
  } catch (error) {
    const text = `the function broke off its answer: ${problemOf(error, settings).message}`;
    call.link.frame(types.CANCEL, 0, call.stream, 0, Buffer.from(text).subarray(0, textBytesMax));
    const { cancelled } = call;
    call.end();
    if (cancelled === undefined) print(error);
    return;
  }
  call.endOutput();
  if (call.cancelled !== undefined) call.link.frame(types.CANCEL, 0, call.stream, 0);
  else call.link.frame(types.DATA, endFlag, call.stream, 0);
  call.end();
}

async function sendChunk(call, bytes) {
  for (let at = 0; at < bytes.length && call.cancelled === undefined; ) {
    if (call.credit <= 0) {
      await new Promise(resolve => {
        call.onCredit = resolve;
      });
      continue;
    }
    const part = bytes.subarray(at, at + Math.min(payloadBytesMax, call.credit));
    at += part.length;
    call.credit -= part.length;
    call.link.frame(types.DATA, 0, call.stream, 0, part);
    if (!call.link.drained) await new Promise(resolve => call.link.onceDrained(resolve));
  }
}
