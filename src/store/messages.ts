/**
 * The facet `messages` of the store: what was published, once for all its subscriptions. A message is there as long as a
 * delivery names it, and as its topic keeps it for whoever wants to go back in time.
 * Implementations: sqlite/messages.ts, memory-messages.ts. Suite: contract-messages.ts.
 */
import type { NewJob } from './jobs.ts';

export interface NewMessage {
  /** `msg_…`. */
  id: string;
  /** `top_…`. */
  topic: string;
  publishedMs: number;
  /** Until then also when nothing names it. */
  keepUntilMs: number;
  /** In the row, or a blob's name. */
  sealed?: Uint8Array;
  blob?: string;
}

/** Of `MessageStore`, for whoever wraps it. */
export const messageMethods = ['publish', 'messages', 'seek'] satisfies Array<keyof MessageStore>;

export interface MessageStore {
  /** Messages with their deliveries, all or nothing. `full`: as many deliveries wait in one of the lanes as may. */
  publish(
    publication: { messages: NewMessage[]; deliveries: NewJob[] },
    nowMs: number,
  ): Promise<'accepted' | 'full'>;
  /** Of a topic, those that were published from a time on, and behind this id; in order of time and id. */
  messages(query: {
    topic: string;
    sinceMs: number;
    after?: { publishedMs: number; id: string };
    limit: number;
  }): Promise<NewMessage[]>;
  /**
   * Puts a lane to another place in the history of its topic: what waits in it goes, and these deliveries wait instead. Those
   * whose message is being delivered, or is gone, are left out. What was published from that time on, and is not among them,
   * came while they were looked for: it stays, behind them.
   */
  seek(
    place: { lane: string; sinceMs: number; deliveries: NewJob[] },
    nowMs: number,
  ): Promise<{ dropped: number; added: number }>;
}
