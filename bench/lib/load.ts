/**
 * Puts the same load on several servers in turns, A B C, C B A, so that a slow minute of the
 * machine meets all of them. What a request costs is the processor time of the server's whole tree,
 * divided by the requests.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { cpuUsOf } from './processes.ts';
import { type Load, type LoadResult, runWrk } from './wrk.ts';

export interface Contestant {
  name: string;
  url: string;
  /** Roots of the process trees that serve it. */
  pids: readonly number[];
  headers?: Record<string, string>;
}

export type Measured = LoadResult & { cpuUs: number };

export interface TurnOptions {
  runs: number;
  directory: string;
  tell(text: string): void;
}

/**
 * At one connection, whether the kernel puts caller and server on one processor or has to wake
 * another changes p50 threefold, for seconds at a time, whoever is measured: short runs, and many.
 */
export const oneConnection: Load = { connections: 1, seconds: 1 };

export function manyRuns(options: TurnOptions): TurnOptions {
  return { ...options, runs: 4 * options.runs };
}

const warmUpSeconds = 1;
/** For what the last load left behind: closing connections, collecting garbage. */
const restMs = 200;

/** The samples of each contestant by its name; those of one index were taken in the same run. */
export async function takeTurns(
  contestants: readonly Contestant[],
  load: Load,
  options: TurnOptions,
): Promise<Map<string, Measured[]>> {
  const samples = new Map<string, Measured[]>(contestants.map(({ name }) => [name, []]));
  for (const contestant of contestants)
    await measure(contestant, { ...load, seconds: warmUpSeconds }, options.directory);
  for (let run = 0; run < options.runs; run++) {
    const order = run % 2 === 0 ? contestants : contestants.toReversed();
    for (const contestant of order) {
      const sample = await measure(contestant, load, options.directory);
      samples.get(contestant.name)!.push(sample);
      options.tell(
        `run ${run + 1} c=${load.connections} ${contestant.name}: ` +
          `${Math.round(sample.perSecond)}/s, p50 ${sample.p50Us} µs`,
      );
    }
  }
  return samples;
}

async function measure(contestant: Contestant, load: Load, directory: string): Promise<Measured> {
  await sleep(restMs);
  const cpuUs = () => contestant.pids.reduce((sum, pid) => sum + cpuUsOf(pid), 0);
  const before = cpuUs();
  const headers = { ...load.headers, ...contestant.headers };
  const result = await runWrk(contestant.url, { ...load, headers }, directory);
  return { ...result, cpuUs: (cpuUs() - before) / Math.max(1, result.requests) };
}
