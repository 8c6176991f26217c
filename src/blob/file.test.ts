/**
 * Blobs as files. Goal: they behave as the port says, and what the header of file.ts says about
 * names, modes and leftovers holds. Method: the suite of the port, then a look at real directories.
 */
import assert from 'node:assert/strict';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { blobContract, digestOf } from './contract.ts';
import { openFileBlobs } from './file.ts';

const root = mkdtempSync(path.join(tmpdir(), 'fnway-blob-'));
after(() => rmSync(root, { recursive: true }));

let directories = 0;
const newDirectory = () => path.join(root, String(directories++), 'blobs');

blobContract(() => openFileBlobs(newDirectory()));

const bytes = Buffer.from('content');
const digest = digestOf(bytes);

function pathOf(directory: string): string {
  const hex = digest.slice('sha256:'.length);
  return path.join(directory, hex.slice(0, 2), hex.slice(2, 4), `sha256-${hex}`);
}

test('a directory that is opened again has its blobs', async () => {
  const directory = newDirectory();
  await openFileBlobs(directory).put(digest, bytes);
  const again = openFileBlobs(directory);
  assert.deepEqual(await again.list(), [digest]);
  assert.deepEqual(Buffer.from((await again.get(digest))!), bytes);
});

test('a blob is a file below two levels of directories, named by its digest', async () => {
  const directory = newDirectory();
  await openFileBlobs(directory).put(digest, bytes);
  assert.ok(existsSync(pathOf(directory)));
  assert.deepEqual(readdirSync(path.join(directory, 'tmp')), []);
});

test('files and directories are for their owner only, whatever the umask', async () => {
  const directory = newDirectory();
  mkdirSync(directory, { recursive: true, mode: 0o777 });
  const umask = process.umask(0);
  try {
    await openFileBlobs(directory).put(digest, bytes);
  } finally {
    process.umask(umask);
  }
  const file = pathOf(directory);
  const modes = [directory, path.dirname(path.dirname(file)), path.dirname(file), file].map(
    made => statSync(made).mode & 0o777,
  );
  assert.deepEqual(modes, [0o700, 0o700, 0o700, 0o600]);
});

test('what a killed writer left is swept when the directory is opened', () => {
  const directory = newDirectory();
  openFileBlobs(directory);
  writeFileSync(path.join(directory, 'tmp', '0'), 'half of a bl');
  openFileBlobs(directory);
  assert.deepEqual(readdirSync(path.join(directory, 'tmp')), []);
});

test('a put that fails leaves nothing behind', async () => {
  const directory = newDirectory();
  const blobs = openFileBlobs(directory);
  mkdirSync(pathOf(directory), { recursive: true });
  await assert.rejects(() => blobs.put(digest, bytes), { code: 'DATA_DIRECTORY_UNUSABLE' });
  assert.deepEqual(readdirSync(path.join(directory, 'tmp')), []);
  assert.equal(await blobs.has(digest), false);
});

test('files that are no blobs are not listed', async () => {
  const directory = newDirectory();
  const blobs = openFileBlobs(directory);
  await blobs.put(digest, bytes);
  writeFileSync(path.join(directory, 'README'), '');
  writeFileSync(path.join(path.dirname(pathOf(directory)), '.DS_Store'), '');
  assert.deepEqual(await blobs.list(), [digest]);
});

test('a directory that cannot be made is told with its path', () => {
  const file = path.join(root, 'a-file');
  writeFileSync(file, '');
  const expected = { code: 'DATA_DIRECTORY_UNUSABLE', message: /a-file\/blobs: ENOTDIR/ };
  assert.throws(() => openFileBlobs(path.join(file, 'blobs')), expected);
});
