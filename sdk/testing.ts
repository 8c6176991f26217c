/** `fnway/testing`: what modules for the gateway are tested with, without a gateway. */
import type { Caller, Origin } from '../src/domain/record.ts';
import {
  type Call,
  CallSignal,
  emptyBody,
  type Invoke,
  isStream,
  type Reply,
  type Version,
} from '../src/invoke/invoke.ts';
import { headersOf, userMiddleware } from '../src/invoke/middleware/users.ts';
import type { Middleware, OwnReply } from './middleware.ts';

export interface TestCall {
  id?: string;
  namespace?: string;
  function?: string;
  version?: number;
  method?: string;
  path?: string;
  headers?: HeadersInit;
  body?: Uint8Array | string;
  origin?: Origin;
  caller?: Caller;
}

export interface TestResult {
  status: number;
  headers: Headers;
  body: Uint8Array;
  text: string;
  /** What the function got; undefined when it was not called. */
  called?: { method: string; path: string; headers: Headers; text: string };
}

/**
 * Runs one middleware around a function, as the gateway does. `reply` is what the function answers; a function of it gets
 * the call. Rejects with what the gateway would refuse the call with.
 */
export async function runMiddleware(
  middleware: Middleware,
  given: {
    call?: TestCall;
    reply?: OwnReply | ((call: { path: string; text: string }) => OwnReply);
  } = {},
): Promise<TestResult> {
  let called: TestResult['called'];
  const next: Invoke = async call => {
    const text = textOf(call.body);
    called = { method: call.method, path: call.target, headers: headersOf(call.headers), text };
    const { reply = {} } = given;
    const {
      status = 200,
      headers,
      body,
    } = typeof reply === 'function' ? reply({ path: call.target, text }) : reply;
    return { status, headers: [...new Headers(headers)].flat(), body: bytesOf(body) };
  };
  const wrapped = userMiddleware(middleware, {
    monotonicMs: () => 0,
    bufferedBodyBytesMax: 16 * 1024 ** 2,
  })(next);
  const reply: Reply = await wrapped(callOf(given.call ?? {}), new CallSignal());
  const body = isStream(reply.body) ? emptyBody : reply.body;
  return {
    status: reply.status,
    headers: headersOf(reply.headers),
    body,
    text: textOf(body),
    ...(called !== undefined && { called }),
  };
}

function callOf(call: TestCall): Call {
  const { id = 'inv_test', method = 'GET', path = '/', headers, body = '' } = call;
  const version = {
    namespace: call.namespace ?? 'default',
    name: call.function ?? 'hello',
    number: call.version ?? 1,
  } as Version;
  return {
    ...{ id, version, attempt: 1, method, target: path },
    headers: [...new Headers(headers)].flat(),
    ownHeaders: [],
    body: bytesOf(body),
    origin: call.origin ?? 'http',
    caller: call.caller ?? 'anonymous',
    ...{ label: undefined, parent: undefined, instance: undefined, gathering: false },
    deadlineMs: Number.POSITIVE_INFINITY,
  };
}

function bytesOf(body: unknown): Uint8Array {
  if (body === undefined || body === null) return emptyBody;
  if (body instanceof Uint8Array) return body;
  return new TextEncoder().encode(typeof body === 'string' ? body : JSON.stringify(body));
}

function textOf(body: Call['body']): string {
  return isStream(body) ? '' : new TextDecoder().decode(body);
}
