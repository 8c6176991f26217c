/** Publishing to topics, pulling from subscriptions, and what is dead. */
import type {
  DeadLetterGroup,
  DeadLetterView,
  MessageView,
  Page,
  PublishedMessage,
  ReceivedMessage,
  RedrivenView,
} from './api.ts';
import type { DeadLetterChoice, ReadOptions } from './options.ts';
import { queryOf, type Wire } from './wire.ts';

export interface TopicClient {
  /** Ids in order, once all are on disk. Throws MESSAGE_INVALID and QUEUE_FULL. */
  publish(
    topic: string,
    messages: readonly PublishedMessage[],
    options?: ReadOptions,
  ): Promise<{ messageIds: string[] }>;
  /** Each message as it is published, until the loop is left. */
  tail(topic: string, options?: ReadOptions): AsyncIterable<MessageView>;
  /** `wait`: for the first one; at most `60s`. */
  pull(
    subscription: string,
    options?: ReadOptions & { maxMessages?: number; wait?: string },
  ): Promise<{ receivedMessages: ReceivedMessage[] }>;
  /** Throws ACK_ID_INVALID and ACK_ID_STALE. */
  ack(subscription: string, ackIds: readonly string[], options?: ReadOptions): Promise<void>;
  nack(subscription: string, ackIds: readonly string[], options?: ReadOptions): Promise<void>;
  /** `deadline`: from now, 1s to 10m. */
  extend(
    subscription: string,
    ackIds: readonly string[],
    deadline: string,
    options?: ReadOptions,
  ): Promise<void>;
  /** What was published before is done with, what was since, and is still there, comes again. `time`: `1h` ago, or a time. */
  seek(
    subscription: string,
    time: string,
    options?: ReadOptions,
  ): Promise<{ dropped: number; added: number }>;
  /** With which what is pushed is signed. */
  getSigningKey(subscription: string, options?: ReadOptions): Promise<{ signingKey: string }>;

  /** By subscription or function, and cause; what grew last first. */
  listDeadCauses(options?: ReadOptions): Promise<Page<DeadLetterGroup>>;
  /** Newest first. */
  listDeadLetters(
    options?: ReadOptions &
      Omit<DeadLetterChoice, 'ids' | 'all'> & { limit?: number; cursor?: string },
  ): Promise<Page<DeadLetterView>>;
  /** Throws DEAD_LETTER_NOT_FOUND. */
  getDeadLetter(id: string, options?: ReadOptions): Promise<DeadLetterView>;
  /** Accepts them once more, as new invocations that name the old ones. */
  redriveDeadLetters(
    choice: DeadLetterChoice & { version?: number; dryRun?: boolean },
    options?: ReadOptions,
  ): Promise<RedrivenView>;
  purgeDeadLetters(choice: DeadLetterChoice, options?: ReadOptions): Promise<{ purged: number }>;
}

export function topicClient(wire: Wire, inside: string): TopicClient {
  const topicPath = (name: string, verb: string) =>
    `${inside}/topics/${encodeURIComponent(name)}/${verb}`;
  const pathOf = (name: string, verb: string) =>
    `${inside}/subscriptions/${encodeURIComponent(name)}/${verb}`;
  const dead = `${inside}/dead-letters`;
  return {
    publish: (topic, messages, { signal } = {}) =>
      wire.json('POST', topicPath(topic, 'publish'), { signal, json: { messages } }),
    tail: (topic, { signal } = {}) => wire.lines(topicPath(topic, 'tail'), { signal }),
    pull: (subscription, { signal, ...json } = {}) =>
      wire.json('POST', pathOf(subscription, 'pull'), { signal, json }),
    async ack(subscription, ackIds, { signal } = {}) {
      await wire.send('POST', pathOf(subscription, 'ack'), { signal, json: { ackIds } });
    },
    async nack(subscription, ackIds, { signal } = {}) {
      await wire.send('POST', pathOf(subscription, 'nack'), { signal, json: { ackIds } });
    },
    async extend(subscription, ackIds, deadline, { signal } = {}) {
      const json = { ackIds, deadline };
      await wire.send('POST', pathOf(subscription, 'extend'), { signal, json });
    },
    seek: (subscription, time, { signal } = {}) =>
      wire.json('POST', pathOf(subscription, 'seek'), { signal, json: { time } }),
    getSigningKey: (subscription, { signal } = {}) =>
      wire.json('GET', pathOf(subscription, 'signing-key'), { signal }),
    listDeadCauses: ({ signal } = {}) => wire.json('GET', `${dead}/causes`, { signal }),
    listDeadLetters: ({ signal, ...query } = {}) =>
      wire.json('GET', `${dead}${queryOf({ ...query })}`, { signal }),
    getDeadLetter: (id, { signal } = {}) =>
      wire.json('GET', `${dead}/${encodeURIComponent(id)}`, { signal }),
    redriveDeadLetters: (json, { signal } = {}) =>
      wire.json('POST', `${dead}/redrive`, { signal, json }),
    purgeDeadLetters: (json, { signal } = {}) =>
      wire.json('POST', `${dead}/purge`, { signal, json }),
  };
}
