/**
 * Keeps what went in and came out of calls whose function asks for it (`record: bodies`), as it passes: a body is not held
 * back, and one that is longer than what is kept is not kept at all.
 */
import type { BodyStream } from '../../body.ts';
import { recordLimits } from '../../domain/record.ts';
import { isGatewayError } from '../../errors.ts';
import type { RecordedBodies } from '../../store/records.ts';
import { type Body, type Call, emptyBody, isStream, type Middleware } from '../invoke.ts';

export interface BodiesOptions {
  keep(bodies: RecordedBodies): void;
  /** There was no room for the bodies of a call: too many others are being kept. */
  onDrop(): void;
}

export function bodies({ keep, onDrop }: BodiesOptions): Middleware {
  const room = { bytes: recordLimits.copiedBodiesBytesMax as number };

  /** The call is over: what is whole is kept, and the room is free again. */
  function settle(
    call: Call,
    { input, output }: { input: Copy; output: Copy },
    answer: Pick<RecordedBodies, 'status' | 'replyHeaders'>,
  ): void {
    const [sent, got] = [input.bytes(), output.bytes()];
    input.letGo();
    output.letGo();
    if (input.hadNoRoom || output.hadNoRoom) onDrop();
    if (sent === undefined || got === undefined) return;
    const { id, version, method, target, headers: requestHeaders } = call;
    const asked = { id, subject: version, method, target, requestHeaders };
    keep({ ...asked, input: sent, ...answer, output: got });
  }

  return next =>
    function withBodies(call, signal) {
      if (call.version.settings.record !== 'bodies') return next(call, signal);
      const input = new Copy(call.body, room);
      call.body = input.body;
      return next(call, signal).then(
        reply => {
          const { status, headers: replyHeaders, failure } = reply;
          const output = new Copy(failure === undefined ? reply.body : emptyBody, room);
          output.onEnd(() => settle(call, { input, output }, { status, replyHeaders }));
          return failure === undefined ? { ...reply, body: output.body } : reply;
        },
        error => {
          // What was given up, as at its deadline, is what one wants to call again.
          const status = isGatewayError(error) ? error.status : 500;
          const output = new Copy(emptyBody, room);
          settle(call, { input, output }, { status, replyHeaders: [] });
          throw error;
        },
      );
    };
}

/** A body that can be read as before, and what was read of it. */
class Copy {
  readonly body: Body;
  /** Others have all the room. */
  hadNoRoom = false;
  readonly #room: { bytes: number };
  #chunks: Uint8Array[] | undefined = [];
  #bytes = 0;
  #isWhole = false;
  #isOver = false;
  #onEnd: (() => void) | undefined;

  constructor(body: Body, room: { bytes: number }) {
    this.#room = room;
    this.body = isStream(body) ? this.#tee(body) : body;
    if (isStream(body)) return;
    this.#add(body);
    this.#isWhole = true;
    this.#isOver = true;
  }

  /** Runs `fn` when nothing more comes, whether it was whole or not. */
  onEnd(fn: () => void): void {
    if (this.#isOver) fn();
    else this.#onEnd = fn;
  }

  #over(): void {
    this.#isOver = true;
    this.#onEnd?.();
    this.#onEnd = undefined;
  }

  /** All of it; undefined when it was too long, or has not been read to its end. */
  bytes(): Uint8Array | undefined {
    if (!this.#isWhole || this.#chunks === undefined) return undefined;
    return Buffer.concat(this.#chunks, this.#bytes);
  }

  letGo(): void {
    this.#room.bytes += this.#bytes;
    this.#bytes = 0;
    this.#chunks = undefined;
  }

  #add(chunk: Uint8Array): void {
    if (this.#chunks === undefined) return;
    if (this.#bytes + chunk.length > recordLimits.recordedBodyBytesMax) return this.letGo();
    if (chunk.length > this.#room.bytes) {
      this.hadNoRoom = true;
      return this.letGo();
    }
    this.#room.bytes -= chunk.length;
    this.#bytes += chunk.length;
    this.#chunks.push(chunk);
  }

  #tee(body: BodyStream): BodyStream {
    const add = (chunk: Uint8Array) => this.#add(chunk);
    const over = (isWhole: boolean) => {
      this.#isWhole = isWhole;
      this.#over();
    };
    // One that nobody reads ends without an iterator: it fails, or is given up, perhaps after it has ended with nothing in
    // it. (One that is read closes before its last chunk is out.)
    body.onClose(error => error !== undefined && over(false));
    return {
      cancel: reason => {
        body.cancel(reason);
        if (!this.#isOver) over(false);
      },
      onClose: fn => body.onClose(fn),
      async *[Symbol.asyncIterator]() {
        let isWhole = false;
        try {
          for await (const chunk of body) {
            // A part of a larger piece of memory, which its owner may use again.
            add(Uint8Array.from(chunk));
            yield chunk;
          }
          isWhole = true;
        } finally {
          over(isWhole);
        }
      },
    };
  }
}
