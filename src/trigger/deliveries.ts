/** Deliveries of messages to functions and addresses: one try each time, and what becomes of what cannot be delivered. */

import type { Clock } from '../clock.ts';
import type { Resources } from '../deploy/resources.ts';
import type { RecordFailure } from '../domain/record.ts';
import { noRetry } from '../domain/retry.ts';
import type { Message } from '../domain/topic.ts';
import { ackDeadlineMs } from '../domain/topic.ts';
import { GatewayError } from '../errors.ts';
import { newTraceparent } from '../ids.ts';
import type { Call, CallSignal, HeaderPairs, Invoke, Version } from '../invoke/invoke.ts';
import { attempt, causeOf, type End, type Finish, type Trial } from '../queue/attempt.ts';
import { postTrial, sign } from '../queue/callbacks.ts';
import type { Outbound } from '../queue/outbound.ts';
import type { Payloads } from '../queue/payloads.ts';
import type { Ending } from '../queue/queue.ts';
import { callOf, tryCall } from '../queue/try-call.ts';
import type { LeasedJob, NewJob } from '../store/jobs.ts';
import { shapeOf } from './message-shapes.ts';
import type { MessageHead, Published, Subscription, Topics } from './topics.ts';

export interface DeliveriesOptions {
  topics: Topics;
  resources: Resources;
  payloads: Payloads;
  outbound: Pick<Outbound, 'post'>;
  invoke: Invoke;
  /** Throws FUNCTION_NOT_FOUND or VERSION_NOT_READY. */
  versionOf(namespace: string, name: string): Promise<Version>;
  signingKeyOf(id: string): string;
  /** A failure without the values of secrets. */
  hide(functionId: string, failure: RecordFailure): RecordFailure;
  /** Tells those who want to hear of it that something is dead. */
  noticesOf(dead: Dead): Promise<NewJob[]>;
  resultBytesMax: number;
  clock: Clock;
  random(): number;
}

/** A delivery that nobody will try again by itself. */
export interface Dead {
  id: string;
  subscription: Subscription;
  attempts: number;
  cause: string;
  /** What the last try said. */
  told?: string;
}

/** A push is taken with one of these. */
const takenStatuses = new Set([200, 201, 202, 204]);

export class Deliveries {
  readonly #options: DeliveriesOptions;

  constructor(options: DeliveriesOptions) {
    this.#options = options;
  }

  /** See `Run`. */
  readonly run = (job: LeasedJob, signal: CallSignal): Promise<Ending> => {
    const { topics } = this.#options;
    let message: Published | undefined;
    const subscription = this.subscriptionOf(job);
    return attempt<Trial>(
      job,
      {
        open: async () => {
          message = await this.messageOf(job);
        },
        tryOnce: () => {
          if (subscription === undefined) throw removed();
          return this.#try(job, { subscription, message: message! }, signal);
        },
        policy: () => (subscription === undefined ? noRetry : topics.policyOf(subscription)),
        firstDueMs: () => job.acceptedMs,
        finish: end => this.#finish(job, { subscription, message }, end),
      },
      this.#options,
    );
  };

  subscriptionOf({ lane }: { lane: string }): Subscription | undefined {
    const found = this.#options.resources.byId(lane);
    return found?.row.kind === 'subscription' ? (found as Subscription) : undefined;
  }

  /** Throws JOB_LOST when it is gone, or damaged. */
  async messageOf(job: {
    message?: string;
    acceptedMs: number;
    sealedInput?: Uint8Array;
    inputBlob?: string;
  }): Promise<Published> {
    const { sealedInput: sealed, inputBlob: blob, acceptedMs: publishedMs } = job;
    const opened = await this.#options.payloads
      .open<MessageHead>({ sealed, blob })
      .catch(() => undefined);
    if (opened === undefined || job.message === undefined)
      throw new GatewayError('JOB_LOST', 'the message is gone, or damaged');
    return { ...opened.head, data: opened.body, id: job.message, publishedMs };
  }

  async #try(
    job: LeasedJob,
    delivery: { subscription: Subscription; message: Published },
    signal: CallSignal,
  ): Promise<Trial> {
    const { definition } = delivery.subscription;
    if (definition.push !== undefined) return this.#push(job, delivery, signal);
    if (definition.function !== undefined) return this.#call(job, delivery, signal);
    // It is pulled from now on: who pulls will have it.
    return { last: { status: 503 }, givenBackMs: 1 };
  }

  async #call(
    job: LeasedJob,
    { subscription, message }: { subscription: Subscription; message: Published },
    signal: CallSignal,
  ): Promise<Trial> {
    const { versionOf, hide } = this.#options;
    const { row, definition } = subscription;
    const version = await versionOf(row.namespace, definition.function!);
    const call = this.callOf(job, { subscription, message }, version);
    const { last, failure, givenBackMs } = await tryCall(call, signal, this.#options);
    return {
      ...{ last, version: version.number },
      ...(givenBackMs !== undefined && { givenBackMs }),
      ...(call.instance !== undefined && { instance: call.instance }),
      ...(failure !== undefined && { failure: hide(version.functionId, failure) }),
    };
  }

  /** What its function is called with. */
  callOf(
    job: Pick<LeasedJob, 'id' | 'attempts' | 'lost' | 'parent'>,
    { subscription, message }: { subscription: Subscription; message: Published },
    version: Version,
  ): Call {
    const { row, definition } = subscription;
    const { headers, body } = this.shapeOf(job, { subscription, message });
    // Functions frameworks read the topic's name from the path.
    const target =
      version.files?.framework === undefined
        ? '/'
        : `/projects/${row.namespace}/topics/${definition.topic}`;
    return callOf(
      job,
      version,
      {
        head: {
          ...{ name: version.name, method: 'POST', target, headers, caller: 'trigger' },
          traceparent: newTraceparent(),
          trigger: { origin: 'subscription', name: row.name },
        },
        body,
      },
      job.attempts + job.lost + 1,
    );
  }

  shapeOf(
    job: Pick<LeasedJob, 'attempts' | 'lost'>,
    { subscription, message }: { subscription: Subscription; message: Published },
  ) {
    const { row, definition } = subscription;
    const { topic, payload, deadLetter } = definition;
    return shapeOf(message, {
      ...{ namespace: row.namespace, topic, subscription: row.name, payload },
      ...(deadLetter !== undefined && { deliveryAttempt: job.attempts + job.lost + 1 }),
    });
  }

  async #push(
    job: LeasedJob,
    { subscription, message }: { subscription: Subscription; message: Published },
    signal: CallSignal,
  ): Promise<Trial> {
    const { signingKeyOf, clock } = this.#options;
    const { row, definition } = subscription;
    const { headers, body } = this.shapeOf(job, { subscription, message });
    const request = {
      headers: {
        ...asRecord(headers),
        'X-Fnway-Invocation': job.id,
        'X-Fnway-Signature': sign(signingKeyOf(row.id), clock.now(), body),
      },
      body,
      answerMsMax: ackDeadlineMs(definition),
    };
    const { url } = definition.push!;
    return postTrial(this.#options, { url, request, taken: takenStatuses }, signal);
  }

  async #finish(
    job: LeasedJob,
    delivery: { subscription: Subscription | undefined; message: Published | undefined },
    { state, trial }: End<Trial>,
  ): Promise<Finish> {
    const { subscription, message } = delivery;
    if (state === 'succeeded') return { keepsInput: false };
    if (subscription === undefined) return { state: 'cancelled', keepsInput: false };
    const cause = causeOf(trial);
    const attempts = job.attempts + job.lost + 1;
    const told = trial.failure?.message;
    const dead = { subscription, message, attempts, cause, ...(told !== undefined && { told }) };
    return this.deadFinish(job, dead);
  }

  /** A delivery that nobody will try again by itself: it is kept, and its dead-letter topic has a copy. */
  async deadFinish(
    job: Pick<LeasedJob, 'id' | 'acceptedMs'>,
    dead: Omit<Dead, 'id'> & { message: Message | undefined },
  ): Promise<Finish> {
    const { topics, noticesOf } = this.#options;
    const { subscription, message, attempts, cause } = dead;
    const notices = await noticesOf({ ...dead, id: job.id });
    const kept: Finish = { state: 'dead', cause, keepsInput: true, next: notices };
    if (message === undefined) return kept;
    const facts = { attempts, publishedMs: job.acceptedMs };
    const copied = await topics.deadCopy(subscription, message, facts);
    if (copied === undefined) return kept;
    const { message: copy, deliveries, published } = copied.publication;
    const next = [...deliveries, ...notices];
    const onSettled = () => topics.tell(copied.topic, [published], deliveries);
    return { ...kept, next, messages: copy === undefined ? [] : [copy], onSettled };
  }
}

function removed(): GatewayError {
  return new GatewayError('RESOURCE_NOT_FOUND', 'the subscription has been removed');
}

function asRecord(headers: HeaderPairs): Record<string, string> {
  const found: Record<string, string> = {};
  for (let i = 0; i < headers.length; i += 2) found[headers[i]!] = headers[i + 1]!;
  return found;
}
