/**
 * Takes a request body that the handler needs whole before its call takes a place in an instance: a client that sends
 * slowly would hold the place for as long as it likes, and a few of them a whole function. The bodies of all calls
 * together are bounded; what comes beyond is passed on as it comes, and holds a place as any stream does.
 */
import type { BodyStream } from '../../body.ts';
import { GatewayError } from '../../errors.ts';
import {
  type Body,
  type Call,
  type CallSignal,
  type HeaderPairs,
  type Invoke,
  isStream,
  type Middleware,
  type Reply,
  type Version,
} from '../invoke.ts';

/** Memory of all bodies that are being gathered or were, and whose calls are not answered yet. */
export const gatheredBytesMax = 256 * 1024 ** 2;

export function gather(options: {
  needsWhole(version: Version): boolean;
  /** Of one body. */
  bufferedBodyBytesMax: number;
  totalBytesMax?: number;
}): Middleware {
  const { needsWhole, bufferedBodyBytesMax, totalBytesMax = gatheredBytesMax } = options;
  let total = 0;

  async function gathered(
    next: Invoke,
    call: Call & { body: BodyStream },
    signal: CallSignal,
  ): Promise<Reply> {
    const { body } = call;
    let held = 0;
    signal.onAbort(reason => body.cancel(reason));
    try {
      call.gathering = true;
      (call as Call).body = await read(body, {
        bytesMax: bufferedBodyBytesMax,
        hasRoom(bytes) {
          if (total + bytes > totalBytesMax) return false;
          held += bytes;
          total += bytes;
          return true;
        },
      });
      call.gathering = false;
      return await next(call, signal);
    } catch (error) {
      throw signal.reason ?? error;
    } finally {
      total -= held;
    }
  }

  return next =>
    function withGather(call, signal) {
      // Short bodies, nearly all there are, have been read by whoever read the head.
      if (!isStream(call.body) || !needsWhole(call.version)) return next(call, signal);
      const error = refuseLong(call, bufferedBodyBytesMax);
      if (error !== undefined) return Promise.reject(error);
      return gathered(next, call as Call & { body: BodyStream }, signal);
    };
}

/** What a body that says that it is too long is refused with, before any of it is read. */
export function refuseLong(call: Call, bytesMax: number): GatewayError | undefined {
  return declaredLength(call) > bytesMax ? tooLong(bytesMax) : undefined;
}

function declaredLength(call: Call): number {
  return isStream(call.body) ? contentLengthOf(call.headers) : call.body.length;
}

/** 0 where it is not told. */
export function contentLengthOf(headers: HeaderPairs): number {
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i]!;
    if (name.length === 14 && name.toLowerCase() === 'content-length')
      return Number(headers[i + 1]);
  }
  return 0;
}

/**
 * All of it as bytes, or what is left as a stream once `hasRoom` says that there is none for so many bytes of memory.
 * In one piece of memory from the start: chunks may be small parts of large ones, which they would keep.
 */
async function read(
  body: BodyStream,
  limits: { bytesMax: number; hasRoom: (bytes: number) => boolean },
): Promise<Body> {
  const { bytesMax, hasRoom } = limits;
  let buffer = Buffer.alloc(0);
  let used = 0;
  const reader = body[Symbol.asyncIterator]();
  try {
    for (let got = await reader.next(); !got.done; got = await reader.next()) {
      const chunk = got.value;
      if (used + chunk.length > bytesMax) throw tooLong(bytesMax);
      if (used + chunk.length > buffer.length) {
        const size = Math.min(bytesMax, Math.max(firstBytes, (used + chunk.length) * 2));
        const isRoom = hasRoom(size - buffer.length);
        const larger = Buffer.allocUnsafeSlow(isRoom ? size : used + chunk.length);
        buffer.copy(larger, 0, 0, used);
        buffer = larger;
        if (!isRoom) {
          buffer.set(chunk, used);
          return resumed(body, buffer, reader);
        }
      }
      buffer.set(chunk, used);
      used += chunk.length;
    }
  } catch (error) {
    await reader.return?.();
    throw error;
  }
  return buffer.subarray(0, used);
}

const firstBytes = 65_536;

/** A body of which a part has been read. */
function resumed(
  body: BodyStream,
  first: Uint8Array,
  reader: AsyncIterator<Uint8Array>,
): BodyStream {
  return {
    cancel: reason => body.cancel(reason),
    onClose: fn => body.onClose(fn),
    async *[Symbol.asyncIterator]() {
      try {
        yield first;
        for (let got = await reader.next(); !got.done; got = await reader.next()) yield got.value;
      } finally {
        await reader.return?.();
      }
    },
  };
}

function tooLong(bytesMax: number): GatewayError {
  const detail = `the handler needs the body whole, and it is longer than ${bytesMax} bytes`;
  return new GatewayError('BODY_TOO_LARGE', detail);
}
