/** The part of the composition root that is about jobs: the queue, what its jobs do and carry, and what brings them. */
import type { Masks } from './auth/masks.ts';
import type { Sealer } from './auth/seal.ts';
import type { BlobStore } from './blob/blob.ts';
import type { Clock } from './clock.ts';
import type { Config } from './config.ts';
import type { FunctionEntry, Registry } from './deploy/registry.ts';
import type { Resources } from './deploy/resources.ts';
import { GatewayError } from './errors.ts';
import { queuedFunctionOf } from './gateway/queued-function.ts';
import { random } from './ids.ts';
import type { HeaderPairs, Invoke, Version } from './invoke/invoke.ts';
import type { Log } from './log.ts';
import { Callbacks, signingKeyOf } from './queue/callbacks.ts';
import { Calls } from './queue/calls.ts';
import { Outbound } from './queue/outbound.ts';
import { Payloads } from './queue/payloads.ts';
import { Queue, type Run } from './queue/queue.ts';
import type { JobKind } from './store/jobs.ts';
import type { Store } from './store/store.ts';
import { Buckets } from './trigger/buckets.ts';
import { DeadLetters } from './trigger/dead-letters.ts';
import { Deliveries } from './trigger/deliveries.ts';
import { Notifications } from './trigger/notifications.ts';
import { Pull } from './trigger/pull.ts';
import { Schedules } from './trigger/schedules.ts';
import { Topics } from './trigger/topics.ts';

export interface JobParts {
  store: Store;
  sealer: Sealer;
  registry: Registry;
  resources: Resources;
  invoke: Invoke;
  masks: Masks;
  pinned(entry: FunctionEntry, number: number): Promise<Version>;
  secretOf(namespace: string, name: string): string | undefined;
  clock: Clock;
  log: Log;
}

/** The queue, what its jobs do, and what they carry. */
export function createQueue(config: Config, parts: JobParts & { payloads: BlobStore }) {
  const { store, sealer, registry, invoke, masks, pinned, clock, log } = parts;
  const payloads = new Payloads({ sealer, blobs: parts.payloads });
  const outbound = new Outbound({ allowPrivate: config.allowPrivateCallbacks, clock });
  const callbacks = new Callbacks({
    ...{ payloads, outbound, clock, log, random },
    signingKeyOf: functionId => signingKeyOf(functionId, sealer),
    noticesOf: (job, dead) => triggers.notifications.ofCallback(job, dead),
  });
  const { ended, dead } = config.jobsKeptMs;
  const queue = new Queue({
    jobs: store.jobs,
    run: (job, signal) => runners[job.kind].run(job, signal),
    removeBlobs: blobs => payloads.remove(blobs),
    ...{ clock, log, keptMs: { ended, dead }, isAlone: true },
  });
  const resultBytesMax = config.limits.bufferedBodyBytesMax;
  const calls = new Calls({
    ...{ queue, payloads, invoke, resultBytesMax, clock, log, random },
    async versionOf(functionId, head) {
      const entry = present(registry.byId(functionId), head.name);
      return head.version === undefined ? chosen(entry, head.headers) : pinned(entry, head.version);
    },
    functionOf(functionId) {
      const entry = registry.byId(functionId);
      return entry && queuedFunctionOf(entry);
    },
    hide: (functionId, failure) => masks.hideIn(functionId, failure),
    async following(end) {
      const told = await callbacks.following(end);
      return end.state === 'dead' ? [...told, ...(await triggers.notifications.ofCall(end))] : told;
    },
  });
  const triggers = createTriggers(parts, { queue, calls, payloads, outbound, resultBytesMax });
  const runners: Record<JobKind, { run: Run }> = {
    ...{ call: calls, callback: callbacks, delivery: triggers.deliveries },
    notification: triggers.notifications,
  };
  return {
    ...{ queue, calls, outbound, ...triggers },
    async start() {
      await payloads.removeAllBut(await store.jobs.blobs());
      await triggers.topics.start();
      await queue.start();
      await triggers.schedules.start();
      await triggers.buckets.start();
    },
    async stop(graceMs: number) {
      triggers.topics.stop();
      await Promise.all([triggers.schedules.stop(), triggers.buckets.stop()]);
      await queue.stop(graceMs);
    },
  };
}

/** What turns time and messages into jobs. */
function createTriggers(
  { store, sealer, registry, resources, invoke, masks, pinned, secretOf, clock, log }: JobParts,
  jobs: {
    queue: Queue;
    calls: Calls;
    payloads: Payloads;
    outbound: Outbound;
    resultBytesMax: number;
  },
) {
  const { queue, calls, payloads, outbound, resultBytesMax } = jobs;
  function functionOf(namespace: string, name: string) {
    const entry = registry.get(namespace, name);
    return entry && queuedFunctionOf(entry);
  }
  const notifications = new Notifications({
    ...{ resources, registry, queue, payloads, outbound, secretOf, clock, log, random },
    signingKeyOf: id => signingKeyOf(id, sealer),
  });
  const schedules = new Schedules({
    ...{ resources, store: store.schedules, queue, calls, functionOf, clock, log },
  });
  const buckets = new Buckets({
    ...{ resources, store: store.objects, queue, calls, functionOf, secretOf, clock, log },
  });
  const topics = new Topics({
    ...{ resources, store: store.messages, queue, payloads, functionOf, clock, log },
    orderingSecret: sealer.derive('ordering keys'),
  });
  const deliveries = new Deliveries({
    ...{ topics, resources, payloads, outbound, invoke, resultBytesMax, clock, random },
    noticesOf: dead => notifications.ofDelivery(dead),
    versionOf: async (namespace, name) => chosen(present(registry.get(namespace, name), name), []),
    signingKeyOf: id => signingKeyOf(id, sealer),
    hide: (functionId, failure) => masks.hideIn(functionId, failure),
  });
  const pull = new Pull({
    ...{ topics, deliveries, queue, payloads, clock, random },
    ackSecret: sealer.derive('ack ids'),
  });
  const deadLetters = new DeadLetters({
    ...{ queue, calls, topics, deliveries, resources, registry, payloads, functionOf, clock },
    pinned: async (namespace, name, number) =>
      pinned(present(registry.get(namespace, name), name), number),
  });
  return { buckets, schedules, topics, deliveries, pull, deadLetters, notifications };
}

function present(entry: FunctionEntry | undefined, name: string): FunctionEntry {
  if (entry !== undefined) return entry;
  throw new GatewayError('FUNCTION_NOT_FOUND', `${name} has been removed`);
}

/** The version that answers what pins none. */
function chosen({ split, active, row }: FunctionEntry, headers: HeaderPairs): Version {
  const version = split?.choose(headers) ?? active;
  if (version !== undefined) return version;
  throw new GatewayError('VERSION_NOT_READY', `no version of ${row.name} is ready yet`);
}
