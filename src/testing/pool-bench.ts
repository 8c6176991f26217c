/** For tests of the pool: one on the mock driver and a fake clock, and calls whose settling is counted. */
import { createMockDriver, type MockDriver, mockCall, mockVersion } from '../driver/mock.ts';
import { CallSignal, isStream, type Reply, type Version } from '../invoke/invoke.ts';
import { Pool } from '../invoke/pool.ts';
import { silentLog } from '../log.ts';
import { Metrics } from '../telemetry/metrics.ts';
import { FakeClock } from './fake-clock.ts';

export interface Bench {
  clock: FakeClock;
  driver: MockDriver;
  pool: Pool;
  metrics: Metrics;
}

export interface Called {
  readonly signal: CallSignal;
  readonly reply: Promise<Reply>;
  /** What came of it: `200`, `failed: crashed`, `refused: INSTANCE_NOT_STARTED`; undefined while it waits. */
  outcome: string | undefined;
  /** How often it settled. */
  settled: number;
}

export const graceMs = 500;

export function poolBench(options: { runs?: (version: Version) => boolean } = {}): Bench {
  const clock = new FakeClock();
  const driver = createMockDriver({ clock, ...options });
  const metrics = new Metrics();
  const pool = new Pool({
    drivers: [driver],
    clock,
    log: silentLog,
    metrics,
    graceMs,
    bufferedBodyBytesMax: 1000,
  });
  return { clock, driver, pool, metrics };
}

export { mockVersion };

/** Calls through the pool; `settings` are the mock driver's for this call, such as `{ 'run-ms': '5' }`. */
export function callPool(
  pool: Pool,
  version: Version,
  settings: Record<string, string> = {},
  body?: Uint8Array,
): Called {
  const headers = Object.entries(settings).flatMap(([key, value]) => [`mock-${key}`, value]);
  const signal = new CallSignal();
  const call = mockCall(version, { headers, ...(body !== undefined && { body }) });
  const called: Called = {
    signal,
    reply: pool.invoke(call, signal),
    outcome: undefined,
    settled: 0,
  };
  called.reply.then(
    reply => {
      called.settled++;
      called.outcome =
        reply.failure === undefined ? String(reply.status) : `failed: ${reply.failure.reason}`;
    },
    error => {
      called.settled++;
      called.outcome = `refused: ${error.code ?? error}`;
    },
  );
  return called;
}

/** The text of an answer that has come. */
export async function textOf(called: Called): Promise<string> {
  const { body } = await called.reply;
  if (!isStream(body)) return Buffer.from(body).toString();
  const chunks: Uint8Array[] = [];
  for await (const chunk of body) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}
