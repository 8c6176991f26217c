/**
 * Where the gateway's time goes: `node bench/profile.ts [--seconds 5] [--connections 64] [--body
 * BYTES] [--top 30]`. Runs it under `--cpu-prof` and wrk, and prints the functions with the most
 * time of their own within the load.
 */
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { deploy, echo, hello, settled, startGateway } from './lib/fnway.ts';
import { closeConnections } from './lib/http.ts';
import { cpuUsOf, endWithUs } from './lib/processes.ts';
import { runWrk } from './lib/wrk.ts';

/** What V8 writes: samples are ids of nodes, deltas the microseconds between them. */
interface Profile {
  nodes: Array<{
    id: number;
    callFrame: { functionName: string; url: string; lineNumber: number };
  }>;
  startTime: number;
  samples: number[];
  timeDeltas: number[];
}

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '5' },
    connections: { type: 'string', default: '64' },
    body: { type: 'string', default: '0' },
    top: { type: 'string', default: '30' },
  },
});

async function main(): Promise<void> {
  endWithUs();
  const directory = mkdtempSync(join(tmpdir(), 'fnway-profile-'));
  // The functions of a gateway that is root have users of their own, and live in here.
  chmodSync(directory, 0o711);
  try {
    const { fromUs, toUs, line } = await profileLoad(directory);
    console.log(line);
    const file = readdirSync(directory).find(name => name.endsWith('.cpuprofile'));
    if (file === undefined) throw new Error('node wrote no profile');
    print(JSON.parse(readFileSync(join(directory, file), 'utf8')), { fromUs, toUs });
  } finally {
    rmSync(directory, { recursive: true, force: true });
    closeConnections();
  }
}

async function profileLoad(directory: string) {
  const nodeFlags = ['--cpu-prof', `--cpu-prof-dir=${directory}`, '--cpu-prof-interval=200'];
  const gateway = await startGateway({ data: join(directory, 'data'), nodeFlags });
  try {
    const bodyBytes = Number(values.body);
    await deploy(gateway, 'target', bodyBytes > 0 ? echo : hello);
    await settled(gateway.url);
    const load = { connections: Number(values.connections), ...(bodyBytes > 0 && { bodyBytes }) };
    const url = `${gateway.url}/function/target`;
    await runWrk(url, { ...load, seconds: 2 }, directory);
    // V8 and hrtime read the same clock.
    const fromUs = monotonicUs();
    const cpuUs = cpuUsOf(gateway.pid);
    const result = await runWrk(url, { ...load, seconds: Number(values.seconds) }, directory);
    const each = (cpuUsOf(gateway.pid) - cpuUs) / result.requests;
    const line =
      `${Math.round(result.perSecond)} req/s, p50 ${result.p50Us} µs, p99 ${result.p99Us} µs, ` +
      `${each.toFixed(1)} µs of processor a request (gateway and function, profiled)`;
    return { fromUs, toUs: monotonicUs(), line };
  } finally {
    await gateway.stop();
  }
}

function monotonicUs(): number {
  return Number(process.hrtime.bigint() / 1000n);
}

function print(profile: Profile, { fromUs, toUs }: { fromUs: number; toUs: number }): void {
  const names = new Map(profile.nodes.map(({ id, callFrame }) => [id, nameOf(callFrame)]));
  const selfUs = new Map<string, number>();
  let atUs = profile.startTime;
  let totalUs = 0;
  profile.samples.forEach((id, i) => {
    const deltaUs = profile.timeDeltas[i]!;
    atUs += deltaUs;
    if (atUs < fromUs || atUs > toUs) return;
    const name = names.get(id)!;
    selfUs.set(name, (selfUs.get(name) ?? 0) + deltaUs);
    totalUs += deltaUs;
  });
  const top = [...selfUs].sort((a, b) => b[1] - a[1]).slice(0, Number(values.top));
  for (const [name, us] of top)
    console.log(`${((100 * us) / totalUs).toFixed(1).padStart(5)} %  ${name}`);
}

function nameOf(frame: { functionName: string; url: string; lineNumber: number }): string {
  const file = frame.url.replace(/^file:\/\/.*?\/(src|node_modules|bench)\//, '$1/');
  const name = frame.functionName || '(anonymous)';
  return file === '' ? name : `${name}  ${file}:${frame.lineNumber + 1}`;
}

await main();
