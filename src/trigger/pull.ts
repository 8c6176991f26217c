/**
 * Subscriptions that are pulled: a delivery is leased to whoever asks, until its deadline; acknowledged, given back, or its
 * lease extended, by an id that says which lease. What is neither comes again, and counts as a delivery.
 */
import { createHmac } from 'node:crypto';
import type { ReceivedMessage } from '../../client/api.ts';
import { tokensEqual } from '../auth/token.ts';
import type { Clock } from '../clock.ts';
import { delayBefore } from '../domain/retry.ts';
import { ackDeadlineMs } from '../domain/topic.ts';
import { GatewayError, isGatewayError } from '../errors.ts';
import type { Payloads } from '../queue/payloads.ts';
import type { Queue } from '../queue/queue.ts';
import { type Attempt, nextNumber, storyIn, told } from '../queue/story.ts';
import type { LeasedJob, Settlement } from '../store/jobs.ts';
import type { Deliveries } from './deliveries.ts';
import { messageView } from './message-shapes.ts';
import type { Published, Subscription, Topics } from './topics.ts';

export interface PullOptions {
  topics: Topics;
  deliveries: Pick<Deliveries, 'messageOf' | 'deadFinish'>;
  queue: Pick<Queue, 'claim' | 'settle' | 'extend' | 'find'>;
  payloads: Payloads;
  /** With which ack ids are signed: nobody can make one up. */
  ackSecret: Uint8Array;
  clock: Clock;
  random(): number;
}

/** Of data in one answer; the message that goes beyond it is the last. */
export const pulledBytesMax = 16 * 1024 ** 2;
/** Of messages, whose length is known when they have been leased. */
const claimedAtOnce = 50;
/** Between two looks, for what has become due meanwhile. */
const lookMs = 1000;

interface Ack {
  ackId: string;
  id: string;
  lease: number;
}

export class Pull {
  readonly #options: PullOptions;

  constructor(options: PullOptions) {
    this.#options = options;
  }

  /** Up to `limit` messages; none when there are none until the time is over. */
  async pull(
    subscription: Subscription,
    { limit, waitMs, signal }: { limit: number; waitMs: number; signal: AbortSignal },
  ): Promise<ReceivedMessage[]> {
    const { topics, clock } = this.#options;
    refuseOthers(subscription);
    const { id: lane, isPaused } = subscription.row;
    const untilMs = clock.monotonicMs() + waitMs;
    for (;;) {
      // Before it is looked at: something may come meanwhile.
      const woken = this.#woken(lane, Math.min(lookMs, untilMs - clock.monotonicMs()), signal);
      const received = isPaused || signal.aborted ? [] : await this.#claim(subscription, limit);
      if (signal.aborted) {
        // Nobody hears of it: as if it had not been pulled.
        woken.cancel();
        const ackIds = received.map(({ ackId }) => ackId);
        await this.#untouched(subscription, this.#parse(subscription, ackIds));
        return [];
      }
      if (received.length > 0 || clock.monotonicMs() >= untilMs) {
        woken.cancel();
        return received;
      }
      await woken.promise;
      // It may have been changed, or removed, in the meantime.
      if (topics.isCurrent(subscription)) continue;
      return [];
    }
  }

  #woken(
    lane: string,
    ms: number,
    signal: AbortSignal,
  ): { promise: Promise<void>; cancel(): void } {
    const { topics, clock } = this.#options;
    let wake!: () => void;
    const promise = new Promise<void>(resolve => {
      wake = resolve;
    });
    const forget = topics.onDelivery(lane, () => cancel());
    const timer = clock.after(Math.max(0, ms), () => cancel(), { unref: true });
    const cancel = () => {
      timer.cancel();
      forget();
      signal.removeEventListener('abort', cancel);
      wake();
    };
    signal.addEventListener('abort', cancel);
    return { promise, cancel };
  }

  async #claim(subscription: Subscription, limit: number): Promise<ReceivedMessage[]> {
    const { queue } = this.#options;
    const { row, definition } = subscription;
    const leaseMs = ackDeadlineMs(definition);
    const received: ReceivedMessage[] = [];
    let bytes = 0;
    while (received.length < limit && bytes < pulledBytesMax) {
      const few = Math.min(limit - received.length, claimedAtOnce);
      const leased = await queue.claim(row.id, { limit: few, leaseMs });
      const tooMany: Ack[] = [];
      for (const job of leased) {
        const ackId = this.#ackIdOf(row.id, job);
        if (bytes >= pulledBytesMax) tooMany.push({ ackId, id: job.id, lease: job.lease });
        const message = bytes < pulledBytesMax && (await this.#deliverable(subscription, job));
        if (!message) continue;
        bytes += message.data.length;
        const deliveryAttempt = job.attempts + job.lost + 1;
        received.push({
          ...{ ackId, message: messageView(message) },
          ...(definition.deadLetter !== undefined && { deliveryAttempt }),
        });
      }
      await this.#untouched(subscription, tooMany);
      if (leased.length < few) break;
    }
    return received;
  }

  /** Undefined where it has had its tries, or is too old: then it is dead. */
  async #deliverable(subscription: Subscription, job: LeasedJob): Promise<Published | undefined> {
    const { topics, deliveries, clock } = this.#options;
    const { attempts: most, maxAgeMs = Number.MAX_VALUE } = topics.policyOf(subscription);
    const tried = job.attempts + job.lost;
    let message: Published | undefined;
    let cause = 'not acknowledged';
    try {
      message = await deliveries.messageOf(job);
    } catch (error) {
      cause = isGatewayError(error) ? error.code : 'JOB_LOST';
    }
    const isTooOld = clock.now() > job.acceptedMs + maxAgeMs;
    if (message !== undefined && tried < most && !isTooOld) return message;
    if (isTooOld) cause = 'too old';
    const dead = { subscription, message, cause, attempts: tried };
    await this.#die(job, dead, { isCounted: false });
    return undefined;
  }

  /** Given back at once, and no try was used up. */
  async #untouched({ row }: Subscription, acks: readonly Ack[]): Promise<void> {
    const { queue, clock, topics } = this.#options;
    if (acks.length === 0) return;
    const nowMs = clock.now();
    const outcome = { kind: 'retry', dueMs: nowMs } as const;
    await queue.settle(
      acks.map(({ id, lease }) => ({ id, lease, nowMs, isCounted: false, outcome, next: [] })),
    );
    topics.wake(row.id);
  }

  /** Throws ACK_ID_INVALID for what is none, and ACK_ID_STALE when some are not held any more. */
  async acknowledge(subscription: Subscription, ackIds: readonly string[]): Promise<void> {
    const { queue, clock } = this.#options;
    const acks = this.#parse(subscription, ackIds);
    const outcome = { kind: 'end', state: 'succeeded', keepsInput: false } as const;
    const outcomes = await queue.settle(
      acks.map(({ id, lease }) => ({
        ...{ id, lease, nowMs: clock.now(), isCounted: true, outcome, next: [] },
      })),
    );
    refuseStale(
      acks,
      outcomes.map(outcome => outcome === 'settled'),
      'acknowledged',
    );
  }

  /** They come again, after the back-off of the subscription, or are dead. */
  async giveBack(subscription: Subscription, ackIds: readonly string[]): Promise<void> {
    const acks = this.#parse(subscription, ackIds);
    const held = await Promise.all(acks.map(ack => this.#giveBack(subscription, ack)));
    refuseStale(acks, held, 'given back');
  }

  async extend(
    subscription: Subscription,
    ackIds: readonly string[],
    deadlineMs: number,
  ): Promise<void> {
    const acks = this.#parse(subscription, ackIds);
    refuseStale(acks, await this.#options.queue.extend(acks, deadlineMs), 'extended');
  }

  async #giveBack(subscription: Subscription, { id, lease }: Ack): Promise<boolean> {
    const { queue, topics, deliveries, clock, random } = this.#options;
    const job = await queue.find(id);
    if (job?.state !== 'running') return false;
    const leased = { ...job, lease };
    const policy = topics.policyOf(subscription);
    const number = job.attempts + job.lost + 1;
    if (number >= policy.attempts) {
      const message = await deliveries.messageOf(job).catch(() => undefined);
      const cause = 'not acknowledged';
      const dead = { subscription, message, cause, attempts: number };
      return this.#die(leased, dead, { isCounted: true });
    }
    const dueMs = clock.now() + delayBefore(policy, number + 1, random());
    const settlement = this.#settlement(leased, { kind: 'retry', dueMs }, { isCounted: true });
    return (await queue.settle([settlement]))[0] === 'settled';
  }

  async #die(
    job: LeasedJob,
    dead: {
      subscription: Subscription;
      message: Published | undefined;
      cause: string;
      attempts: number;
    },
    { isCounted }: { isCounted: boolean },
  ): Promise<boolean> {
    const { queue, deliveries, payloads } = this.#options;
    const { cause } = dead;
    const { next = [], messages = [], onSettled } = await deliveries.deadFinish(job, dead);
    const outcome = { kind: 'end', state: 'dead', keepsInput: true, cause } as const;
    const settlement = { ...this.#settlement(job, outcome, { isCounted }), next, messages };
    const [settled] = await queue.settle([settlement]);
    const blobs = [...messages.map(({ blob }) => blob), ...next.map(({ inputBlob }) => inputBlob)];
    if (settled === 'settled') onSettled?.();
    else await payloads.remove(blobs);
    return settled === 'settled';
  }

  #settlement(
    job: LeasedJob,
    outcome: Settlement['outcome'],
    { isCounted }: { isCounted: boolean },
  ): Settlement {
    const { payloads, clock } = this.#options;
    const story = storyIn(job.sealedStory, payloads);
    const attempt: Attempt = {
      ...{ number: nextNumber(story), startedMs: clock.now(), tookMs: 0, status: 499 },
      failure: { kind: 'function', code: 'FUNCTION_FAILED', message: 'it was not acknowledged' },
    };
    return {
      ...{ id: job.id, lease: job.lease, nowMs: clock.now(), isCounted, outcome, next: [] },
      sealedStory: payloads.seal(JSON.stringify(told(story, attempt))),
    };
  }

  #ackIdOf(lane: string, { id, lease }: LeasedJob): string {
    return `${id}.${lease}.${this.#signature(lane, id, lease)}`;
  }

  #signature(lane: string, id: string, lease: number): string {
    const text = `${lane} ${id} ${lease}`;
    return createHmac('sha256', this.#options.ackSecret).update(text).digest('base64url');
  }

  #parse({ row }: Subscription, ackIds: readonly string[]): Ack[] {
    return ackIds.map((ackId, i) => {
      const [, id, lease, signature] = /^(inv_\w{26})\.(\d{1,9})\.([\w-]{43})$/.exec(ackId) ?? [];
      const isOurs =
        id !== undefined && tokensEqual(signature!, this.#signature(row.id, id, Number(lease)));
      if (isOurs) return { ackId, id, lease: Number(lease) };
      const message = `it is no ack id of subscription ${row.name}`;
      const issues = [{ path: `ackIds.${i}`, message }];
      throw new GatewayError('ACK_ID_INVALID', `ackIds.${i}: ${message}`, { issues });
    });
  }
}

function refuseOthers({ row, definition }: Subscription): void {
  if (definition.pull) return;
  const detail = `subscription ${row.name} is not pulled: it delivers by itself`;
  throw new GatewayError('DEFINITION_INVALID', detail, {
    remedy: 'Make a subscription of its own for whoever pulls: `pull: true`.',
  });
}

function refuseStale(acks: readonly Ack[], held: readonly boolean[], done: string): void {
  const stale = acks.map((_, i) => i).filter(i => !held[i]);
  if (stale.length === 0) return;
  const message = 'its deadline has passed, or it was settled before';
  const issues = stale.slice(0, 20).map(i => ({ path: `ackIds.${i}`, message }));
  const others = acks.length - stale.length;
  const rest = others === 0 ? '' : `; the other ${others} were ${done}`;
  const detail = `${stale.length} of ${acks.length} ack ids are stale${rest}`;
  throw new GatewayError('ACK_ID_STALE', detail, { issues });
}
