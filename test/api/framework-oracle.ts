/**
 * The npm functions framework as an oracle: its own command line, on a loopback port, with a source in a directory of
 * its own. What it answers is what a function of that style must answer here.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after } from 'node:test';
import type { FunctionDefinition } from '../../client/api.ts';
import type { TestGateway } from '../../src/testing/test-gateway.ts';

const installed = join(import.meta.dirname, '../../node_modules/@google-cloud/functions-framework');

/** Lets the framework listen on any free port of the loopback address, and say which. */
const preload = `
const { Server } = require('node:net');
const { listen } = Server.prototype;
Server.prototype.listen = function (port, ready) {
  return listen.call(this, 0, '127.0.0.1', () => {
    process.stdout.write('\\nport ' + this.address().port + '\\n');
    ready?.();
  });
};`;

const running = new Set<ChildProcess>();
const directories = new Set<string>();
after(() => {
  for (const child of running) child.kill('SIGKILL');
  for (const directory of directories) rmSync(directory, { recursive: true, force: true });
});

export interface Oracle {
  readonly url: string;
  readonly exited: Promise<number | null>;
}

/** Files as the framework finds them, with its package beside them. */
function writeSource(files: Record<string, string>): string {
  const directory = mkdtempSync(join(tmpdir(), 'fnway-oracle-'));
  directories.add(directory);
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(directory, name)), { recursive: true });
    writeFileSync(join(directory, name), text);
  }
  mkdirSync(join(directory, 'node_modules/@google-cloud'), { recursive: true });
  symlinkSync(installed, join(directory, 'node_modules/@google-cloud/functions-framework'));
  writeFileSync(join(directory, 'preload.oracle.cjs'), preload);
  return directory;
}

/** Resolves when it listens; rejects with what it printed when it ends before that. */
function startOracle(source: string, env: Record<string, string>): Promise<Oracle> {
  const child = spawn(
    process.execPath,
    [
      '--require',
      join(source, 'preload.oracle.cjs'),
      join(installed, 'build/src/main.js'),
      `--source=${source}`,
    ],
    { env: { PATH: process.env.PATH, ...env }, cwd: source, stdio: ['ignore', 'pipe', 'pipe'] },
  );
  running.add(child);
  const exited = new Promise<number | null>(resolve => child.once('exit', resolve));
  void exited.then(() => running.delete(child));
  return new Promise((resolve, reject) => {
    let text = '';
    const read = (chunk: Buffer) => {
      text += chunk;
      const port = /^port (\d+)$/m.exec(text)?.[1];
      if (port !== undefined) resolve({ url: `http://127.0.0.1:${port}`, exited });
    };
    child.stdout.on('data', read);
    child.stderr.on('data', read);
    child.once('close', () => reject(new Error(text)));
  });
}

export interface Answer {
  status: number;
  headers: Record<string, string>;
  body: string;
}

/** What connections, clocks and the gateway itself add to an answer. */
const notOfTheFunction = new Set([
  'connection',
  'content-length',
  'content-security-policy',
  'date',
  'keep-alive',
  'transfer-encoding',
  'x-call-id',
  'x-content-type-options',
]);

export async function answerOf(url: string, init?: RequestInit): Promise<Answer> {
  const response = await fetch(url, { redirect: 'manual', ...init });
  const bytes = Buffer.from(await response.arrayBuffer());
  const headers = [...response.headers].filter(([name]) => !notOfTheFunction.has(name));
  return {
    status: response.status,
    headers: Object.fromEntries(headers),
    // Of an error page only its first line: the rest names files.
    body: bytes.toString('latin1').replace(/<br>[\s\S]*/, ''),
  };
}

export type Sent = [path: string, init?: RequestInit];

/** A source in both, and what compares their answers. */
export function compare(gateway: TestGateway, files: Record<string, string>) {
  const source = writeSource(files);
  return async (name: string, target: string, more: FunctionDefinition = {}) => {
    const env: Record<string, string> = {
      FUNCTION_TARGET: target,
      ...(more.env as Record<string, string>),
    };
    if (more.signature !== undefined) env.FUNCTION_SIGNATURE_TYPE = more.signature;
    const entry = `index.js:${target}`;
    const [oracle] = await Promise.all([
      startOracle(source, env),
      gateway.put(name, { runtime: 'node', source: { files }, entry, ...more }),
    ]);
    const both = async ([path, init]: Sent) => {
      const [theirs, ours] = await Promise.all([
        answerOf(`${oracle.url}${path}`, init),
        answerOf(`${gateway.url}/function/${name}${path}`, init),
      ]);
      return { theirs, ours };
    };
    const same = async (sent: Sent, status?: number) => {
      const { theirs, ours } = await both(sent);
      const what = `${target} ${sent[1]?.method ?? 'GET'} ${sent[0]} ${String(sent[1]?.body)}`;
      assert.deepEqual(ours, theirs, what);
      if (status !== undefined) assert.equal(ours.status, status, what);
      return ours;
    };
    return { oracle, both, same };
  };
}

/** A request with a JSON body; text is sent as it is. */
export function post(body: unknown, headers: Record<string, string> = {}): RequestInit {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  return {
    method: 'POST',
    body: text,
    headers: { 'content-type': 'application/json', ...headers },
  };
}
