/** The real `fnway serve` in a process of its own, to be killed and started again on the same directory. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Client, createClient } from '../../client/client.ts';

const cli = join(import.meta.dirname, '../../src/cli/cli.ts');

export interface Served {
  /** Functions can write to it: a line each time they are called. */
  readonly log: string;
  lines(): string[];
  /** Resolves with the client of a gateway that is ready. */
  start(): Promise<Client>;
  kill(): Promise<void>;
  /** In order: its exit code. */
  stop(): Promise<number | null>;
}

/** Ended, and its directory removed, after the file's last test. */
export function serveHere(): Served {
  const root = mkdtempSync(join(tmpdir(), 'fnway-durability-'));
  // Functions of a gateway that runs as root have users of their own.
  chmodSync(root, 0o755);
  const data = join(root, 'data');
  const written = join(root, 'written');
  mkdirSync(written);
  chmodSync(written, 0o777);
  const log = join(written, 'log');
  writeFileSync(log, '');
  chmodSync(log, 0o666);
  let child: ChildProcess | undefined;
  after(() => {
    child?.kill('SIGKILL');
    rmSync(root, { recursive: true, force: true });
  });
  return {
    log,
    lines: () => readFileSync(log, 'utf8').trimEnd().split('\n'),
    async start() {
      const args = [cli, 'serve', '--data', data, '--port', '0', '--log-level', 'warn'];
      const started = spawn(process.execPath, args, {
        stdio: ['ignore', 'pipe', 'pipe'],
        env: { PATH: process.env.PATH, FNWAY_WARM: '1' },
      });
      child = started;
      let text = '';
      for (const stream of [started.stdout, started.stderr])
        stream!.on('data', chunk => {
          text += chunk;
        });
      for (let waitedMs = 0; waitedMs < 20_000 && started.exitCode === null; waitedMs += 10) {
        const url = /http:\/\/127\.0\.0\.1:\d+/.exec(text)?.[0];
        const token = () => readFileSync(join(data, 'admin.token'), 'utf8').trim();
        if (url !== undefined) return createClient({ url, token: token() });
        await sleep(10);
      }
      throw new Error(`the gateway did not start:\n${text}`);
    },
    async kill() {
      child!.kill('SIGKILL');
      await once(child!, 'exit');
    },
    async stop() {
      child!.kill('SIGTERM');
      await once(child!, 'exit');
      return child!.exitCode;
    },
  };
}
