/**
 * The suite that every blob store passes. Goal: callers cannot tell one from another. Method: each
 * test gets an empty store from `create` and speaks to it through the port alone. What only files
 * can do (surviving, modes, leftovers) is in file.test.ts.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import type { BlobStore } from './blob.ts';

export function digestOf(bytes: Uint8Array | string): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

/** Registers the suite with node:test. `create` is called once a test and gives an empty store. */
export function blobContract(create: () => Promise<BlobStore> | BlobStore): void {
  const define = (name: string, body: (blobs: BlobStore) => Promise<void>) =>
    test(name, async () => body(await create()));
  definePutting(define);
  defineRemoving(define);
}

type Define = (name: string, body: (blobs: BlobStore) => Promise<void>) => void;

const text = (value: string) => new TextEncoder().encode(value);

function definePutting(define: Define): void {
  define('a blob comes back as it was, none or three mebibytes of it', async blobs => {
    for (const length of [0, 1, 3 * 1024 ** 2 + 1]) {
      const bytes = Uint8Array.from({ length }, (_, i) => (i * 31) & 255);
      await blobs.put(digestOf(bytes), bytes);
      assert.deepEqual(new Uint8Array((await blobs.get(digestOf(bytes)))!), bytes);
    }
  });

  define('a part of a larger buffer is stored as that part', async blobs => {
    const part = text('before-part-after').subarray(7, 11);
    await blobs.put(digestOf(part), part);
    assert.equal(Buffer.from((await blobs.get(digestOf('part')))!).toString(), 'part');
  });

  define('an unknown digest has no blob', async blobs => {
    assert.equal(await blobs.get(digestOf('x')), undefined);
    assert.equal(await blobs.has(digestOf('x')), false);
    assert.deepEqual(await blobs.list(), []);
  });

  define('a blob that is put twice is there once', async blobs => {
    for (let i = 0; i < 2; i++) await blobs.put(digestOf('x'), text('x'));
    assert.equal(await blobs.has(digestOf('x')), true);
    assert.deepEqual(await blobs.list(), [digestOf('x')]);
  });

  define('a blob that is put many times at once is there once and whole', async blobs => {
    const bytes = new Uint8Array(100_000).fill(7);
    const digest = digestOf(bytes);
    await Promise.all(Array.from({ length: 10 }, () => blobs.put(digest, bytes)));
    assert.deepEqual(await blobs.list(), [digest]);
    assert.deepEqual(new Uint8Array((await blobs.get(digest))!), bytes);
  });

  define('the list names every blob', async blobs => {
    const digests = Array.from({ length: 30 }, (_, n) => digestOf(`blob ${n}`));
    await Promise.all(digests.map((digest, n) => blobs.put(digest, text(`blob ${n}`))));
    assert.deepEqual((await blobs.list()).sort(), digests.sort());
  });

  define('changing bytes after the call does not change the blob', async blobs => {
    const given = text('x');
    await blobs.put(digestOf('x'), given);
    given.fill(0);
    const got = (await blobs.get(digestOf('x')))!;
    got.fill(0);
    assert.equal(Buffer.from((await blobs.get(digestOf('x')))!).toString(), 'x');
  });

  define('a digest that could name another file breaks an invariant', async blobs => {
    for (const digest of ['', 'x', '../../etc/passwd', 'sha256:../../x', 'sha256:ABCD', 'a:b']) {
      await assert.rejects(() => blobs.put(digest, text('x')), /invariant broken: a digest is/);
      await assert.rejects(() => blobs.get(digest), /invariant broken: a digest is/);
      await assert.rejects(() => blobs.has(digest), /invariant broken: a digest is/);
      await assert.rejects(() => blobs.remove(digest), /invariant broken: a digest is/);
    }
  });
}

function defineRemoving(define: Define): void {
  define('a removed blob is gone, and removing it again does no harm', async blobs => {
    await blobs.put(digestOf('x'), text('x'));
    await blobs.put(digestOf('y'), text('y'));
    for (let i = 0; i < 2; i++) await blobs.remove(digestOf('x'));
    assert.equal(await blobs.has(digestOf('x')), false);
    assert.equal(await blobs.get(digestOf('x')), undefined);
    assert.deepEqual(await blobs.list(), [digestOf('y')]);
  });

  define('a removed blob can be put again', async blobs => {
    await blobs.put(digestOf('x'), text('x'));
    await blobs.remove(digestOf('x'));
    await blobs.put(digestOf('x'), text('x'));
    assert.equal(await blobs.has(digestOf('x')), true);
  });
}
