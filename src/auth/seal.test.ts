/**
 * Sealing. Goal: only the key opens, any change is noticed, and errors say which of the two it is.
 * Method: keys and bytes made here, each byte changed in turn; real key files in a directory of the
 * test.
 */
import assert from 'node:assert/strict';
import {
  chmodSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { createSealer, openSealer } from './seal.ts';

const root = mkdtempSync(path.join(tmpdir(), 'fnway-seal-'));
after(() => rmSync(root, { recursive: true }));

let files = 0;
const newPath = () => path.join(root, `key-${files++}`);
const sealer = createSealer(new Uint8Array(32).fill(1));
const unusable = (message: RegExp) => ({ code: 'DATA_DIRECTORY_UNUSABLE', message });

test('what was sealed opens as it was', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), plain => {
      assert.deepEqual(new Uint8Array(sealer.open(sealer.seal(plain))), plain);
    }),
  );
});

test('text opens as text, whatever is in it', () => {
  for (const text of ['', 'x', 'ü 漢 🙂 \0 \n', 'long '.repeat(100_000)]) {
    assert.equal(sealer.openText(sealer.seal(text)), text);
  }
});

test('a part of a larger buffer is sealed and opened as that part', () => {
  const sealed = sealer.seal(Buffer.from('before-part-after').subarray(7, 11));
  const padded = Buffer.concat([Buffer.from('xx'), sealed, Buffer.from('yy')]);
  assert.equal(sealer.openText(padded.subarray(2, -2)), 'part');
});

test('sealed bytes are version, key id, nonce, ciphertext and tag', () => {
  const sealed = sealer.seal('four');
  assert.equal(sealed.length, 1 + 4 + 12 + 4 + 16);
  assert.equal(sealed[0], 1);
  const keyId = Buffer.from(sealed.subarray(1, 5)).toString('hex');
  // The first bytes of: head -c 32 /dev/zero | tr '\0' '\1' | sha256sum
  assert.equal(keyId, '72cd6e84');
});

test('sealed bytes of an earlier fnway still open', () => {
  const sealed = Buffer.from(
    'AXLNboRvsIMQuOJ0hJKfaDRYd6l3215oHr/s0XyyVA3zx6W2woh442h+gc4GzFRQlLj+SQ==',
    'base64',
  );
  assert.equal(sealer.openText(sealed), 'kept since format 1');
});

test('equal plaintexts give different bytes, and the plaintext is not among them', () => {
  const many = Array.from({ length: 200 }, () => Buffer.from(sealer.seal('a secret of ours')));
  assert.equal(new Set(many.map(sealed => sealed.toString('hex'))).size, 200);
  assert.ok(many.every(sealed => !sealed.includes('secret')));
});

test('a change of any byte is noticed', () => {
  const sealed = sealer.seal('a secret');
  for (let i = 0; i < sealed.length; i++) {
    const changed = Uint8Array.from(sealed);
    changed[i]! ^= 1;
    const isKeyId = i >= 1 && i < 5;
    const message = isKeyId ? /sealed by another key/ : /Sealed data is damaged/;
    assert.throws(() => sealer.open(changed), unusable(message), `byte ${i}`);
  }
});

test('bytes that were cut off or added are noticed', () => {
  const sealed = sealer.seal('a secret');
  for (let length = 0; length < sealed.length; length++) {
    const cut = sealed.subarray(0, length);
    assert.throws(() => sealer.open(cut), unusable(/Sealed data is damaged/), `${length}`);
  }
  const longer = Buffer.concat([sealed, Buffer.from([0])]);
  assert.throws(() => sealer.open(longer), unusable(/Sealed data is damaged/));
});

test('another key opens nothing and says so', () => {
  const other = createSealer(new Uint8Array(32).fill(2));
  assert.throws(() => other.open(sealer.seal('x')), {
    ...unusable(/^The data was sealed by another key: 72cd6e84, not 75877bb4\.$/),
    remedy: 'Put the key file back that belongs to this data directory.',
  });
});

test('a key of another length breaks an invariant', () => {
  for (const length of [0, 16, 31, 33]) {
    assert.throws(() => createSealer(new Uint8Array(length)), /a sealing key has 32 bytes/);
  }
});

test('the first start makes a key file for the owner only', () => {
  const file = newPath();
  const umask = process.umask(0);
  try {
    openSealer(file);
  } finally {
    process.umask(umask);
  }
  assert.equal(statSync(file).mode & 0o777, 0o600);
  assert.equal(Buffer.from(readFileSync(file, 'utf8'), 'base64').length, 32);
  const names = readdirSync(root).filter(name => name.startsWith(path.basename(file)));
  assert.deepEqual(names, [path.basename(file)]);
});

test('a later start uses the same key', () => {
  const file = newPath();
  const sealed = openSealer(file).seal('kept');
  assert.equal(openSealer(file).openText(sealed), 'kept');
});

test('two data directories have different keys', () => {
  const sealed = openSealer(newPath()).seal('x');
  assert.throws(() => openSealer(newPath()).open(sealed), unusable(/another key/));
});

test('a key file that others can read, write or run is refused', () => {
  for (const mode of [0o640, 0o604, 0o620, 0o602, 0o610, 0o601]) {
    const file = newPath();
    openSealer(file);
    chmodSync(file, mode);
    const message = new RegExp(`others can use this secret \\(mode ${mode.toString(8)}\\)`);
    assert.throws(() => openSealer(file), unusable(message));
    chmodSync(file, 0o400);
    openSealer(file);
  }
});

test('a key file that does not hold a key is refused and left as it is', () => {
  const short = Buffer.alloc(31, 1).toString('base64');
  const long = Buffer.alloc(33, 1).toString('base64');
  const garbled = `*${Buffer.alloc(32, 1).toString('base64')}`;
  for (const content of ['', 'x', short, long, garbled]) {
    const file = newPath();
    writeFileSync(file, content, { mode: 0o600 });
    assert.throws(() => openSealer(file), unusable(/does not hold a key \(32 bytes in base64\)/));
    assert.equal(readFileSync(file, 'utf8'), content);
  }
});

test('a key file in a directory that is not there is told with its path', () => {
  const file = path.join(root, 'missing', 'key');
  assert.throws(() => openSealer(file), unusable(/missing\/key: ENOENT/));
});
