/**
 * Middleware that whoever runs the gateway has written: modules of the shape in sdk/middleware.ts. One that cannot be used
 * stops the start; one that throws, or answers with what is no answer, fails its call and no other.
 */
import { basename } from 'node:path';
import type {
  CallChanges,
  MiddlewareCall,
  MiddlewareReply,
  OwnReply,
  Middleware as UserMiddleware,
} from '../../../sdk/middleware.ts';
import { type BodyStream, collect } from '../../body.ts';
import { GatewayError } from '../../errors.ts';
import type { Log } from '../../log.ts';
import {
  type Body,
  type Call,
  type CallSignal,
  emptyBody,
  type HeaderPairs,
  type Invoke,
  isStream,
  type Middleware,
  type Reply,
} from '../invoke.ts';

export interface UsersOptions {
  monotonicMs(): number;
  /** Absent in the test kit: its caller gets the error itself. */
  log?: Log;
  bufferedBodyBytesMax: number;
}

/** What `file` exports by default, as it stands in the waist. Throws MIDDLEWARE_INVALID. */
export async function loadMiddleware(file: string): Promise<UserMiddleware> {
  let module: { default?: unknown };
  try {
    module = await import(file);
  } catch (error) {
    // The first line of the stack of a text that is no program is its place.
    const place = /^\S+:\d+$/m.exec((error as Error).stack ?? '')?.[0];
    const at = place === undefined ? '' : ` (${place.replace('file://', '')})`;
    throw invalid(file, `it does not load: ${(error as Error).message}${at}`, error);
  }
  const found = module.default;
  if (typeof found !== 'object' || found === null)
    throw invalid(file, 'it has no default export that is an object');
  const middleware = found as Record<string, unknown>;
  const hooks = ['before', 'after', 'around'] as const;
  for (const hook of hooks)
    if (middleware[hook] !== undefined && typeof middleware[hook] !== 'function')
      throw invalid(file, `${hook} is not a function`);
  if (hooks.every(hook => middleware[hook] === undefined))
    throw invalid(file, 'it has none of before, after and around');
  const known = new Set<string>([...hooks, 'name', 'wholeBodies']);
  const unknown = Object.keys(middleware).find(key => !known.has(key));
  if (unknown !== undefined)
    throw invalid(file, `${unknown} is unknown; there are ${[...known].join(', ')}`);
  // Its place is the operator's affair: callers see the name.
  return { name: basename(file), ...(found as UserMiddleware) };
}

function invalid(file: string, what: string, cause?: unknown): GatewayError {
  return new GatewayError('MIDDLEWARE_INVALID', `${file}: ${what}`, { cause });
}

/** Where a middleware stands in the waist. */
export function userMiddleware(user: UserMiddleware, options: UsersOptions): Middleware {
  return next => (call, signal) => {
    const run = new Run(user, options, { call, signal, next });
    return new Promise((resolve, reject) => {
      // A module that never ends holds its call no longer than the call may take.
      signal.onAbort(reason => reject(run.lateOf(reason)));
      run.reply().then(resolve, reject);
    });
  };
}

/** One call in one middleware. */
class Run {
  readonly #user: UserMiddleware;
  readonly #options: UsersOptions;
  readonly #call: Call;
  readonly #signal: CallSignal;
  readonly #next: Invoke;
  /** The function's reply behind each view of it that the module was given. */
  readonly #replies = new WeakMap<MiddlewareReply, Reply>();
  #hasCalled = false;
  /** What of the module is running, and waits for nothing else. */
  #hook: string | undefined;
  #streamed: BodyStream | undefined;

  constructor(
    user: UserMiddleware,
    options: UsersOptions,
    { call, signal, next }: { call: Call; signal: CallSignal; next: Invoke },
  ) {
    this.#user = user;
    this.#options = options;
    this.#call = call;
    this.#signal = signal;
    this.#next = next;
  }

  /** Why the call is given up: where the module is what took the time, it is named. */
  lateOf(reason: GatewayError): GatewayError {
    if (reason.code !== 'CALL_DEADLINE_EXCEEDED' || this.#hook === undefined) return reason;
    const detail = `${this.#hook} of the middleware ${this.#user.name} did not end within the function's timeout`;
    return new GatewayError('CALL_DEADLINE_EXCEEDED', detail, {
      remedy: `Look at what ${this.#hook} waits for.`,
    });
  }

  /** What the function still streams is given up unless it is what is answered. */
  async reply(): Promise<Reply> {
    let answer: Reply | undefined;
    try {
      answer = await this.#answer();
      return answer;
    } finally {
      const streamed = this.#streamed;
      if (streamed !== undefined && streamed !== answer?.body) streamed.cancel(replaced);
    }
  }

  async #answer(): Promise<Reply> {
    const user = this.#user;
    const view = new CallView(this.#call, this.#options.monotonicMs);
    const around = user.around?.bind(user);
    if (around === undefined) return this.#between(view, undefined);
    const answer = await this.#asking('around', () =>
      around(view, changes => {
        const shown = this.#between(view, changes).then(reply => this.#show(reply));
        // A module may never look at it; a mistake is told to whoever does.
        shown.catch(() => {});
        return shown;
      }),
    );
    return this.#replyOf('around', answer, undefined);
  }

  /** What `before` and `after` stand around. */
  async #between(view: CallView, changes: CallChanges | undefined): Promise<Reply> {
    const user = this.#user;
    if (this.#hasCalled) throw this.#broken('around', 'it called next twice');
    this.#hasCalled = true;
    let call = this.#changed('around', this.#call, changes);
    const before = await this.#asking('before', () => user.before?.(view));
    if (before !== undefined && before !== null) {
      if (typeof before !== 'object') throw this.#broken('before', 'it returned no object');
      if ('reply' in before) return this.#replyOf('before', before.reply, undefined);
      if (!('call' in before)) throw this.#broken('before', 'it returned neither call nor reply');
      call = this.#changed('before', call, before.call);
    }
    const hook = this.#hook;
    this.#hook = undefined;
    const reply = await this.#called(call).finally(() => {
      this.#hook = hook;
    });
    if (user.after === undefined) return reply;
    const after = await this.#asking('after', () => user.after!(view, this.#show(reply)));
    return after === undefined || after === null ? reply : this.#replyOf('after', after, reply);
  }

  /** What the function answers, collected where the module wants it so. */
  async #called(call: Call): Promise<Reply> {
    const given = await this.#next(call, this.#signal);
    if (isStream(given.body)) this.#streamed = given.body;
    return this.#collected(given);
  }

  #changed(hook: string, call: Call, changes: CallChanges | undefined): Call {
    try {
      return changed(call, changes);
    } catch (error) {
      throw this.#broken(hook, (error as Error).message, error);
    }
  }

  /** Errors of the call pass through; all others are the module's. */
  async #asking<T>(hook: string, ask: () => T | Promise<T>): Promise<T> {
    const outer = this.#hook;
    this.#hook = hook;
    try {
      return await ask();
    } catch (error) {
      if (error instanceof GatewayError) throw error;
      throw this.#broken(hook, `it threw ${textOf(error)}`, error);
    } finally {
      this.#hook = outer;
    }
  }

  #broken(hook: string, what: string, cause?: unknown): GatewayError {
    const detail = `${hook} of the middleware ${this.#user.name}: ${what}`;
    // Callers are told no more than that: its stack is for who wrote it.
    if (cause !== undefined) this.#options.log?.warn(detail, { call: this.#call.id, error: cause });
    return new GatewayError('MIDDLEWARE_FAILED', detail, { cause });
  }

  #show(reply: Reply): MiddlewareReply {
    const { status, headers, body, failure } = reply;
    const view = {
      status,
      headers: headersOf(headers),
      body: isStream(body) ? undefined : body,
      ...(failure !== undefined && {
        failure: { reason: failure.reason, message: failure.message },
      }),
    };
    this.#replies.set(view, reply);
    return view;
  }

  /** `before`: what an answer without a body has instead. */
  #replyOf(hook: string, answer: OwnReply | MiddlewareReply, before: Reply | undefined): Reply {
    if (typeof answer !== 'object' || answer === null)
      throw this.#broken(hook, 'it returned no reply');
    if (answer instanceof Response)
      throw this.#broken(hook, 'it returned a Response; return { status, headers, body }');
    try {
      return this.#readReply(hook, answer, before);
    } catch (error) {
      if (error instanceof GatewayError) throw error;
      throw this.#broken(hook, `its reply cannot be used: ${textOf(error)}`, error);
    }
  }

  #readReply(hook: string, answer: OwnReply | MiddlewareReply, before: Reply | undefined): Reply {
    const shown = this.#replies.get(answer as MiddlewareReply);
    // As it was given, its headers perhaps changed.
    if (shown !== undefined)
      return { ...shown, headers: pairsOf((answer as MiddlewareReply).headers) };
    const { status = before?.status ?? 200, headers, body } = answer;
    if (!Number.isInteger(status) || status < 200 || status > 599)
      throw this.#broken(hook, `${status} is no status of an answer`);
    let pairs: HeaderPairs;
    try {
      pairs = headers === undefined ? (before?.headers ?? []) : pairsOf(new Headers(headers));
    } catch (error) {
      throw this.#broken(hook, (error as Error).message);
    }
    if (body === undefined && before !== undefined) return { ...before, status, headers: pairs };
    return { status, ...encoded(body, pairs) };
  }

  async #collected(reply: Reply): Promise<Reply> {
    const { body } = reply;
    if (this.#user.wholeBodies !== true || !isStream(body)) return reply;
    const whole = await collect(body, this.#options.bufferedBodyBytesMax);
    if (whole === undefined)
      throw this.#broken('wholeBodies', 'the answer is longer than what may be collected');
    return { ...reply, body: whole };
  }
}

class CallView implements MiddlewareCall {
  readonly #call: Call;
  readonly #monotonicMs: () => number;
  #headers: Headers | undefined;

  constructor(call: Call, monotonicMs: () => number) {
    this.#call = call;
    this.#monotonicMs = monotonicMs;
  }

  get id() {
    return this.#call.id;
  }
  get namespace() {
    return this.#call.version.namespace;
  }
  get function() {
    return this.#call.version.name;
  }
  get version() {
    return this.#call.version.number;
  }
  get method() {
    return this.#call.method;
  }
  get path() {
    return this.#call.target;
  }
  get origin() {
    return this.#call.origin;
  }
  get caller() {
    return this.#call.caller;
  }
  get headers(): Headers {
    this.#headers ??= headersOf(this.#call.headers);
    return this.#headers;
  }
  get body(): Uint8Array | undefined {
    const { body } = this.#call;
    return isStream(body) ? undefined : body;
  }
  remainingMs(): number {
    return Math.max(0, this.#call.deadlineMs - this.#monotonicMs());
  }
}

/**
 * Another object where anything is changed: who stands further out still has the call as it came. What middleware notes on
 * a call, as the pool its instance, is noted on both.
 */
function changed(call: Call, changes: CallChanges | undefined): Call {
  if (changes === undefined) return call;
  const { path, headers, body } = changes;
  const target = path === undefined ? call.target : path.startsWith('/') ? path : `/${path}`;
  if (/[^\x21-\x7e]/.test(target))
    throw new TypeError('a path has printable ASCII only; percent-encode the rest');
  if (body !== undefined && typeof body !== 'string' && !(body instanceof Uint8Array))
    throw new TypeError('a body is text or bytes');
  const bytes: Body =
    body === undefined ? call.body : typeof body === 'string' ? Buffer.from(body) : body;
  const pairs =
    headers === undefined
      ? body === undefined
        ? call.headers
        : withoutLength(call.headers)
      : withoutLength(pairsOf(new Headers(headers)));
  // Of its own fields, so that whoever copies it copies all.
  return {
    ...call,
    target,
    headers: pairs,
    body: bytes,
    get instance() {
      return call.instance;
    },
    set instance(id: string | undefined) {
      (call as Call).instance = id;
    },
  };
}

const replaced = new GatewayError('CALL_CANCELLED', 'a middleware answered in its place');

function withoutLength(pairs: HeaderPairs): HeaderPairs {
  const kept: string[] = [];
  for (let i = 0; i < pairs.length; i += 2)
    if (pairs[i]!.toLowerCase() !== 'content-length') kept.push(pairs[i]!, pairs[i + 1]!);
  return kept;
}

/** As the web has them. */
export function headersOf(pairs: HeaderPairs): Headers {
  const headers = new Headers();
  for (let i = 0; i < pairs.length; i += 2) headers.append(pairs[i]!, pairs[i + 1]!);
  return headers;
}

function pairsOf(headers: Headers): HeaderPairs {
  return [...headers].flat();
}

function encoded(body: unknown, given: HeaderPairs): { headers: HeaderPairs; body: Body } {
  const pairs = withoutLength(given);
  if (body === undefined || body === null) return { headers: pairs, body: emptyBody };
  if (body instanceof Uint8Array) return { headers: pairs, body };
  if (body instanceof ArrayBuffer) return { headers: pairs, body: new Uint8Array(body) };
  if (body instanceof ReadableStream || body instanceof Blob)
    throw new TypeError('a body is text, bytes, or a value for JSON');
  const isText = typeof body === 'string';
  const hasType = pairs.some((name, i) => i % 2 === 0 && name.toLowerCase() === 'content-type');
  const type = isText ? 'text/plain; charset=utf-8' : 'application/json';
  return {
    headers: hasType ? pairs : ['content-type', type, ...pairs],
    body: Buffer.from(isText ? body : jsonOf(body)),
  };
}

function jsonOf(value: unknown): string {
  const text = JSON.stringify(value) as string | undefined;
  if (text === undefined) throw new TypeError(`a ${typeof value} has no JSON`);
  return text;
}

/** Anything may be thrown, also what has no text. */
function textOf(error: unknown): string {
  try {
    return error instanceof Error ? error.message : String(error);
  } catch {
    return 'what has no text';
  }
}
