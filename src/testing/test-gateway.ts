/**
 * A whole gateway on a free port with its data in a temporary directory, as `fnway serve` would start it, and short
 * ways to talk to it. Whoever starts one stops it, except a `shared` one: that ends after the file's last test.
 * A gateway or a process of a function that is left over fails the test file.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import type { FunctionDefinition, PutResult } from '../../client/api.ts';
import { type Client, createClient } from '../../client/client.ts';
import { parseConfig } from '../config.ts';
import { createGateway, type Gateway, type Overrides } from '../main.ts';
import { RawConnection } from './raw-connection.ts';
import { waitFor } from './wait-for.ts';

export interface TestGatewayOptions {
  /** Settings by their names in src/config.ts: `{ headersMsMax: '300ms' }`. */
  settings?: Record<string, string>;
  /** What the gateway takes as its environment; empty when absent. */
  env?: Record<string, string>;
  /** Uses and keeps this data directory instead of a temporary one of its own. */
  data?: string;
  /** Stopped by itself after the last test of the file. */
  shared?: boolean;
  overrides?: Overrides;
}

export interface TestGateway {
  readonly url: string;
  readonly port: number;
  readonly data: string;
  readonly adminToken: string;
  readonly client: Client;
  readonly gateway: Gateway;
  /** Deploys and waits; fails the test unless the version is ready. `auth` is none where not given. */
  put(name: string, definition: FunctionDefinition): Promise<PutResult>;
  /** fetch over the real socket. */
  call(path: string, init?: RequestInit & { duplex?: 'half' }): Promise<Response>;
  /** The same with the admin token. */
  control(path: string, init?: RequestInit): Promise<Response>;
  connect(): Promise<RawConnection>;
  /** Sends the bytes; resolves with all that came when the gateway has closed the connection. */
  raw(bytes: string | Uint8Array): Promise<string>;
  /** Processes of functions, warm ones included. */
  processes(): number[];
  /** Idempotent. Fails when a process outlives the gateway. */
  stop(): Promise<void>;
}

/** Of one that does not listen. */
const noUrl = 'http://127.0.0.1:0';

const running = new Set<TestGateway>();
const shared = new Set<TestGateway>();
const connections = new Set<RawConnection>();

after(async () => {
  // Those of tests that failed would hold a gateway's stop back.
  for (const connection of connections) connection.destroy();
  for (const gateway of shared) await gateway.stop();
  const left = [...running].map(gateway => gateway.data);
  for (const gateway of [...running]) await gateway.stop();
  if (left.length > 0) throw new Error(`gateways that no test stopped: ${left.join(', ')}`);
});

/** A directory for a gateway that is started several times; the caller removes it. */
export function makeDataDirectory(): string {
  return mkdtempSync(join(tmpdir(), 'fnway-test-'));
}

export async function startTestGateway(options: TestGatewayOptions = {}): Promise<TestGateway> {
  const data = options.data ?? makeDataDirectory();
  const remove = () => {
    if (options.data === undefined) rmSync(data, { recursive: true, force: true });
  };
  let gateway: Gateway;
  let url: string;
  try {
    const flags = { data, port: '0', logLevel: 'silent', warm: '1', ...options.settings };
    gateway = await createGateway(parseConfig(flags, options.env ?? {}), options.overrides);
    const started = await gateway.start();
    url = started.url ?? noUrl;
  } catch (error) {
    remove();
    throw error;
  }
  const mark = readFileSync(join(data, 'gateway-id'), 'utf8').trim();
  const port = Number(new URL(url).port);
  const { adminToken } = gateway;
  const client = createClient({ url, token: adminToken });
  let stopped: Promise<void> | undefined;

  async function stop(): Promise<void> {
    await gateway.stop();
    running.delete(self);
    const outlived = await waitFor(() => processesOf(mark).length === 0, { timeoutMs: 2000 }).then(
      () => [],
      () => processesOf(mark),
    );
    remove();
    if (outlived.length > 0)
      throw new Error(`processes outlived the gateway: ${outlived.map(commandOf).join('; ')}`);
  }

  const self: TestGateway = {
    url,
    port,
    data,
    adminToken,
    client,
    gateway,
    async put(name, definition) {
      const result = await client.putFunction(
        name,
        { auth: 'none', ...definition },
        { wait: '30s' },
      );
      const { state, latestVersion } = result.function;
      if (state !== 'ready')
        throw new Error(`${name} is ${state}: ${JSON.stringify(latestVersion.failure)}`);
      return result;
    },
    call: (path, init) => fetch(`${url}${path}`, init),
    control: (path, init = {}) => {
      const headers = new Headers(init.headers);
      if (!headers.has('authorization')) headers.set('authorization', `Bearer ${adminToken}`);
      return fetch(`${url}${path}`, { ...init, headers });
    },
    async connect() {
      const connection = await RawConnection.open(port);
      connections.add(connection);
      void connection.closed.then(() => connections.delete(connection));
      return connection;
    },
    async raw(bytes) {
      const connection = await self.connect();
      connection.write(bytes);
      await waitFor(() => connection.isClosed, { what: 'the end', everyMs: 1 }).finally(() =>
        connection.destroy(),
      );
      return connection.text;
    },
    processes: () => processesOf(mark),
    stop() {
      stopped ??= stop();
      return stopped;
    },
  };
  running.add(self);
  if (options.shared) shared.add(self);
  return self;
}

/** A node function of one JavaScript file, as a definition. */
export function javascript(code: string, more: FunctionDefinition = {}): FunctionDefinition {
  return { runtime: 'node', source: { files: { 'handler.mjs': code } }, ...more };
}

/** A python function of one file. */
export function python(code: string, more: FunctionDefinition = {}): FunctionDefinition {
  return { runtime: 'python', source: { files: { 'handler.py': code } }, ...more };
}

/** Every process that carries the gateway's mark in its environment. */
function processesOf(mark: string): number[] {
  const found: number[] = [];
  for (const entry of readdirSync('/proc')) {
    const pid = Number(entry);
    if (!(pid > 0)) continue;
    try {
      const environment = readFileSync(`/proc/${entry}/environ`, 'latin1');
      if (environment.split('\0').includes(`FNWAY_GATEWAY=${mark}`)) found.push(pid);
    } catch {
      // Gone meanwhile, or another user's.
    }
  }
  return found;
}

function commandOf(pid: number): string {
  try {
    return `${pid} ${readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ')}`;
  } catch {
    return String(pid);
  }
}
