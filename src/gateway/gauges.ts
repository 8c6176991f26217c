/** What `/metrics` tells of the moment: looked up when it is asked for. */
import type { Registry } from '../deploy/registry.ts';
import type { Resources } from '../deploy/resources.ts';
import type { Pool } from '../invoke/pool.ts';
import { callbackLane } from '../queue/callbacks.ts';
import type { Queue } from '../queue/queue.ts';
import type { RecordStore } from '../store/records.ts';
import type { Metrics } from '../telemetry/metrics.ts';

interface Gauged {
  pool: Pool;
  registry: Registry;
  records: RecordStore;
  queue: Queue;
  resources: Resources;
  warmSizes(): Array<{ runtime: string; size: number }>;
}

export function registerGauges(metrics: Metrics, parts: Gauged): void {
  const { pool, registry, records, warmSizes } = parts;
  registerJobGauges(metrics, parts);
  metrics.gauge('fnway_instances', 'Instances by function, version and state.', () =>
    pool.counts().flatMap(({ version, ready, busy, starting }) => {
      const labels = {
        namespace: version.namespace,
        function: version.name,
        version: String(version.number),
      };
      return Object.entries({ ready, busy, starting }).map(([state, value]) => ({
        labels: { ...labels, state },
        value,
      }));
    }),
  );
  metrics.gauge('fnway_calls_waiting', 'Calls that wait for an instance.', () =>
    pool.counts().map(({ version, waiting }) => ({
      labels: {
        namespace: version.namespace,
        function: version.name,
        version: String(version.number),
      },
      value: waiting,
    })),
  );
  metrics.gauge(
    'fnway_warm_processes',
    'Linked processes that are ready to become an instance.',
    () => warmSizes().map(({ runtime, size }) => ({ labels: { runtime }, value: size })),
  );
  metrics.gauge('fnway_functions', 'Functions registered.', () => [
    { labels: {}, value: registry.size },
  ]);
  metrics.gauge(
    'fnway_records_dropped',
    'Records, lines and bodies that had no room or could not be written, since the start.',
    () => Object.entries(records.dropped).map(([kind, value]) => ({ labels: { kind }, value })),
  );
}

function registerJobGauges(
  metrics: Metrics,
  { queue, registry, resources }: Pick<Gauged, 'queue' | 'registry' | 'resources'>,
): void {
  metrics.gauge('fnway_jobs', 'Jobs by function, kind and state, at the look before.', () =>
    queue.lanes().flatMap(({ lane, waiting, running }) => {
      const isCallback = lane.startsWith(callbackLane);
      const row = registry.byId(isCallback ? lane.slice(callbackLane.length) : lane)?.row;
      if (row === undefined) return [];
      const kind = isCallback ? 'callback' : 'call';
      const labels = { namespace: row.namespace, function: row.name, kind };
      return Object.entries({ waiting, running }).map(([state, value]) => ({
        labels: { ...labels, state },
        value,
      }));
    }),
  );
  metrics.gauge(
    'fnway_deliveries',
    'Deliveries by subscription and state, at the look before.',
    () =>
      queue.lanes().flatMap(({ lane, waiting, running }) => {
        const row = resources.byId(lane)?.row;
        if (row === undefined) return [];
        const labels = { namespace: row.namespace, subscription: row.name };
        return Object.entries({ waiting, running }).map(([state, value]) => ({
          labels: { ...labels, state },
          value,
        }));
      }),
  );
  metrics.gauge('fnway_jobs_ended', 'Jobs that ended, by state, since the start.', () =>
    Object.entries(queue.ended).map(([state, value]) => ({ labels: { state }, value })),
  );
}
