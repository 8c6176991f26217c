/** A queue of calls with everything around it in memory: for the tests of this folder and of test/durability. */
import { createSealer } from '../auth/seal.ts';
import { createMemoryBlobs } from '../blob/memory.ts';
import type { Clock } from '../clock.ts';
import type { RetryPolicy } from '../domain/retry.ts';
import type { Call, CallSignal, Reply, Version } from '../invoke/invoke.ts';
import { silentLog } from '../log.ts';
import { type CallEnd, Calls, type QueuedFunction } from '../queue/calls.ts';
import { Payloads } from '../queue/payloads.ts';
import { Queue } from '../queue/queue.ts';
import type { JobStore, NewJob } from '../store/jobs.ts';

export interface QueueFixture {
  queue: Queue;
  calls: Calls;
  /** Accepts a call; resolves with its id. */
  submit(body?: string, changes?: Partial<Parameters<Calls['submit']>[0]>): Promise<string>;
}

export interface QueueFixtureOptions {
  jobs: JobStore;
  clock: Clock;
  invoke(call: Call, signal: CallSignal): Promise<Reply>;
  retry?: RetryPolicy;
  concurrency?: number;
  isAlone?: boolean;

  following?(end: CallEnd): Promise<NewJob[]>;
}

export const version = {
  number: 3,
  functionId: 'fn_a',
  namespace: 'default',
  name: 'a',
} as Version;

export function answer(status: number, text = ''): Reply {
  return { status, headers: [], body: Buffer.from(text) };
}

export function buildQueue(options: QueueFixtureOptions): QueueFixture {
  const { jobs, clock, invoke, retry, concurrency = 10 } = options;
  const sealer = createSealer(new Uint8Array(32));
  const payloads = new Payloads({ sealer, blobs: createMemoryBlobs() });
  const called: QueuedFunction = {
    ...{ functionId: 'fn_a', namespace: 'default', name: 'a', queue: undefined },
    ...{ retry, instancesMax: 1, concurrency },
  };
  const queue = new Queue({
    jobs,
    run: (job, signal) => calls.run(job, signal),
    removeBlobs: blobs => payloads.remove(blobs),
    ...{ clock, log: silentLog, keptMs: { ended: 3_600_000, dead: 7_200_000 } },
    isAlone: options.isAlone ?? true,
  });
  const calls: Calls = new Calls({
    ...{ queue, payloads, invoke, clock, random: () => 0, resultBytesMax: 1000 },
    log: silentLog,
    versionOf: async () => version,
    functionOf: () => called,
    hide: (_functionId, failure) => failure,
    following: options.following ?? (async () => []),
  });
  return {
    ...{ queue, calls },
    async submit(body = '', changes = {}) {
      const { id } = await calls.submit({
        function: called,
        head: {
          ...{ name: 'a', method: 'POST', target: '/', headers: [], caller: 'admin' },
          traceparent: '',
        },
        body: Buffer.from(body),
        ...changes,
      });
      return id;
    },
  };
}
