/**
 * Warm calls: the gateway with everything on, beside nginx and an undici proxy in front of a bare
 * server, and functions-framework without anything in front. `hello` at 64 connections and at one,
 * and an echo of 16 KiB.
 */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { deploy, echo, hello, helloText, settled, startGateway } from '../lib/fnway.ts';
import { expectAnswer } from '../lib/http.ts';
import { type Contestant, type Measured, manyRuns, oneConnection, takeTurns } from '../lib/load.ts';
import type { Report, Row } from '../lib/report.ts';
import { ratios } from '../lib/statistics.ts';
import {
  startBareServer,
  startFunctionsFramework,
  startLeastRelay,
  startNginx,
  startUndiciProxy,
} from '../peers/peers.ts';
import type { SuiteOptions } from './suite.ts';

const echoBytes = 16_384;

const names = {
  fnway: 'fnway',
  token: 'fnway, token',
  nginx: 'nginx → bare',
  undici: 'undici → bare',
  framework: 'functions-framework',
  least: 'least relay',
} as const;

/**
 * What functions-framework's own command runs on where Debian's Node is the only one; there it costs more than twice as
 * much. On the Node that we bring, seven times its rate is more than a bare server without a function reaches.
 */
const systemNode = '/usr/bin/node';

type Samples = Map<string, Measured[]>;
type Field = 'perSecond' | 'p50Us' | 'p99Us' | 'cpuUs';

export async function warm(options: SuiteOptions): Promise<void> {
  const { report, directory, runs, seconds, tell } = options;
  const servers = await startServers(directory);
  try {
    const { gateways, nginx, least, others, echoes } = servers;
    const turns = { runs, directory, tell };
    const many = await takeTurns(
      [gateways[0]!, nginx, ...others, gateways[1]!],
      { connections: 64, seconds },
      turns,
    );
    const one = await takeTurns([gateways[0]!, nginx, least], oneConnection, manyRuns(turns));
    const load = { connections: 64, seconds, bodyBytes: echoBytes };
    const large = await takeTurns(echoes, load, turns);
    reportRatios(report, { many, one, large });
    reportAll(report, 'hello, c=64', many, ['perSecond', 'p50Us', 'p99Us', 'cpuUs']);
    reportAll(report, 'hello, c=1', one, ['p50Us', 'p99Us']);
    reportAll(report, 'echo 16 KiB, c=64', large, ['perSecond', 'p50Us', 'p99Us', 'cpuUs']);
  } finally {
    await servers.stop();
  }
}

async function startServers(directory: string) {
  const socketPath = join(directory, 'bare.sock');
  const bare = await startBareServer(socketPath);
  const nginx = await startNginx(directory, socketPath);
  const undici = await startUndiciProxy(socketPath);
  const framework = await startFunctionsFramework(process.execPath);
  const old = existsSync(systemNode) ? await startFunctionsFramework(systemNode) : undefined;
  const relay = await startLeastRelay(directory);
  const gateway = await startGateway({ data: join(directory, 'data') });
  await deploy(gateway, 'hello', hello);
  await deploy(gateway, 'closed', { ...hello, auth: 'token' });
  await deploy(gateway, 'echo', echo);
  await settled(gateway.url);
  const { token } = await gateway.client.getToken('closed');
  const authorization = { authorization: `Bearer ${token}` };
  const endpoint = (name: string) => `${gateway.url}/function/${name}`;
  const ours = { pids: [gateway.pid] };
  const behindNginx = [nginx.pid, bare.pid];

  const gateways: Contestant[] = [
    { name: names.fnway, url: endpoint('hello'), ...ours },
    { name: names.token, url: endpoint('closed'), headers: authorization, ...ours },
  ];
  const proxied: Contestant = { name: names.nginx, url: nginx.url, pids: behindNginx };
  const least: Contestant = { name: names.least, url: relay.url, pids: relay.pids };
  const others: Contestant[] = [
    { name: names.undici, url: undici.url, pids: [undici.pid, bare.pid] },
    { name: names.framework, url: framework.url, pids: [framework.pid] },
  ];
  if (old !== undefined)
    others.push({ name: frameworkOn(systemNode), url: old.url, pids: [old.pid] });
  const echoes: Contestant[] = [{ name: names.fnway, url: endpoint('echo'), ...ours }, proxied];
  for (const { url, headers } of [...gateways, proxied, ...others])
    await expectAnswer(url, helloText, { ...(headers !== undefined && { headers }) });
  const body = 'x'.repeat(echoBytes);
  for (const { url } of echoes) await expectAnswer(url, body, { body });

  async function stop(): Promise<void> {
    const peers = [gateway, nginx, undici, framework, bare, old, relay];
    await Promise.all(peers.map(peer => peer?.stop()));
  }
  return { gateways, nginx: proxied, least, others, echoes, stop };
}

function frameworkOn(node: string): string {
  const version = execFileSync(node, ['--version'], { encoding: 'utf8' }).trim();
  return `${names.framework}, Node ${version.slice(1)}`;
}

function reportRatios(
  report: Report,
  { many, one, large }: { many: Samples; one: Samples; large: Samples },
): void {
  function ratio(samples: Samples, pair: { ours?: string; theirs: string; field: Field }) {
    const values = (name: string) => samples.get(name)!.map(sample => sample[pair.field]);
    return ratios(values(pair.ours ?? names.fnway), values(pair.theirs));
  }
  const add = (row: Omit<Row, 'unit'>) => report.row({ ...row, unit: '×' });
  const { token, nginx, undici, framework } = names;
  const field = 'perSecond';
  add({
    measure: 'hello, c=64, req/s: fnway / nginx → bare',
    samples: ratio(many, { theirs: nginx, field }),
    target: { atLeast: 0.9 },
  });
  add({
    measure: 'hello, c=64, req/s: fnway / undici → bare',
    samples: ratio(many, { theirs: undici, field }),
    target: { atLeast: 1.6 },
  });
  add({
    measure: 'hello, c=64, req/s: fnway / functions-framework',
    samples: ratio(many, { theirs: framework, field }),
    target: { atLeast: 7 },
  });
  for (const theirs of many.keys()) {
    if (!theirs.startsWith(`${framework},`)) continue;
    const measure = `hello, c=64, req/s: fnway / ${theirs}`;
    add({ measure, samples: ratio(many, { theirs, field }), target: { atLeast: 7 } });
  }
  add({
    measure: 'hello, c=64, req/s: fnway with a token / nginx → bare',
    samples: ratio(many, { ours: token, theirs: nginx, field }),
  });
  add({
    measure: 'hello, c=1, p50: fnway / nginx → bare',
    samples: ratio(one, { theirs: nginx, field: 'p50Us' }),
    target: { atMost: 1.4 },
  });
  add({
    measure: 'hello, c=1, p50: the least relay in Node / nginx → bare',
    samples: ratio(one, { ours: names.least, theirs: nginx, field: 'p50Us' }),
  });
  add({
    measure: 'echo 16 KiB, c=64, req/s: fnway / nginx → bare',
    samples: ratio(large, { theirs: nginx, field }),
    target: { atLeast: 0.9 },
  });
}

const fieldNames: Record<Field, { name: string; unit: string }> = {
  perSecond: { name: 'rate', unit: 'req/s' },
  p50Us: { name: 'p50', unit: 'µs' },
  p99Us: { name: 'p99', unit: 'µs' },
  cpuUs: { name: 'CPU a request', unit: 'µs' },
};

function reportAll(report: Report, load: string, samples: Samples, fields: readonly Field[]): void {
  for (const field of fields) {
    const { name, unit } = fieldNames[field];
    for (const [server, measured] of samples) {
      const values = measured.map(sample => sample[field]);
      report.row({ measure: `${load}, ${name}: ${server}`, samples: values, unit });
    }
  }
  for (const [server, measured] of samples) {
    const errors = measured.reduce((sum, sample) => sum + sample.errors, 0);
    if (errors > 0) report.note(`${load}: ${server} had ${errors} errors`);
  }
}
