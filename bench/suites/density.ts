/**
 * What stands still: the memory of idle instances, and of the gateway as `npm start` leaves it; how
 * long that takes to be ready. Memory is PSS: shared pages are divided among those that share them,
 * so sums are true.
 */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { FunctionDefinition } from '../../client/api.ts';
import { deployMany, hello, metric, pythonHello, settled, startGateway } from '../lib/fnway.ts';
import { answers, freePort } from '../lib/http.ts';
import { factsOf, pssKibOf, start, treeOf, until } from '../lib/processes.ts';
import type { SuiteOptions } from './suite.ts';

const nodeCount = 40;
const pythonCount = 100;
const idleMs = 5000;
const gibKib = 1024 ** 2;

export async function density(options: SuiteOptions): Promise<void> {
  await measureInstances(options);
  await measureQuickstart(options);
}

async function measureInstances({ report, directory, runs, tell }: SuiteOptions): Promise<void> {
  const data = join(directory, 'instances');
  const gateway = await startGateway({ data });
  const kept: Partial<FunctionDefinition> = { instances: { min: 1 } };
  const samples = { node: [] as number[], python: [] as number[], gateway: [] as number[] };
  try {
    tell(`deploying ${nodeCount + pythonCount} functions`);
    await deployMany(gateway, { ...hello, ...kept }, { prefix: 'node', count: nodeCount });
    await deployMany(gateway, { ...pythonHello, ...kept }, { prefix: 'py', count: pythonCount });
    await settled(gateway.url, { instances: nodeCount + pythonCount });
    await sleep(idleMs);
    for (let run = 0; run < runs; run++) {
      const found = instancePssKib(gateway.pid, data);
      expectCount('Node', found.node.length, nodeCount);
      expectCount('Python', found.python.length, pythonCount);
      samples.node.push(gibKib / mean(found.node));
      samples.python.push(gibKib / mean(found.python));
      samples.gateway.push(pssKibOf(gateway.pid)! / 1024);
      await sleep(500);
    }
  } finally {
    await gateway.stop();
  }
  const add = (title: string, values: number[], atLeast: number) =>
    report.row({
      measure: `idle ${title} instances a GiB`,
      samples: values,
      unit: 'instances',
      target: { atLeast },
    });
  add('Node', samples.node, 75);
  add('Python', samples.python, 400);
  const all = nodeCount + pythonCount;
  report.row({ measure: `gateway with ${all} instances`, samples: samples.gateway, unit: 'MiB' });
}

/** An instance has gone to its version's directory; what waits in a warm pool has not. */
function instancePssKib(gatewayPid: number, data: string) {
  const found = { node: [] as number[], python: [] as number[] };
  for (const pid of treeOf(gatewayPid)) {
    const facts = factsOf(pid);
    if (facts === undefined || !facts.directory.startsWith(join(data, 'code', 'fn_'))) continue;
    const runtime = facts.program.includes('python') ? 'python' : 'node';
    found[runtime].push(pssKibOf(pid)!);
  }
  return found;
}

function expectCount(title: string, found: number, wanted: number): void {
  if (found !== wanted) throw new Error(`${found} ${title} instances, not ${wanted}`);
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

async function measureQuickstart({ report, directory, runs, tell }: SuiteOptions): Promise<void> {
  const data = join(directory, 'quickstart');
  const first = await startQuickstart(data);
  const samples = { readyMs: [] as number[], answerMs: [] as number[], pssMib: [] as number[] };
  for (let run = 0; run < runs; run++) {
    const { readyMs, answerMs, pssMib } = await startQuickstart(data);
    samples.readyMs.push(readyMs);
    samples.answerMs.push(answerMs);
    samples.pssMib.push(pssMib);
    tell(`npm start: ready after ${Math.round(readyMs)} ms, ${Math.round(pssMib)} MiB`);
  }
  report.row({
    measure: '`npm start` to /readyz, again',
    samples: samples.readyMs,
    unit: 'ms',
    target: { atMost: 1500 },
  });
  report.row({ measure: '`npm start` to /readyz, first', samples: [first.readyMs], unit: 'ms' });
  const answer = '`npm start` to the first answer of hello';
  report.row({ measure: `${answer}, again`, samples: samples.answerMs, unit: 'ms' });
  report.row({ measure: `${answer}, first`, samples: [first.answerMs], unit: 'ms' });
  report.row({
    measure: 'gateway of `npm start`, pool filled, idle 5 s (PSS)',
    samples: samples.pssMib,
    unit: 'MiB',
    target: { atMost: 80 },
  });
  report.row({
    measure: 'the same after the first start',
    samples: [first.pssMib],
    unit: 'MiB',
  });
}

/** Runs `npm start` to the letter, and ends it again. */
async function startQuickstart(data: string) {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const startMs = performance.now();
  const started = start(['npm', 'start', '--', '--data', data, '--port', String(port)], {
    name: 'npm start',
    cwd: join(import.meta.dirname, '../..'),
  });
  try {
    await answers(`${url}/readyz`, 30_000);
    const readyMs = performance.now() - startMs;
    await answers(`${url}/function/hello`, 60_000);
    const answerMs = performance.now() - startMs;
    await until(async () => ((await metric(url, 'fnway_functions')) === 3 ? true : undefined), {
      what: 'the quickstart is applied',
      msMax: 60_000,
      everyMs: 50,
    });
    await settled(url);
    await sleep(idleMs);
    return { readyMs, answerMs, pssMib: pssKibOf(gatewayOf(started.pid))! / 1024 };
  } finally {
    await started.stop();
  }
}

/** Below npm and its shell: the process that runs the CLI itself. */
function gatewayOf(root: number): number {
  const found = treeOf(root)
    .map(factsOf)
    .find(facts => /\/node$/.test(facts?.program ?? '') && isCli(facts!.commandLine));
  if (found === undefined) throw new Error('npm start runs no gateway');
  return found.pid;
}

/** From source or from dist: the repository may change which. */
function isCli(commandLine: string): boolean {
  return /\bcli\.[jt]s up\b/.test(commandLine);
}
