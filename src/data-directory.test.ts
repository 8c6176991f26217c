/** Goal: one gateway per data directory, closed to others, with code where functions' users can go. Method: real directories. */
import assert from 'node:assert/strict';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { openDataDirectory } from './data-directory.ts';

const root = mkdtempSync(join(tmpdir(), 'fnway-data-'));
after(() => rmSync(root, { recursive: true, force: true }));
let count = 0;
const open = (path: string, isRoot: boolean) =>
  openDataDirectory({ path, isRoot, mark: () => `test-${process.pid}-${count++}` });

test('a second gateway is refused until the first has left', () => {
  const path = join(root, 'locked');
  const first = open(path, false);
  assert.throws(() => open(path, false), { code: 'DATA_DIRECTORY_LOCKED' });
  first.unlock();
  open(path, false).unlock();
});

test('it is closed to others, and passable only for functions of a root gateway', () => {
  chmodSync(root, 0o711);
  const path = join(root, 'mine');
  open(path, false).unlock();
  assert.equal(statSync(path).mode & 0o777, 0o700);
  const own = open(path, true);
  assert.equal(statSync(path).mode & 0o777, 0o711);
  assert.equal(own.codePath, join(path, 'code'));
  own.unlock();
});

test('a directory of something else is refused, and stays as it is', () => {
  const path = join(root, 'foreign');
  mkdirSync(path, { mode: 0o755 });
  writeFileSync(join(path, 'thesis.tex'), '');
  for (const isRoot of [false, true])
    assert.throws(() => open(path, isRoot), {
      code: 'DATA_DIRECTORY_UNUSABLE',
      message: /thesis\.tex/,
    });
  assert.deepEqual([statSync(path).mode & 0o777, readdirSync(path)], [0o755, ['thesis.tex']]);
});

test('a directory that was restored from a back-up is taken', () => {
  const path = join(root, 'restored');
  mkdirSync(path);
  for (const name of ['key', 'fnway.db', 'admin.token']) writeFileSync(join(path, name), '');
  open(path, false).unlock();
});

test('a path that cannot be made is refused at once', () => {
  assert.throws(() => open('/proc/x/y', false), { code: 'DATA_DIRECTORY_UNUSABLE' });
});

test('a path that is a file is refused with what to do', () => {
  writeFileSync(join(root, 'file'), '');
  assert.throws(() => open(join(root, 'file'), false), { code: 'DATA_DIRECTORY_UNUSABLE' });
});

test('below a closed home the code of a root gateway lies elsewhere, and goes when its data has gone', {
  skip: process.getuid?.() !== 0 && 'only root has functions of other users',
}, () => {
  const home = join(root, 'home');
  mkdirSync(home, { mode: 0o700 });
  const data = open(join(home, 'data'), true);
  assert.ok(!data.codePath.startsWith(home));
  data.unlock();
  rmSync(home, { recursive: true });
  mkdirSync(home, { mode: 0o700 });
  const next = open(join(home, 'other'), true);
  assert.ok(!existsSync(data.codePath));
  next.unlock();
  rmSync(next.codePath, { recursive: true });
});
