/** A client that adds little to what it measures: node:http, kept connections, whole bodies. */
import { Agent, type IncomingMessage, request } from 'node:http';
import { createServer } from 'node:net';
import { until } from './processes.ts';

const agent = new Agent({ keepAlive: true, maxSockets: 256 });

export interface Answer {
  status: number;
  body: string;
  /** From the call to the last byte. */
  tookMs: number;
}

export interface CallOptions {
  headers?: Record<string, string>;
  body?: string;
}

const callMsMax = 30_000;

export function call(url: string, options: CallOptions = {}): Promise<Answer> {
  const { headers, body } = options;
  const startMs = performance.now();
  return new Promise((resolve, reject) => {
    const method = body === undefined ? 'GET' : 'POST';
    const sent = request(url, { agent, method, headers, timeout: callMsMax }, response =>
      readAll(response, text =>
        resolve({
          status: response.statusCode!,
          body: text,
          tookMs: performance.now() - startMs,
        }),
      ),
    );
    sent.once('error', reject);
    sent.once('timeout', () => sent.destroy(new Error(`${url} does not answer`)));
    sent.end(body);
  });
}

function readAll(response: IncomingMessage, done: (text: string) => void): void {
  let text = '';
  response.setEncoding('utf8');
  response.on('data', chunk => {
    text += chunk;
  });
  response.once('end', () => done(text));
}

/** Before anything is measured: a server that answers something else would win every race. */
export async function expectAnswer(
  url: string,
  expected: string,
  options: CallOptions = {},
): Promise<void> {
  const { status, body } = await call(url, options);
  if (status !== 200 || body !== expected)
    throw new Error(`${url} answers ${status} ${JSON.stringify(body.slice(0, 300))}`);
}

/** Resolves when `url` answers 200. */
export function answers(url: string, msMax: number): Promise<true> {
  return until(
    async () => {
      const answer = await call(url).catch(() => undefined);
      return answer?.status === 200 ? true : undefined;
    },
    { what: `${url} answers`, msMax, everyMs: 5 },
  );
}

export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer().once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve((address as { port: number }).port));
    });
  });
}

export function closeConnections(): void {
  agent.destroy();
}
