/** What is dead: deliveries, calls and what tells of them; counted by cause, looked at, tried again, forgotten. */
import type { DeadLetterGroup, DeadLetterView } from '../../client/api.ts';
import type { Clock } from '../clock.ts';
import type { Registry } from '../deploy/registry.ts';
import type { Resource, Resources } from '../deploy/resources.ts';
import { isoOf } from '../domain/units.ts';
import { GatewayError, isGatewayError } from '../errors.ts';
import { newId } from '../ids.ts';
import type { Version } from '../invoke/invoke.ts';
import { callbackLane, callbacksRunningMax } from '../queue/callbacks.ts';
import {
  type Calls,
  type CallTold,
  type QueuedFunction,
  refuseUnaccepted,
} from '../queue/calls.ts';
import { asInput, type Payloads } from '../queue/payloads.ts';
import type { Queue } from '../queue/queue.ts';
import { storyIn } from '../queue/story.ts';
import { attemptView } from '../queue/story-view.ts';
import type { DeadCount, JobQuery, NewJob, StoredJob } from '../store/jobs.ts';
import type { Deliveries } from './deliveries.ts';
import { messageView } from './message-shapes.ts';
import { notificationsRunningMax } from './notifications.ts';
import type { Subscription, Topics } from './topics.ts';

export interface DeadLettersOptions {
  queue: Pick<Queue, 'dead' | 'list' | 'find' | 'purge' | 'submit'>;
  calls: Pick<Calls, 'jobOf' | 'tell' | 'redriveOf'>;
  topics: Topics;
  deliveries: Deliveries;
  resources: Resources;
  registry: Pick<Registry, 'byId' | 'get'>;
  payloads: Payloads;
  functionOf(namespace: string, name: string): QueuedFunction | undefined;
  /** Throws VERSION_NOT_FOUND and the like. */
  pinned(namespace: string, name: string, version: number): Promise<Version>;
  clock: Clock;
}

/** Which of them: all that are given must fit. */
export interface DeadQuery {
  namespace: string;
  subscription?: string | undefined;
  function?: string | undefined;
  cause?: string | undefined;
}

export interface Redriven {
  redriven: Array<{ id: string; as: string }>;
  /** Why not: by id. */
  left: Array<{ id: string; reason: string }>;
}

const pageSize = 200;

export class DeadLetters {
  readonly #options: DeadLettersOptions;

  constructor(options: DeadLettersOptions) {
    this.#options = options;
  }

  async groups(namespace: string): Promise<DeadLetterGroup[]> {
    const groups = await this.#options.queue.dead(namespace);
    return groups.map(group => ({
      ...{ kind: group.kind, ...this.#ownerOf(group), cause: group.cause, count: group.count },
      ...{ firstAt: isoOf(group.firstMs), lastAt: isoOf(group.lastMs) },
    }));
  }

  /** Newest first; those that were redriven are not among them. */
  async list(
    query: DeadQuery,
    { limit, after }: { limit: number; after?: string | undefined },
  ): Promise<{ items: DeadLetterView[]; next?: string }> {
    const { queue } = this.#options;
    const page = await this.#page(query, { limit, after });
    const jobs = await Promise.all(page.map(({ id }) => queue.find(id)));
    const there = jobs.filter(job => job !== undefined);
    const items = await Promise.all(there.map(job => this.#view(job)));
    return { items, ...(page.length === limit && { next: page.at(-1)!.id }) };
  }

  /** What a delivery is about, for people; whether it is dead or not. */
  tell(job: StoredJob): CallTold {
    const { deliveries, payloads } = this.#options;
    const subscription = deliveries.subscriptionOf(job);
    const name = subscription?.definition.function ?? subscription?.row.name ?? job.lane;
    const trigger = { origin: 'subscription' as const, name: subscription?.row.name ?? job.lane };
    return {
      about: { name, method: 'POST', target: '/', caller: 'trigger', trigger },
      attempts: storyIn(job.sealedStory, payloads).attempts,
      result: undefined,
    };
  }

  /** Throws DEAD_LETTER_NOT_FOUND. */
  async show(namespace: string, id: string): Promise<DeadLetterView> {
    const job = await this.#find(namespace, id);
    const { deliveries } = this.#options;
    const message =
      job.kind === 'delivery' ? await deliveries.messageOf(job).catch(() => undefined) : undefined;
    return {
      ...(await this.#view(job)),
      ...(message !== undefined && { message: messageView(message) }),
    };
  }

  /**
   * Accepts them once more, many in one transaction. With a version, that one is called, as an async call of its function.
   * `isDry`: what would be is told, and nothing done: then `as` is empty.
   */
  async redrive(
    query: DeadQuery & { ids?: readonly string[] | undefined },
    options: { version?: number | undefined; isDry: boolean },
  ): Promise<Redriven> {
    const ids = query.ids ?? (await this.#idsOf(query));
    const result: Redriven = { redriven: [], left: [] };
    for (let i = 0; i < ids.length; i += pageSize) {
      const { redriven, left } = await this.#redrive(
        query.namespace,
        ids.slice(i, i + pageSize),
        options,
      );
      result.redriven.push(...redriven);
      result.left.push(...left);
    }
    return result;
  }

  async #redrive(
    namespace: string,
    ids: readonly string[],
    { version, isDry }: { version?: number | undefined; isDry: boolean },
  ): Promise<Redriven> {
    const { queue, payloads } = this.#options;
    const left: Redriven['left'] = [];
    const leave = (id: string, error: unknown) => {
      if (!isGatewayError(error)) throw error;
      left.push({ id, reason: error.message });
    };
    const prepared = await Promise.all(
      ids.map(async id => {
        try {
          return { id, again: await this.#again(await this.#find(namespace, id), version) };
        } catch (error) {
          leave(id, error);
          return undefined;
        }
      }),
    );
    const ready = prepared.filter(one => one !== undefined);
    if (isDry) {
      await payloads.remove(ready.map(({ again }) => again.inputBlob));
      return { redriven: ready.map(({ id }) => ({ id, as: '' })), left };
    }
    const outcomes = ready.length === 0 ? [] : await queue.submit(ready.map(({ again }) => again));
    const redriven: Redriven['redriven'] = [];
    for (const [i, { id, again }] of ready.entries()) {
      const outcome = outcomes[i]!;
      if (outcome === 'accepted') redriven.push({ id, as: again.id });
      else {
        await payloads.remove([again.inputBlob]);
        try {
          refuseUnaccepted(outcome, { waitingMax: again.lane.waitingMax, name: 'the same' });
          redriven.push({ id, as: (outcome as { first: string }).first });
        } catch (error) {
          leave(id, error);
        }
      }
    }
    return { redriven, left };
  }

  async purge(query: DeadQuery & { ids?: readonly string[] | undefined }): Promise<number> {
    const { queue } = this.#options;
    const { namespace, ids, cause } = query;
    if (ids === undefined) {
      const lanes = this.#lanesOf(query);
      const given = { namespace, ...(lanes !== undefined && { lanes }) };
      return queue.purge({ ...given, ...(cause !== undefined && { cause }) });
    }
    let sum = 0;
    for (const id of ids) sum += await queue.purge({ namespace, id });
    return sum;
  }

  /** Those of one key in the order in which they died, which is that of their publication. */
  async #idsOf(query: DeadQuery): Promise<string[]> {
    const found: StoredJob[] = [];
    let after: string | undefined;
    for (;;) {
      const page = await this.#page(query, { limit: pageSize, after });
      found.push(...page);
      if (page.length < pageSize) break;
      after = page.at(-1)!.id;
    }
    return found
      .sort((a, b) => a.endedMs! - b.endedMs! || a.acceptedMs - b.acceptedMs)
      .map(({ id }) => id);
  }

  #page(
    query: DeadQuery,
    { limit, after }: { limit: number; after?: string | undefined },
  ): Promise<StoredJob[]> {
    const lanes = this.#lanesOf(query);
    const wanted: JobQuery = { namespace: query.namespace, state: 'dead', isOpen: true, limit };
    return this.#options.queue.list({
      ...wanted,
      ...(lanes !== undefined && { lanes }),
      ...(query.cause !== undefined && { cause: query.cause }),
      ...(after !== undefined && { after }),
    });
  }

  /** Of a function its callbacks too. Throws RESOURCE_NOT_FOUND and FUNCTION_NOT_FOUND. */
  #lanesOf({ namespace, subscription, function: name }: DeadQuery): string[] | undefined {
    const { resources, registry } = this.#options;
    if (subscription !== undefined)
      return [resources.find('subscription', namespace, subscription).row.id];
    if (name === undefined) return undefined;
    const entry = registry.get(namespace, name);
    if (entry !== undefined) return [entry.row.id, `${callbackLane}${entry.row.id}`];
    const detail = `there is no function ${name} in the namespace ${namespace}`;
    throw new GatewayError('FUNCTION_NOT_FOUND', detail);
  }

  async #find(namespace: string, id: string): Promise<StoredJob> {
    const job = await this.#options.queue.find(id);
    if (job?.namespace === namespace && job.state === 'dead') return job;
    const detail = `there is no dead letter ${id} in the namespace ${namespace}`;
    throw new GatewayError('DEAD_LETTER_NOT_FOUND', detail);
  }

  async #again(job: StoredJob, version: number | undefined): Promise<NewJob> {
    const { topics, deliveries, clock } = this.#options;
    const { id, priority, orderKey } = job;
    if (job.redriven !== undefined)
      throw new GatewayError('INVOCATION_REDRIVEN', `it was redriven as ${job.redriven}`);
    const facts = { redrives: id, parent: id, ...(orderKey !== undefined && { orderKey }) };
    if (job.kind === 'delivery') {
      const subscription = deliveries.subscriptionOf(job);
      if (subscription === undefined)
        throw new GatewayError('RESOURCE_NOT_FOUND', 'its subscription has been removed');
      if (version !== undefined) return this.#asCall(job, subscription, version);
      const { acceptedMs: publishedMs, message } = job;
      if (message === undefined) throw new GatewayError('JOB_LOST', 'its message is gone');
      // As old as it is now: what counts its age begins again.
      const nowMs = clock.now();
      const delivery = topics.deliveryOf(subscription, { id: message, publishedMs });
      return { ...delivery, ...facts, priority, dueMs: nowMs };
    }
    if (job.kind === 'call') return this.#callAgain(job, version);
    if (version !== undefined)
      throw new GatewayError('DEFINITION_INVALID', `a ${job.kind} calls no version`);
    return { ...(await this.#sameAgain(job)), ...facts };
  }

  async #callAgain(job: StoredJob, version: number | undefined): Promise<NewJob> {
    const { calls, registry, pinned } = this.#options;
    const row = registry.byId(job.functionId)?.row;
    const called = row && this.#options.functionOf(row.namespace, row.name);
    if (row === undefined || called === undefined)
      throw new GatewayError('FUNCTION_NOT_FOUND', 'its function has been removed');
    if (version !== undefined) await pinned(row.namespace, row.name, version);
    const again = await calls.redriveOf(job, called, version);
    if (again === undefined) throw new GatewayError('JOB_LOST', 'its input is gone');
    return calls.jobOf(again);
  }

  /** A delivery as a call of one version of its function. */
  async #asCall(job: StoredJob, subscription: Subscription, number: number): Promise<NewJob> {
    const { calls, deliveries, functionOf, pinned } = this.#options;
    const { row, definition } = subscription;
    const name = definition.function;
    const called = name === undefined ? undefined : functionOf(row.namespace, name);
    if (name === undefined || called === undefined)
      throw new GatewayError('DEFINITION_INVALID', 'its subscription calls no function');
    const version = await pinned(row.namespace, name, number);
    const message = await deliveries.messageOf(job);
    const { method, target, headers, body } = deliveries.callOf(
      job,
      { subscription, message },
      version,
    );
    return calls.jobOf({
      ...{ function: called, body: body as Uint8Array, parent: job.id, redrives: job.id },
      priority: job.priority,
      head: {
        ...{ name, method, target, headers, caller: 'trigger', version: number, traceparent: '' },
        trigger: { origin: 'subscription', name: row.name },
      },
    });
  }

  /** With an input of its own: that of what is dead goes with it. */
  async #sameAgain(job: StoredJob): Promise<NewJob> {
    const { payloads, clock } = this.#options;
    const opened = await payloads.open<object>({ sealed: job.sealedInput, blob: job.inputBlob });
    if (opened === undefined) throw new GatewayError('JOB_LOST', 'its input is gone');
    const nowMs = clock.now();
    const { kind, namespace, functionId, priority } = job;
    const runningMax = kind === 'callback' ? callbacksRunningMax : notificationsRunningMax;
    return {
      ...{ id: newId('inv', nowMs), kind, namespace, functionId, priority },
      lane: { id: job.lane, runningMax, waitingMax: Number.MAX_SAFE_INTEGER },
      ...{ acceptedMs: nowMs, dueMs: nowMs },
      ...asInput(await payloads.keep(opened.head, opened.body)),
    };
  }

  async #view(job: StoredJob): Promise<DeadLetterView> {
    const { calls, payloads } = this.#options;
    const attempts =
      job.kind === 'call'
        ? (await calls.tell(job)).attempts
        : storyIn(job.sealedStory, payloads).attempts;
    return {
      ...{ id: job.id, kind: job.kind, ...this.#ownerOf(job), cause: job.cause ?? '' },
      ...{ acceptedAt: isoOf(job.acceptedMs), endedAt: isoOf(job.endedMs ?? 0) },
      attempts: attempts.map(attemptView),
      ...(job.redriven !== undefined && { redriven: job.redriven }),
    };
  }

  /** By name, as long as it is there. */
  #ownerOf({ lane, kind }: Pick<DeadCount, 'lane' | 'kind'>): {
    subscription?: string;
    function?: string;
    notification?: string;
  } {
    const { resources, registry } = this.#options;
    const found: Resource | undefined = resources.byId(lane);
    if (kind === 'delivery') return { subscription: found?.row.name ?? lane };
    if (kind === 'notification') return { notification: found?.row.name ?? lane };
    const id = lane.startsWith(callbackLane) ? lane.slice(callbackLane.length) : lane;
    return { function: registry.byId(id)?.row.name ?? id };
  }
}
