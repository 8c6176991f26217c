/**
 * The ingress seam: one HTTP request and the means to answer it, as the data plane sees them. The data plane knows
 * no HTTP reader and a reader knows no function, so that a faster reader can replace another.
 */
import type { Socket } from 'node:net';
import type { Body, HeaderPairs } from '../invoke/invoke.ts';
import type { Reading } from './reading.ts';

/** A client that keeps its connection mostly sends the same head again: then a reader may give the same object again. */
export interface RequestHead {
  readonly method: string;
  /** As received: path and query, percent-escapes untouched. */
  readonly target: string;
  readonly headers: HeaderPairs;
  readonly remoteAddress: string;
  /** What the data plane has read of it. */
  reading?: Reading;
}

export interface Exchange {
  readonly head: RequestHead;
  /**
   * The request's body; asks the client for it where it waits to be asked (`Expect: 100-continue`). A short body
   * is delivered whole. Call it once, or not at all: an unread body is dropped with the answer.
   */
  body(): Body | Promise<Body>;
  /** Runs `fn` when the client goes before the answer is complete. At most one listener. */
  onGone(fn: () => void): void;
  /** Answers. The reader adds framing and Date; it drops the body for HEAD. */
  respond(answer: Answer): void;
}

export interface Answer {
  status: number;
  headers: HeaderPairs;
  /** The same array may come with the next answer: what is made of it is worth remembering. */
  mayRepeat: boolean;
  /** Each answer's own: X-Call-Id. */
  ownHeaders: HeaderPairs;
  body: Body;
}

export type Serve = (exchange: Exchange) => void;

/** Ends a connection in the middle of an answer. What a client has not read for long is not kept for it either. */
export function breakOff(socket: Socket): void {
  if (socket.writableLength > 0) socket.resetAndDestroy();
  else socket.destroy();
}
