/**
 * Ten thousand functions registered, beside ten: how long a start takes, and what a warm call
 * costs. All but one of them are copies of a deployed function, written to store and disk directly,
 * because deploying each would build it: what a start reads is the same.
 */
import { linkSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { openSealer } from '../../src/auth/seal.ts';
import { newId, newSecret } from '../../src/ids.ts';
import { openSqliteStore } from '../../src/store/sqlite/sqlite.ts';
import type { FunctionRow, Store, VersionRow } from '../../src/store/store.ts';
import { deploy, hello, helloText, settled, startGateway } from '../lib/fnway.ts';
import { expectAnswer } from '../lib/http.ts';
import { type Contestant, type Measured, manyRuns, oneConnection, takeTurns } from '../lib/load.ts';
import type { Report } from '../lib/report.ts';
import { ratios } from '../lib/statistics.ts';
import type { SuiteOptions } from './suite.ts';

const sizes = { few: 10, many: 10_000 } as const;

export async function scale(options: SuiteOptions): Promise<void> {
  const { report, directory, runs, tell } = options;
  const data = { few: join(directory, 'few'), many: join(directory, 'many') };
  for (const size of ['few', 'many'] as const) {
    tell(`registering ${sizes[size]} functions`);
    await register(data[size], sizes[size]);
  }
  for (const size of ['few', 'many'] as const) {
    const samples = [];
    for (let run = 0; run < runs; run++) samples.push(await timeStart(data[size]));
    report.row({
      measure: `start to /readyz with ${sizes[size]} functions`,
      samples,
      unit: 'ms',
      ...(size === 'many' && { target: { atMost: 3000 } }),
    });
  }
  await compareCalls(data, options);
}

async function timeStart(data: string): Promise<number> {
  const gateway = await startGateway({ data });
  await gateway.stop();
  return gateway.readyMs;
}

async function compareCalls(
  data: { few: string; many: string },
  { report, directory, runs, seconds, tell }: SuiteOptions,
): Promise<void> {
  const gateways = [
    await startGateway({ data: data.few }),
    await startGateway({ data: data.many }),
  ];
  try {
    const names = [`${sizes.few} functions`, `${sizes.many} functions`];
    const contestants: Contestant[] = gateways.map(({ url, pid }, i) => ({
      name: names[i]!,
      url: `${url}/function/hello`,
      pids: [pid],
    }));
    for (const { url } of contestants) await expectAnswer(url, helloText);
    for (const { url } of gateways) await settled(url);
    const turns = { runs, directory, tell };
    reportCalls(report, await takeTurns(contestants, oneConnection, manyRuns(turns)), 1);
    const many = { connections: 64, seconds };
    reportCalls(report, await takeTurns(contestants, many, turns), 64);
  } finally {
    await Promise.all(gateways.map(gateway => gateway.stop()));
  }
}

function reportCalls(report: Report, samples: Map<string, Measured[]>, connections: number): void {
  const p50Us = [...samples.values()].map(measured => measured.map(sample => sample.p50Us));
  report.row({
    measure: `warm call, c=${connections}, p50: ${sizes.many} / ${sizes.few} functions`,
    samples: ratios(p50Us[1]!, p50Us[0]!),
    unit: '×',
    target: { atMost: 1.1 },
  });
  for (const [name, measured] of samples)
    report.row({
      measure: `warm call, c=${connections}, p50: ${name}`,
      samples: measured.map(sample => sample.p50Us),
      unit: 'µs',
    });
}

/** Makes a data directory with `count` functions, of which `hello` was deployed. */
async function register(data: string, count: number): Promise<void> {
  const gateway = await startGateway({ data });
  await deploy(gateway, 'hello', hello);
  await gateway.stop();
  const store = openSqliteStore({ path: join(data, 'fnway.db') });
  try {
    const [found] = await store.functions.list({ limit: 1 });
    const original = { row: found!.row, version: found!.active! };
    const sealer = openSealer(join(data, 'key'));
    for (let i = 1; i < count; i++)
      await copyFunction(store, original, {
        index: i,
        code: join(data, 'code'),
        sealedToken: sealer.seal(newSecret('fnt_')),
      });
  } finally {
    await store.close();
  }
}

async function copyFunction(
  store: Store,
  { row, version }: { row: FunctionRow; version: VersionRow },
  copy: { index: number; code: string; sealedToken: Uint8Array },
): Promise<void> {
  const { revision: _, ...rest } = row;
  const id = newId('fn', Date.now());
  linkTree(join(copy.code, row.id), join(copy.code, id));
  const name = `copy-${copy.index}`;
  const { sealedToken } = copy;
  const created = await store.functions.create(
    { ...rest, id, name, identity: row.identity + copy.index, sealedToken },
    { ...version, functionId: id },
  );
  if (created === 'exists') throw new Error(`there is a function ${name} already`);
}

/** The same files in other directories, without their bytes. */
function linkTree(from: string, to: string): void {
  mkdirSync(to, { recursive: true });
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory()) linkTree(source, target);
    else linkSync(source, target);
  }
}
