/** What manifests declare beside functions: one set of routes for all kinds, and what only one kind can do. */
import type {
  AcceptedView,
  BucketDefinition,
  NotificationDefinition,
  Page,
  ResourcePut,
  ResourceView,
  ScheduleView,
  SlotView,
  SubscriptionView,
  TopicDefinition,
  WebhookView,
} from './api.ts';
import type { ReadOptions, ResourceListOptions } from './options.ts';
import { queryOf, type Wire } from './wire.ts';

/** By the name of the kind in paths. */
export interface ResourceViews {
  topics: ResourceView<TopicDefinition>;
  subscriptions: SubscriptionView;
  schedules: ScheduleView;
  webhooks: WebhookView;
  buckets: ResourceView<BucketDefinition>;
  notifications: ResourceView<NotificationDefinition>;
}

export interface ResourceClient<V> {
  /** In order of name. */
  list(options?: ResourceListOptions): Promise<Page<V>>;
  /** Of all pages. */
  each(options?: ResourceListOptions): AsyncIterable<V>;
  /** Throws RESOURCE_NOT_FOUND. */
  get(name: string, options?: ReadOptions): Promise<V>;
  /** Makes or changes it. `definition` may have a `project`. */
  put(name: string, definition: object, options?: ReadOptions): Promise<ResourcePut<V>>;
  /** Throws RESOURCE_NOT_FOUND and RESOURCE_IN_USE. */
  remove(name: string, options?: ReadOptions): Promise<void>;
  /** It brings nothing until it is resumed, and nothing of the time between. */
  pause(name: string, options?: ReadOptions): Promise<V>;
  resume(name: string, options?: ReadOptions): Promise<V>;
}

export interface ScheduleClient {
  /** Calls the schedule's function at once. */
  runSchedule(name: string, options?: ReadOptions): Promise<AcceptedView>;
  /** What became of its last slots, newest first. */
  listSlots(name: string, options?: ReadOptions & { limit?: number }): Promise<Page<SlotView>>;
}

export function resourceClient<V>(wire: Wire, base: string): ResourceClient<V> {
  const pathOf = (name: string, rest = '') => `${base}/${encodeURIComponent(name)}${rest}`;
  const client: ResourceClient<V> = {
    list: ({ signal, ...query } = {}) => wire.json('GET', `${base}${queryOf(query)}`, { signal }),
    async *each(options = {}) {
      let cursor = options.cursor;
      do {
        const page = await client.list({ ...options, ...(cursor !== undefined && { cursor }) });
        yield* page.items;
        cursor = page.next;
      } while (cursor !== undefined);
    },
    get: (name, { signal } = {}) => wire.json('GET', pathOf(name), { signal }),
    put: (name, definition, { signal } = {}) =>
      wire.json('PUT', pathOf(name), { signal, json: definition }),
    async remove(name, { signal } = {}) {
      await wire.send('DELETE', pathOf(name), { signal });
    },
    pause: (name, { signal } = {}) => wire.json('POST', pathOf(name, '/pause'), { signal }),
    resume: (name, { signal } = {}) => wire.json('POST', pathOf(name, '/resume'), { signal }),
  };
  return client;
}

export function scheduleClient(wire: Wire, base: string): ScheduleClient {
  const pathOf = (name: string, rest: string) => `${base}/${encodeURIComponent(name)}${rest}`;
  return {
    runSchedule: (name, { signal } = {}) => wire.json('POST', pathOf(name, '/run'), { signal }),
    listSlots: (name, { signal, ...query } = {}) =>
      wire.json('GET', pathOf(name, `/history${queryOf(query)}`), { signal }),
  };
}
