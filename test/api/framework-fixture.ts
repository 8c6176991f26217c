/**
 * For the tests of functions written for the Functions Framework in Python: its packages, fetched from the registry once
 * and installed from a directory then; and the library's own server, to be asked the same.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before } from 'node:test';
import type { FunctionDefinition } from '../../client/api.ts';
import { findTools, isReachableByAll } from '../../src/build/find-tools.ts';
import { frameworkRequirement } from '../../src/build/python-framework.ts';
import { type TestGateway, waitFor } from '../../src/testing/index.ts';

/** To be called once a test file. */
export function createFixture(gateway: TestGateway) {
  // The gateway's own choice, so that wheels fit.
  const { python } = findTools({
    path: process.env.PATH!,
    reachable: process.getuid?.() === 0 ? isReachableByAll : () => true,
    node: process.execPath,
  });
  const scratch = mkdtempSync(join(tmpdir(), 'fnway-framework-'));
  const wheels = join(scratch, 'wheels');
  const packages = join(scratch, 'packages');
  const servers: ChildProcess[] = [];

  function pip(...args: string[]): void {
    execFileSync(python!, ['-m', 'pip', ...args, '--quiet'], { stdio: ['ignore', 2, 'pipe'] });
  }

  before(() => {
    // The functions' users read it.
    chmodSync(scratch, 0o755);
    pip('download', '--only-binary', ':all:', '--dest', wheels, frameworkRequirement);
  });
  after(() => {
    for (const server of servers) server.kill();
    rmSync(scratch, { recursive: true, force: true });
  });

  const buildEnv = { PIP_NO_INDEX: '1', PIP_FIND_LINKS: wheels };

  return {
    buildEnv,

    deploy(name: string, definition: FunctionDefinition) {
      return gateway.put(name, { runtime: 'python', buildEnv, ...definition });
    },

    /** Starts the library's server for a handler; gives its address. */
    async startOracle(
      files: Record<string, string>,
      handler: { target: string; signature?: string },
    ): Promise<string> {
      if (servers.length === 0) {
        const offline = ['--no-index', '--find-links', wheels];
        pip('install', ...offline, '--target', packages, frameworkRequirement);
      }
      const { target, signature } = handler;
      const directory = join(scratch, `source-${target}`);
      for (const [name, text] of Object.entries(files)) {
        mkdirSync(join(directory, name, '..'), { recursive: true });
        writeFileSync(join(directory, name), text);
      }
      const port = await freePort();
      const options = ['--host', '127.0.0.1', '--port', String(port), '--target', target];
      if (signature !== undefined) options.push('--signature-type', signature);
      const server = spawn(python!, ['-m', 'functions_framework', ...options], {
        cwd: directory,
        env: { PATH: process.env.PATH, PYTHONPATH: packages, PYTHONDONTWRITEBYTECODE: '1' },
        stdio: 'ignore',
      });
      servers.push(server);
      const url = `http://127.0.0.1:${port}`;
      const answers = () => fetch(url).then(Boolean, () => false);
      await waitFor(answers, { what: `the server of ${target}`, timeoutMs: 30_000 });
      return url;
    },
  };
}

function freePort(): Promise<number> {
  return new Promise(resolve => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}
