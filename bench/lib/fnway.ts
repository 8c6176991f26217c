/**
 * A gateway under test: starts one, deploys to it, and waits until it is in the state to be
 * measured.
 */
import { join } from 'node:path';
import type { FunctionDefinition } from '../../client/api.ts';
import { type Client, createClient } from '../../client/client.ts';
import { answers, call, freePort } from './http.ts';
import { start, until } from './processes.ts';

export interface GatewayUnderTest {
  readonly pid: number;
  readonly url: string;
  readonly client: Client;
  /** From spawn to /readyz answering 200. */
  readonly readyMs: number;
  stop(): Promise<void>;
}

/** The handler of the README. */
export const hello: FunctionDefinition = {
  runtime: 'node',
  auth: 'none',
  source: {
    files: {
      'handler.ts': `export default async function (request: Request) {
  const { searchParams } = new URL(request.url);
  return new Response(\`Hello \${searchParams.get('name') ?? 'world'}\\n\`);
}
`,
    },
  },
};

export const echo: FunctionDefinition = {
  runtime: 'node',
  auth: 'none',
  source: {
    files: {
      'handler.ts': `export default async function (request: Request) {
  return new Response(await request.arrayBuffer());
}
`,
    },
  },
};

export const pythonHello: FunctionDefinition = {
  runtime: 'python',
  auth: 'none',
  source: {
    files: {
      'handler.py': `def handle(event, context):
    return f"Hello {event.query.get('name') or 'world'}\\n"
`,
    },
  },
};

export const helloText = 'Hello world\n';

const readyMsMax = 30_000;

/** `nodeFlags` are for profiles. */
export async function startGateway(options: {
  data: string;
  nodeFlags?: readonly string[];
  env?: Record<string, string>;
}): Promise<GatewayUnderTest> {
  const port = await freePort();
  const program = join(import.meta.dirname, '..', 'gateway.ts');
  const startMs = performance.now();
  const started = start(
    [
      process.execPath,
      // As the command's first line has it.
      '--max-semi-space-size=4',
      ...(options.nodeFlags ?? []),
      program,
      ...['--data', options.data],
      ...['--port', String(port)],
    ],
    { name: 'the gateway', env: { FNWAY_LOG_LEVEL: 'warn', ...options.env } },
  );
  const url = `http://127.0.0.1:${port}`;
  const ready = answers(`${url}/readyz`, readyMsMax).then(() => performance.now() - startMs);
  // Together, so that a gateway that cannot start says why.
  const [readyMs, line] = await Promise.all([ready, started.firstLine]).catch(cause => {
    throw new Error(`the gateway is not ready: ${started.errors()}`, { cause });
  });
  const { adminToken } = JSON.parse(line) as { adminToken: string };
  return {
    pid: started.pid,
    url,
    client: createClient({ url, token: adminToken }),
    readyMs,
    stop: started.stop,
  };
}

export async function deploy(
  { client }: GatewayUnderTest,
  name: string,
  definition: FunctionDefinition,
): Promise<void> {
  const { function: view } = await client.putFunction(name, definition, { wait: '2m' });
  if (view.state !== 'ready')
    throw new Error(`${name} is ${view.state}: ${view.latestVersion.failure?.message ?? ''}`);
}

/** Deploys `count` functions `{prefix}-0`, … a few at a time; resolves with their addresses. */
export async function deployMany(
  gateway: GatewayUnderTest,
  definition: FunctionDefinition,
  { prefix, count }: { prefix: string; count: number },
): Promise<string[]> {
  const names = Array.from({ length: count }, (_, i) => `${prefix}-${i}`);
  const queue = [...names];
  async function work(): Promise<void> {
    for (let name = queue.shift(); name !== undefined; name = queue.shift())
      await deploy(gateway, name, definition);
  }
  await Promise.all([work(), work(), work(), work()]);
  return names.map(name => `${gateway.url}/function/${name}`);
}

/** One metric of the gateway, summed over the series that have all of `labels`. */
export async function metric(
  url: string,
  name: string,
  labels: Record<string, string> = {},
): Promise<number> {
  const wanted = Object.entries(labels).map(([key, value]) => `${key}="${value}"`);
  let sum = 0;
  for (const line of (await call(`${url}/metrics`)).body.split('\n')) {
    if (!line.startsWith(`${name}{`) && !line.startsWith(`${name} `)) continue;
    if (!wanted.every(label => line.includes(label))) continue;
    sum += Number(line.slice(line.lastIndexOf(' ') + 1));
  }
  return sum;
}

/** Processes that runtimes keep ready: `warm` of runtimes/node and runtimes/python. */
const warmPerRuntime = 2;

/** Resolves when both warm pools are full and, if wanted, no instance is left. */
export async function settled(url: string, options: { instances?: number } = {}): Promise<void> {
  await until(
    async () => {
      for (const runtime of ['node', 'python'])
        if ((await metric(url, 'fnway_warm_processes', { runtime })) < warmPerRuntime)
          return undefined;
      if (options.instances === undefined) return true;
      const found = await metric(url, 'fnway_instances');
      return found === options.instances ? true : undefined;
    },
    { what: 'the gateway has filled its pools', msMax: 60_000, everyMs: 50 },
  );
}
