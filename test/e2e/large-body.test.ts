/**
 * Goal: a body of any size passes in flat memory. Method: 1 GiB to a function that sends it back, through a real gateway
 * process, while its resident memory is sampled.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

const root = join(import.meta.dirname, '../..');
const gibibyte = 1024 ** 3;

function residentBytes(pid: number): number {
  return Number(readFileSync(`/proc/${pid}/statm`, 'utf8').split(' ')[1]) * 4096;
}

test('1 GiB passes both ways in flat memory', { timeout: 180_000 }, async () => {
  const directory = mkdtempSync(join(tmpdir(), 'fnway-large-'));
  mkdirSync(join(directory, 'echo'));
  writeFileSync(join(directory, 'echo/handler.js'), 'export default r => new Response(r.body);\n');
  writeFileSync(
    join(directory, 'fnway.yaml'),
    'functions:\n  echo: { runtime: node, source: ./echo, auth: none, timeout: 3m }\n',
  );
  const gateway = spawn(
    process.execPath,
    [
      join(root, 'src/cli/cli.ts'),
      'serve',
      '--port',
      '0',
      '--data',
      join(directory, 'data'),
      '--apply',
      directory,
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  try {
    let text = '';
    while (!/http:\/\/[\d.:]+/.test(text)) text += (await once(gateway.stdout, 'data'))[0];
    const url = /http:\/\/[\d.:]+/.exec(text)![0];
    const before = residentBytes(gateway.pid!);
    let most = before;
    const upload = request(`${url}/function/echo`, { method: 'POST' });
    const answered = once(upload, 'response');
    const sending = (async () => {
      const chunk = Buffer.alloc(1024 ** 2, 7);
      for (let sent = 0; sent < gibibyte; sent += chunk.length) {
        if (!upload.write(chunk)) await once(upload, 'drain');
        most = Math.max(most, residentBytes(gateway.pid!));
      }
      upload.end();
    })();
    const [response] = await answered;
    assert.equal(response.statusCode, 200);
    let received = 0;
    for await (const chunk of response) received += chunk.length;
    await sending;
    assert.equal(received, gibibyte);
    assert.ok(
      most - before < 200 * 1024 ** 2,
      `grew by ${Math.round((most - before) / 1024 ** 2)} MiB`,
    );
  } finally {
    const exited = once(gateway, 'exit');
    gateway.kill('SIGTERM');
    await exited;
    rmSync(directory, { recursive: true, force: true });
  }
});
