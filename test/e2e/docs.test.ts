/**
 * Goal: docs/start.md works for somebody who follows it. Method: a gateway in an empty directory as the page starts it,
 * then the page's own commands in order, in one directory. Blocks marked `test=e2e` must end with 0, `test=fails` with 1.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

const root = join(import.meta.dirname, '../..');
let directory: string;
let url: string;
let environment: NodeJS.ProcessEnv;
let stop: () => Promise<unknown>;

before(async () => {
  directory = mkdtempSync(join(tmpdir(), 'fnway-docs-'));
  url = `http://127.0.0.1:${await freePort()}`;
  const { FNWAY_URL: _, FNWAY_TOKEN: __, FNWAY_DATA: ___, ...rest } = process.env;
  environment = {
    ...rest,
    PATH: `${join(root, 'node_modules/.bin')}:${rest.PATH}`,
    FNWAY_PORT: new URL(url).port,
    FNWAY_URL: url,
  };
  const gateway = spawn('fnway', ['serve'], { cwd: directory, env: environment });
  const exited = new Promise(resolve => gateway.once('exit', resolve));
  stop = () => {
    gateway.kill('SIGTERM');
    return exited;
  };
  await new Promise<void>((resolve, reject) => {
    let text = '';
    for (const stream of [gateway.stdout, gateway.stderr])
      stream.on('data', chunk => {
        text += chunk;
        if (text.includes('listening on')) resolve();
      });
    void exited.then(() => reject(new Error(text)));
  });
});

after(async () => {
  await stop();
  rmSync(directory, { recursive: true, force: true });
});

test('the commands of docs/start.md do what it says', { timeout: 120_000 }, async () => {
  const page = readFileSync(join(root, 'docs/start.md'), 'utf8');
  const blocks = [...page.matchAll(/```sh test=(e2e|fails)\n([\s\S]*?)```/g)];
  assert.equal(blocks.length, 5);
  const outputs: string[] = [];
  for (const [, kind, block] of blocks) {
    const { status, text } = await shell(block!.replaceAll('http://127.0.0.1:8080', url));
    assert.equal(status, kind === 'e2e' ? 0 : 1, text);
    outputs.push(text);
  }
  const [applied, called, changed, broken, described] = outputs as [string, ...string[]];
  assert.match(applied, /hello +created version 1/);
  assert.match(called!, /Hello you\nHello world\n/);
  assert.match(changed!, /Good day, you\nHello you\n/);
  assert.match(broken!, /handler\.ts:\d+/);
  assert.match(described!, /Good day, you/);
  assert.match(described!, /v3 +failed[\s\S]*v2 +ready[\s\S]*v1 +ready/);
});

/** As one script, so that a block may change directories; ends at the first command that fails. */
function shell(script: string): Promise<{ status: number | null; text: string }> {
  return new Promise(resolve => {
    const options = { cwd: directory, env: environment };
    const child = spawn('sh', ['-ec', script], { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
    let text = '';
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', chunk => {
        text += chunk;
      });
    child.once('close', status => resolve({ status, text }));
  });
}

function freePort(): Promise<number> {
  return new Promise(resolve => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}
