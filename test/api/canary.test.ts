/**
 * Goal: what is secret lies nowhere in plain text. Method: canaries in an environment, in a build's log, in the
 * error of code that does not load and in a function's token; then every file of the data directory is searched, but the code itself and its source.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { javascript, makeDataDirectory, startTestGateway } from '../../src/testing/index.ts';

/** Files of the data directory that hold one of the texts: `fnway.db: canary-env`. */
function findingsIn(data: string, texts: readonly string[]): string[] {
  const files = readdirSync(data, { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile())
    .map(entry => join(entry.parentPath, entry.name))
    .filter(file => !/^(?:code|blobs)\//.test(file.slice(data.length + 1)));
  assert.ok(files.some(file => file.endsWith('fnway.db')));
  return files.flatMap(file => {
    const bytes = readFileSync(file);
    return texts.filter(text => bytes.includes(text)).map(text => `${file}: ${text}`);
  });
}

test('tokens, environments, build logs and failures are sealed at rest', async () => {
  const data = makeDataDirectory();
  const gateway = await startTestGateway({ data });
  try {
    const env = { SECRET: 'canary-env' };
    await gateway.put('holds', javascript('export default () => new Response("hi");', { env }));
    await gateway.call('/function/holds', { headers: { 'x-secret': 'canary-header' } });
    // TypeScript that does not parse: the compiler shows the line in the build's log.
    await gateway.client.putFunction(
      'says',
      { runtime: 'node', source: { files: { 'handler.ts': 'const canaryLog = ;' } } },
      { wait: '30s' },
    );
    const version = await gateway.client.getVersion('says', 1);
    assert.match(version.buildLog ?? '', /canaryLog/, 'otherwise this shows nothing');
    await gateway.client.putFunction(
      'throws',
      { runtime: 'node', source: { files: { 'handler.js': 'throw new Error("canary-throw");' } } },
      { wait: '30s' },
    );
    const { failure } = await gateway.client.getVersion('throws', 1);
    assert.match(failure?.message ?? '', /canary-throw/, 'otherwise this shows nothing');
    const { token } = await gateway.client.getToken('holds');
    const { token: rotated } = await gateway.client.rotateToken('holds');
    await gateway.stop();
    const texts = ['canary-env', 'canary-header', 'canaryLog', 'canary-throw', token, rotated];
    assert.deepEqual(findingsIn(data, texts), []);
  } finally {
    await gateway.stop();
    rmSync(data, { recursive: true });
  }
});
