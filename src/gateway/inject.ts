/** A data-plane request without a socket: an Exchange from a Request to a Response, for tests and for `up`. */
import { ReadableStream as NodeReadableStream } from 'node:stream/web';
import { PushedBody } from '../body.ts';
import { GatewayError } from '../errors.ts';
import { type Body, emptyBody, type HeaderPairs, isStream } from '../invoke/invoke.ts';
import type { Answer, Serve } from './exchange.ts';

export function injectExchange(serve: Serve, request: Request, target: string): Promise<Response> {
  const headers: HeaderPairs = [...request.headers].flat();
  return new Promise(resolve => {
    serve({
      head: { method: request.method, target, headers, remoteAddress: '127.0.0.1' },
      body: () => bodyOf(request),
      onGone: fn => request.signal.addEventListener('abort', fn, { once: true }),
      respond: answer => resolve(toResponse(answer, request.method)),
    });
  });
}

function bodyOf(request: Request): Body {
  const source = request.body;
  if (source === null) return emptyBody;
  const body = new PushedBody({ onRead() {}, onCancel() {} });
  void (async () => {
    try {
      for await (const chunk of source as unknown as AsyncIterable<Uint8Array>) body.push(chunk);
      body.end();
    } catch (cause) {
      body.fail(new GatewayError('CALL_CANCELLED', 'the client left', { cause }));
    }
  })();
  return body;
}

function toWebStream(body: AsyncIterable<Uint8Array>): unknown {
  return NodeReadableStream.from(body);
}

function toResponse({ status, body, ...answer }: Answer, method: string): Response {
  const headers = [...answer.headers, ...answer.ownHeaders];
  const pairs: Array<[string, string]> = [];
  for (let i = 0; i < headers.length; i += 2) pairs.push([headers[i]!, headers[i + 1]!]);
  const bodiless = method === 'HEAD' || status === 204 || status === 304;
  const content = bodiless
    ? null
    : isStream(body)
      ? (toWebStream(body) as ReadableStream<Uint8Array>)
      : new Uint8Array(body);
  return new Response(content, { status, headers: pairs });
}
