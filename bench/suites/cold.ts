/**
 * Cold calls with the warm pool filled: no instance of the function is left, the processes that
 * runtimes keep ready are there, and one call is timed. Beside it, in turns: spawning Node with a
 * node:http server, and Python with http.server, until they have answered. Then the same functions,
 * all at once.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import type { FunctionDefinition } from '../../client/api.ts';
import {
  deployMany,
  type GatewayUnderTest,
  hello,
  helloText,
  pythonHello,
  settled,
  startGateway,
} from '../lib/fnway.ts';
import { type Answer, call } from '../lib/http.ts';
import { PlainClient } from '../lib/plain-client.ts';
import { plainEnv } from '../lib/processes.ts';
import { median, quantile } from '../lib/statistics.ts';
import type { SuiteOptions } from './suite.ts';

/** Functions of each runtime: the burst calls all of them, the single calls take them in turn. */
const functionsEach = 50;
const callsEach = 20;
/** Not counted: the client's own code, and the files of interpreters, are cold too. */
const warmUps = 3;
/** For what starting the last process of the pool left behind. */
const restMs = 200;

const cold100ms: Partial<FunctionDefinition> = { instances: { idle: '100ms' } };

export async function cold(options: SuiteOptions): Promise<void> {
  const { report, directory, tell } = options;
  const gateway = await startGateway({ data: directory });
  try {
    tell(`deploying ${2 * functionsEach} functions`);
    const node = await deployMany(
      gateway,
      { ...hello, ...cold100ms },
      { prefix: 'node', count: functionsEach },
    );
    const python = await deployMany(
      gateway,
      { ...pythonHello, ...cold100ms },
      { prefix: 'python', count: functionsEach },
    );
    const single = await callInTurns(gateway, { node, python });
    const add = (measure: string, samples: number[], unit = 'ms') =>
      report.row({ measure, samples, unit });
    for (const [name, title] of [
      ['node', 'Node'],
      ['python', 'Python'],
    ] as const) {
      const { ours, theirs } = single[name];
      report.row({
        measure: `${title}: cold call / spawn until answered`,
        samples: [median(ours) / median(theirs)],
        unit: '×',
        target: { atMost: 0.083 },
      });
      add(`${title}: cold call`, ours);
      add(`${title}: spawn until answered`, theirs);
    }
    for (const [title, urls] of [
      ['Node', node],
      ['Python', python],
    ] as const) {
      const bursts = await callAtOnce(gateway, urls, options);
      const all = `${functionsEach} cold ${title} functions at once`;
      add(
        `${all}: p50`,
        bursts.map(tookMs => quantile(tookMs, 0.5)),
      );
      add(
        `${all}: p99`,
        bursts.map(tookMs => quantile(tookMs, 0.99)),
      );
    }
  } finally {
    await gateway.stop();
  }
}

async function callInTurns(gateway: GatewayUnderTest, urls: { node: string[]; python: string[] }) {
  const samples = {
    node: { ours: [] as number[], theirs: [] as number[] },
    python: { ours: [] as number[], theirs: [] as number[] },
  };
  for (let i = 0; i < warmUps + callsEach; i++) {
    for (const name of ['node', 'python'] as const) {
      const ours = await callCold(gateway, urls[name][i % functionsEach]!);
      const theirs = await spawnUntilAnswered(servers[name]);
      if (i < warmUps) continue;
      samples[name].ours.push(ours);
      samples[name].theirs.push(theirs);
    }
  }
  return samples;
}

/** Waits until the call will be cold; the connection is made already, as from a proxy. */
async function callCold(gateway: GatewayUnderTest, url: string): Promise<number> {
  await settled(gateway.url, { instances: 0 });
  await sleep(restMs);
  const client = await PlainClient.to(gateway.url);
  await client.get('/healthz');
  const answer = await client.get(new URL(url).pathname);
  client.close();
  return tookOf(answer, url);
}

function tookOf({ status, body, tookMs }: Answer, url: string): number {
  if (status !== 200 || body !== helloText) throw new Error(`${url} answers ${status} ${body}`);
  return tookMs;
}

async function callAtOnce(
  gateway: GatewayUnderTest,
  urls: readonly string[],
  { runs, tell }: SuiteOptions,
): Promise<number[][]> {
  const bursts = [];
  for (let run = 0; run < runs; run++) {
    await settled(gateway.url, { instances: 0 });
    await Promise.all(urls.map(() => call(`${gateway.url}/healthz`)));
    await sleep(restMs);
    const tookMs = await Promise.all(urls.map(async url => tookOf(await call(url), url)));
    tell(`${urls.length} at once: p50 ${Math.round(quantile(tookMs, 0.5))} ms`);
    bursts.push(tookMs);
  }
  return bursts;
}

/** Each prints its port once it listens, so that nobody polls for it. */
const servers = {
  node: [
    process.execPath,
    '-e',
    `require('node:http').createServer((_, response) => response.end('Hello world\\n'))
      .listen(0, '127.0.0.1', function () { console.log(this.address().port) })`,
  ],
  python: [
    'python3',
    '-c',
    `from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header('content-length', '12')
        self.end_headers()
        self.wfile.write(b'Hello world\\n')
    def log_message(self, *_):
        pass
server = HTTPServer(('127.0.0.1', 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()`,
  ],
};

async function spawnUntilAnswered([program, ...args]: string[]): Promise<number> {
  const startMs = performance.now();
  const child = spawn(program!, args, { env: plainEnv, stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    const [port] = await once(child.stdout, 'data', { signal: AbortSignal.timeout(10_000) });
    const url = `http://127.0.0.1:${String(port).trim()}/`;
    const client = await PlainClient.to(url);
    tookOf(await client.get('/'), url);
    client.close();
    return performance.now() - startMs;
  } finally {
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
}
