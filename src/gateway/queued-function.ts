/** A function as the queue sees it. */
import type { FunctionEntry } from '../deploy/registry.ts';
import type { QueuedFunction } from '../queue/calls.ts';

export function queuedFunctionOf({ row, active }: FunctionEntry): QueuedFunction {
  const { retry, queue, instances } = row.settings;
  return {
    functionId: row.id,
    namespace: row.namespace,
    name: row.name,
    retry,
    queue,
    instancesMax: instances.max,
    concurrency: active?.concurrency ?? 1,
  };
}
