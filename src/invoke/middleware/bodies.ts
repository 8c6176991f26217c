/**
 * Keeps what went in and came out of calls whose function asks for it (`record: bodies`), as it passes: a body is not held
 * back, and one that is longer than what is kept is not kept at all.
 */
import type { BodyStream } from '../../body.ts';
import { recordLimits } from '../../domain/record.ts';
import type { RecordedBodies } from '../../store/records.ts';
import { type Body, emptyBody, isStream, type Middleware } from '../invoke.ts';

export function bodies(keep: (bodies: RecordedBodies) => void): Middleware {
  return next =>
    function withBodies(call, signal) {
      const { version } = call;
      if (version.settings.record !== 'bodies') return next(call, signal);
      const input = new Copy(call.body);
      call.body = input.body;
      return next(call, signal).then(reply => {
        const { status, headers: replyHeaders, failure } = reply;
        const { id, method, target, headers: requestHeaders } = call;
        const parts = {
          id,
          subject: version,
          method,
          target,
          requestHeaders,
          status,
          replyHeaders,
        };
        const keepWith = (sent: Uint8Array | undefined, got: Uint8Array | undefined) => {
          if (sent !== undefined && got !== undefined) keep({ ...parts, input: sent, output: got });
        };
        const output = new Copy(failure === undefined ? reply.body : emptyBody, whole =>
          keepWith(input.bytes(), whole),
        );
        return failure === undefined ? { ...reply, body: output.body } : reply;
      });
    };
}

/** A body that can be read as before, and what was read of it. */
class Copy {
  readonly body: Body;
  readonly #chunks: Uint8Array[] = [];
  #bytes = 0;
  #isWhole = false;

  /** `onWhole` is told once it has been read to its end. */
  constructor(body: Body, onWhole?: (bytes: Uint8Array | undefined) => void) {
    const end = () => {
      this.#isWhole = true;
      onWhole?.(this.bytes());
    };
    this.body = isStream(body) ? this.#tee(body, end) : body;
    if (isStream(body)) return;
    this.#add(body);
    end();
  }

  /** All of it; undefined when it was too long, or has not been read to its end. */
  bytes(): Uint8Array | undefined {
    if (!this.#isWhole || this.#bytes > recordLimits.recordedBodyBytesMax) return undefined;
    return Buffer.concat(this.#chunks, this.#bytes);
  }

  #add(chunk: Uint8Array): void {
    this.#bytes += chunk.length;
    if (this.#bytes <= recordLimits.recordedBodyBytesMax) this.#chunks.push(chunk);
    else this.#chunks.length = 0;
  }

  #tee(body: BodyStream, end: () => void): BodyStream {
    const add = (chunk: Uint8Array) => this.#add(chunk);
    return {
      cancel: reason => body.cancel(reason),
      onClose: fn => body.onClose(fn),
      async *[Symbol.asyncIterator]() {
        for await (const chunk of body) {
          // A part of a larger piece of memory, which its owner may use again.
          add(Uint8Array.from(chunk));
          yield chunk;
        }
        end();
      },
    };
  }
}
