/** Goal: nothing that is saved goes unnoticed. Method: a real watcher on real files. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { waitFor } from '../testing/wait-for.ts';
import { type Changes, watchProject } from './watch.ts';

const directory = mkdtempSync(join(tmpdir(), 'fnway-watch-'));
after(() => rmSync(directory, { recursive: true }));

test('what was saved before the watch began is looked at, and what is saved then is told', async () => {
  const source = join(directory, 'hello');
  mkdirSync(source);
  writeFileSync(join(source, 'handler.ts'), '');
  const manifest = join(directory, 'fnway.yaml');
  writeFileSync(manifest, '');
  const seen: Changes[] = [];
  const watched = { manifest, sources: new Map([[source, ['hello', 'again']]]) };
  const watcher = await watchProject(watched, {
    onChange: async changes => void seen.push(changes),
    onError: error => assert.fail(error),
  });
  try {
    await waitFor(() => seen.length === 1);
    assert.equal(seen[0]!.manifest, true);
    writeFileSync(join(source, 'handler.ts'), 'saved');
    await waitFor(() => seen.length === 2);
    assert.deepEqual(seen[1], { manifest: false, functions: new Set(['hello', 'again']) });
  } finally {
    await watcher.close();
  }
});
