/**
 * Topics: a message is accepted with a delivery for each subscription that wants it, in one transaction; each delivers on its
 * own from then on (deliveries.ts, pull.ts). Also what a subscription's lane in the queue is, and going back in time.
 */
import { createHmac } from 'node:crypto';
import type { Clock, Timer } from '../clock.ts';
import type { Resource, Resources } from '../deploy/resources.ts';
import type { RetryPolicy } from '../domain/retry.ts';
import {
  deadLetterAttributes,
  type Message,
  retentionMs,
  subscriptionDefaults,
  subscriptionPolicy,
  wants,
} from '../domain/topic.ts';
import { GatewayError } from '../errors.ts';
import { newId } from '../ids.ts';
import type { Log } from '../log.ts';
import { laneOf, type QueuedFunction } from '../queue/calls.ts';
import type { Payloads } from '../queue/payloads.ts';
import type { Queue } from '../queue/queue.ts';
import { jobLimits, type Lane, type NewJob } from '../store/jobs.ts';
import type { MessageStore, NewMessage } from '../store/messages.ts';

export type Topic = Resource<'topic'>;
export type Subscription = Resource<'subscription'>;

export interface TopicsOptions {
  resources: Resources;
  store: MessageStore;
  queue: Pick<Queue, 'look' | 'setRoom' | 'drop' | 'laneCounts'>;
  payloads: Payloads;
  functionOf(namespace: string, name: string): QueuedFunction | undefined;
  /** With which ordering keys are made unreadable: they may name people. */
  orderingSecret: Uint8Array;
  clock: Clock;
  log: Log;
}

/** What a message is stored as, beside its data. */
export interface MessageHead {
  attributes: Record<string, string>;
  orderingKey?: string;
}

export interface Published extends Message {
  id: string;
  publishedMs: number;
}

/** A message on its way: its payload is absent where nobody wants it. */
interface KeptMessage {
  given: Message;
  payload?: { sealed: Uint8Array } | { blob: string };
}

export interface Publication {
  published: Published;
  message?: NewMessage;
  deliveries: NewJob[];
}

export const publishLimits = {
  /** In one transaction; a publication that makes more is several. */
  deliveriesAtOnce: 10_000,
  /** That a seek may bring back. */
  seekMessagesMax: 100_000,
} as const;

const pageSize = 500;
const laneSign = 'sub_';
const sweepMs = 60_000;

export class Topics {
  readonly #options: TopicsOptions;
  /** By namespace and topic. */
  #subscriptions: Map<string, Subscription[]> | undefined;
  readonly #followers = new Map<string, Set<(message: Published) => void>>();
  /** Who pulls waits for these, by lane. */
  readonly #onDelivery = new Map<string, Set<() => void>>();
  readonly #policies = new WeakMap<Subscription, RetryPolicy>();
  #sweeping: Timer | undefined;
  #isStopped = false;

  constructor(options: TopicsOptions) {
    this.#options = options;
    options.resources.onChange(({ before, after }) => {
      const { kind } = (after ?? before)!.row;
      if (kind !== 'subscription' && kind !== 'topic') return;
      this.#subscriptions = undefined;
      if (kind !== 'subscription') return;
      const failed = (error: unknown) =>
        options.log.error('the lane of a subscription is as it was, until the next start', {
          error,
        });
      if (after !== undefined) return this.#makeRoom(after as Subscription).catch(failed);
      // It may be long, and is not waited for.
      void this.#drop(before!.row.id).catch(failed);
    });
  }

  /** What a gateway that died had not done; and looks every minute from then on. */
  async start(): Promise<void> {
    const { resources } = this.#options;
    await this.#sweep();
    await Promise.all([...resources.all('subscription')].map(one => this.#makeRoom(one)));
    this.#sweepLater();
  }

  stop(): void {
    this.#sweeping?.cancel();
    this.#isStopped = true;
  }

  #sweepLater(): void {
    const { clock, log } = this.#options;
    const again = () =>
      this.#sweep()
        .catch(error => log.error('lanes of removed subscriptions are still there', { error }))
        .then(() => this.#sweepLater());
    if (!this.#isStopped) this.#sweeping = clock.after(sweepMs, again, { unref: true });
  }

  /** Forgets what waits for subscriptions that are no more: also what a delivery that ended late has left for one. */
  async #sweep(): Promise<void> {
    const { queue, resources } = this.#options;
    for (const { lane } of await queue.laneCounts())
      if (lane.startsWith(laneSign) && resources.byId(lane) === undefined) await this.#drop(lane);
  }

  /** Its room is theirs where they say none of their own. */
  async functionChanged(namespace: string, name: string): Promise<void> {
    for (const subscription of this.#options.resources.all('subscription'))
      if (subscription.row.namespace === namespace && subscription.definition.function === name)
        await this.#makeRoom(subscription);
  }

  /** Ids in order, once all are on disk. Throws QUEUE_FULL, and then those of a batch before may be. */
  async publish(topic: Topic, messages: readonly Message[]): Promise<string[]> {
    const subscriptions = this.subscriptionsOf(topic);
    const atOnce = Math.max(
      1,
      Math.floor(publishLimits.deliveriesAtOnce / Math.max(1, subscriptions.length)),
    );
    const ids: string[] = [];
    for (let i = 0; i < messages.length; i += atOnce)
      ids.push(...(await this.#publish(topic, messages.slice(i, i + atOnce))));
    return ids;
  }

  async #publish(topic: Topic, given: readonly Message[]): Promise<string[]> {
    const { store, queue, payloads, clock } = this.#options;
    const kept = await Promise.all(given.map(message => this.#keep(topic, message)));
    // From here to the store in one turn: who is paused, changed or removed now is so for all that is stored.
    const publishedMs = clock.now();
    // A topic is read again by time and id: of one moment, ids are in order too.
    const ids = given.map(() => newId('msg', publishedMs)).sort();
    const publications = kept.map((one, i) =>
      this.#publicationOf(topic, one, { id: ids[i]!, publishedMs }),
    );
    const messages = publications.flatMap(({ message }) => message ?? []);
    const deliveries = publications.flatMap(publication => publication.deliveries);
    const stored =
      messages.length === 0
        ? 'accepted'
        : await store.publish({ messages, deliveries }, clock.now());
    const isKept = (i: number) => stored === 'accepted' && publications[i]!.message !== undefined;
    const needless = kept.filter((_, i) => !isKept(i)).map(({ payload }) => payload);
    await payloads.remove(needless.map(payload => blobOf(payload)));
    if (stored === 'full') {
      const detail = `as many messages of topic ${topic.row.name} wait for one of its subscriptions as may`;
      throw new GatewayError('QUEUE_FULL', detail, { retryAfterMs: 1000 });
    }
    queue.look();
    const published = publications.map(publication => publication.published);
    this.tell(topic, published, deliveries);
    return published.map(({ id }) => id);
  }

  /** Who follows the topic, and who pulls, hears of what was accepted. */
  tell(topic: Topic, published: readonly Published[], deliveries: readonly NewJob[]): void {
    for (const follower of this.#followers.get(topic.row.id) ?? [])
      for (const message of published) follower(message);
    for (const lane of new Set(deliveries.map(({ lane }) => lane.id)))
      for (const wake of this.#onDelivery.get(lane) ?? []) wake();
  }

  /** Its payload on disk, where somebody wants it, or the topic keeps it. */
  async #keep(topic: Topic, given: Message): Promise<KeptMessage> {
    const { attributes, orderingKey, data } = given;
    const isWanted = retentionMs(topic.definition) > 0 || this.#wanting(topic, given).length > 0;
    if (!isWanted) return { given };
    const head: MessageHead = { attributes, ...(orderingKey !== undefined && { orderingKey }) };
    return { given, payload: await this.#options.payloads.keep(head, data) };
  }

  #wanting(topic: Topic, { attributes }: Message): Subscription[] {
    return this.subscriptionsOf(topic).filter(({ definition }) => wants(definition, attributes));
  }

  /** What is to be stored. No `message` where nobody wants it and the topic keeps none. */
  #publicationOf(
    topic: Topic,
    { given, payload }: KeptMessage,
    { id, publishedMs }: { id: string; publishedMs: number },
  ): Publication {
    const published = { ...given, id, publishedMs };
    if (payload === undefined) return { published, deliveries: [] };
    const keepUntilMs = publishedMs + retentionMs(topic.definition);
    const message = { id, topic: topic.row.id, publishedMs, keepUntilMs, ...payload };
    const { orderingKey } = given;
    const deliveries = this.#wanting(topic, given).map(subscription =>
      this.deliveryOf(subscription, { id, publishedMs, orderingKey }),
    );
    if (deliveries.length === 0 && keepUntilMs === publishedMs) return { published, deliveries };
    return { published, message, deliveries };
  }

  deliveryOf(
    subscription: Subscription,
    message: { id: string; publishedMs: number; orderingKey?: string | undefined },
  ): NewJob {
    const { clock, orderingSecret } = this.#options;
    const nowMs = clock.now();
    const { id: lane, namespace } = subscription.row;
    return {
      ...{ id: newId('inv', nowMs), kind: 'delivery', namespace, functionId: lane },
      ...{ lane: this.laneOf(subscription), priority: jobLimits.priorityDefault },
      ...{ acceptedMs: message.publishedMs, dueMs: nowMs, message: message.id },
      ...(message.orderingKey && {
        orderKey: createHmac('sha256', orderingSecret)
          .update(message.orderingKey)
          .digest('base64url'),
      }),
    };
  }

  laneOf({ row, definition }: Subscription): Lane {
    return {
      id: row.id,
      runningMax: this.#roomOf({ row, definition }),
      waitingMax: definition.waiting,
    };
  }

  #roomOf({ row, definition }: Pick<Subscription, 'row' | 'definition'>): number {
    const { concurrency, push, function: name } = definition;
    if (row.isPaused || definition.pull) return 0;
    if (concurrency !== undefined) return concurrency;
    if (push !== undefined) return subscriptionDefaults.pushes;
    const called = this.#options.functionOf(row.namespace, name!);
    return called === undefined ? 1 : laneOf(called).runningMax;
  }

  subscriptionsOf({ row }: Topic): readonly Subscription[] {
    this.#subscriptions ??= this.#byTopic();
    return this.#subscriptions.get(`${row.namespace} ${row.name}`) ?? [];
  }

  #byTopic(): Map<string, Subscription[]> {
    const found = new Map<string, Subscription[]>();
    for (const subscription of this.#options.resources.all('subscription')) {
      const key = `${subscription.row.namespace} ${subscription.definition.topic}`;
      const list = found.get(key);
      if (list === undefined) found.set(key, [subscription]);
      else list.push(subscription);
    }
    return found;
  }

  /** Whether it is as it was, for somebody who has waited. */
  isCurrent(subscription: Subscription): boolean {
    return this.#options.resources.byId(subscription.row.id) === subscription;
  }

  policyOf(subscription: Subscription): RetryPolicy {
    let policy = this.#policies.get(subscription);
    if (policy === undefined) {
      policy = subscriptionPolicy(subscription.definition);
      this.#policies.set(subscription, policy);
    }
    return policy;
  }

  /** The copy for the dead-letter topic, to be accepted with the end of a delivery. */
  async deadCopy(
    { row, definition }: Subscription,
    message: Message,
    { attempts, publishedMs }: { attempts: number; publishedMs: number },
  ): Promise<{ topic: Topic; publication: Publication } | undefined> {
    if (definition.deadLetter === undefined) return undefined;
    const topic = this.#options.resources.get('topic', row.namespace, definition.deadLetter);
    // It cannot be removed before the subscription.
    if (topic === undefined) return undefined;
    const { namespace, name: subscription } = row;
    const source = { subscription, namespace, attempts, publishedMs };
    const attributes = deadLetterAttributes(message.attributes, source);
    const kept = await this.#keep(topic, { ...message, attributes });
    const nowMs = this.#options.clock.now();
    const published = { id: newId('msg', nowMs), publishedMs: nowMs };
    return { topic, publication: this.#publicationOf(topic, kept, published) };
  }

  follow(topic: Topic, follower: (message: Published) => void): () => void {
    return listen(this.#followers, topic.row.id, follower);
  }

  /** Something may be pulled. */
  wake(lane: string): void {
    for (const wake of this.#onDelivery.get(lane) ?? []) wake();
  }

  onDelivery(lane: string, wake: () => void): () => void {
    return listen(this.#onDelivery, lane, wake);
  }

  /** What was published before is done with; what was published since, and is still there, is delivered again. */
  async seek(
    subscription: Subscription,
    sinceMs: number,
  ): Promise<{ dropped: number; added: number }> {
    const { resources, store, payloads, queue, clock } = this.#options;
    const { namespace, id: lane } = subscription.row;
    const topic = resources.find('topic', namespace, subscription.definition.topic);
    const deliveries: NewJob[] = [];
    let after: NewMessage | undefined;
    for (;;) {
      const page = await store.messages({
        ...{ topic: topic.row.id, sinceMs, limit: pageSize },
        ...(after !== undefined && { after }),
      });
      for (const message of page) {
        const opened = await payloads.open<MessageHead>(message).catch(() => undefined);
        if (opened === undefined || !wants(subscription.definition, opened.head.attributes))
          continue;
        deliveries.push(this.deliveryOf(subscription, { ...message, ...opened.head }));
      }
      if (deliveries.length > publishLimits.seekMessagesMax) {
        const detail = `more than ${publishLimits.seekMessagesMax} messages were published since then`;
        throw new GatewayError('QUERY_INVALID', detail, { remedy: 'Seek to a later time.' });
      }
      after = page.at(-1);
      if (page.length < pageSize) break;
    }
    const moved = await store.seek({ lane, sinceMs, deliveries }, clock.now());
    queue.look();
    this.tell(topic, [], deliveries);
    return moved;
  }

  async #makeRoom(subscription: Subscription): Promise<void> {
    const { id, runningMax } = this.laneOf(subscription);
    await this.#options.queue.setRoom({ id, runningMax });
    this.wake(id);
  }

  #drop(lane: string): Promise<void> {
    return this.#options.queue.drop(lane);
  }
}

function listen<T>(listeners: Map<string, Set<T>>, key: string, listener: T): () => void {
  const set = listeners.get(key) ?? new Set();
  listeners.set(key, set);
  set.add(listener);
  return () => {
    set.delete(listener);
    if (set.size === 0) listeners.delete(key);
  };
}

function blobOf(payload: KeptMessage['payload']): string | undefined {
  return payload !== undefined && 'blob' in payload ? payload.blob : undefined;
}
