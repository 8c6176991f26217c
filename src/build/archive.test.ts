/**
 * Goal: an archive gives back the tree it was packed from, and none can reach beyond it or cost
 * more than the limits. Method: archives made entry by entry with tar-stream, cut and damaged ones,
 * and properties.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { gunzipSync, gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { type Header, pack } from 'tar-stream';
import { isGatewayError } from '../errors.ts';
import { packTree, unpackTree } from './archive.ts';
import { pathProblem, sourceLimits, treeFromFiles } from './source.ts';
import { anyTree, refuses, textOf } from './source-fixture.ts';

describe('an archive', () => {
  it('gives back the tree it was packed from', async () => {
    await fc.assert(
      fc.asyncProperty(anyTree, async tree => {
        const unpacked = await unpackTree(await packTree(tree));
        assert.deepEqual(
          [...unpacked].map(([name, { mode, bytes }]) => [name, mode, Buffer.from(bytes)]),
          [...tree]
            .sort(([a], [b]) => (a < b ? -1 : 1))
            .map(([name, { mode, bytes }]) => [name, mode, Buffer.from(bytes)]),
        );
      }),
      { numRuns: 50 },
    );
  });

  it('is the same bytes for the same tree', async () => {
    const one = await packTree(treeFromFiles({ 'a.ts': '1', 'b/c.ts': '2' }));
    const other = await packTree(treeFromFiles({ 'b/c.ts': '2', 'a.ts': '1' }));
    assert.deepEqual(one, other);
  });

  it('keeps names longer than the 100 bytes of a plain header', async () => {
    const name = `${'d'.repeat(200)}/${'é'.repeat(100)}/${'f'.repeat(255)}`;
    const unpacked = await unpackTree(await packTree(treeFromFiles({ [name]: 'x' })));
    assert.deepEqual(textOf(unpacked), { [name]: 'x' });
  });

  it('made with `tar -C directory .` loses its dots and directories', async () => {
    const archive = await archiveOf(
      { name: './', type: 'directory' },
      { name: './src/', type: 'directory' },
      { name: './src/handler.py', text: 'x', mode: 0o755 },
    );
    const tree = await unpackTree(archive);
    assert.deepEqual(textOf(tree), { 'src/handler.py': 'x' });
    assert.equal(tree.get('src/handler.py')?.mode, 0o755);
  });

  const escapes: [string, Partial<Header> & { name: string }, RegExp][] = [
    ['an absolute path', { name: '/etc/passwd' }, /"\/etc\/passwd" is absolute/],
    ['a path above the top', { name: '../x' }, /leaves the upload/],
    ['a path above the top in the middle', { name: 'a/../../x' }, /leaves the upload/],
    ['a path above the top behind a dot', { name: './../x' }, /leaves the upload/],
    ['an absolute path behind a dot', { name: './/etc/x' }, /is absolute/],
    ['a backslash', { name: 'a\\..\\..\\x' }, /backslash/],
    ['a drive', { name: 'C:x' }, /is absolute/],
    ['an empty segment', { name: 'a//b' }, /empty segment/],
    ['a dot segment', { name: 'a/./b' }, /only a dot/],
    ['a control character', { name: 'a\nb' }, /control character/],
    ['no name', { name: '', type: 'file' }, /is empty/],
    ['a directory above the top', { name: '../x/', type: 'directory' }, /leaves the upload/],
    ['a symbolic link', { name: 'a', type: 'symlink', linkname: '/etc' }, /is a symlink/],
    ['a hard link', { name: 'a', type: 'link', linkname: '/etc/passwd' }, /is a link/],
    ['a device', { name: 'a', type: 'character-device' }, /is a character-device/],
    ['a fifo', { name: 'a', type: 'fifo' }, /is a fifo/],
    ['a long segment', { name: 'a'.repeat(256) }, /segment longer than 255 bytes/],
    ['a long path', { name: `${'a/'.repeat(512)}b` }, /longer than 1024 bytes/],
    ['a deep path', { name: `${'a/'.repeat(64)}b` }, /deeper than 64 directories/],
  ];
  for (const [what, header, said] of escapes) {
    it(`with ${what} is refused`, async () => {
      const archive = await archiveOf({ name: 'before.ts', text: 'x' }, header);
      await refuses(unpackTree(archive), 'SOURCE_INVALID', said);
    });
  }

  it('with a NUL in an extended name is refused', async () => {
    const archive = await archiveOf({ name: 'a', pax: { path: 'a\0b' } });
    await refuses(unpackTree(archive), 'SOURCE_INVALID', /control character/);
  });

  it('with a size that cannot be read is refused', async () => {
    for (const type of ['file', 'directory'] as const) {
      const tar = gunzipSync(await archiveOf({ name: 'a', type }));
      tar[124] = 0xb3;
      fixChecksum(tar.subarray(0, 512));
      await refuses(
        unpackTree(gzipSync(tar)),
        'SOURCE_INVALID',
        /"a" has a size that is no number/,
      );
    }
  });

  it('with one path twice is refused', async () => {
    const archive = await archiveOf({ name: 'a', text: '1' }, { name: './a', text: '2' });
    await refuses(unpackTree(archive), 'SOURCE_INVALID', /"a" is there twice/);
  });

  it('with a path that is a file and a directory is refused', async () => {
    const said = /"a" is both a file and a directory/;
    for (const other of ['a/b', 'a/b/c']) {
      await refuses(
        unpackTree(await archiveOf({ name: other }, { name: 'a' })),
        'SOURCE_INVALID',
        said,
      );
      await refuses(
        unpackTree(await archiveOf({ name: 'a' }, { name: other })),
        'SOURCE_INVALID',
        said,
      );
    }
    const folder = { name: 'a/', type: 'directory' } as const;
    await refuses(unpackTree(await archiveOf({ name: 'a' }, folder)), 'SOURCE_INVALID', said);
  });

  it('that is a bomb stops at the limit without its content in memory', async () => {
    // 1 GiB of zeros is 1 MiB gzipped: a member of 64 MiB, sixteen times.
    const zeros = gzipSync(Buffer.alloc(64 * 1024 ** 2), { level: 1 });
    const [header] = [gunzipSync(await archiveOf({ name: 'a' })).subarray(0, 512)];
    header!.write('10000000000 ', 124);
    fixChecksum(header!);
    const bomb = Buffer.concat([gzipSync(header!), ...Array.from({ length: 16 }, () => zeros)]);
    const limits = { unpackedBytesMax: 16 * 1024 ** 2 };
    const before = process.memoryUsage().rss;
    await refuses(
      unpackTree(bomb, limits),
      'SOURCE_TOO_LARGE',
      /16777216 bytes .*unpackedBytesMax/,
    );
    assert.ok(process.memoryUsage().rss - before < 128 * 1024 ** 2);
  });

  it('of headers without end is a bomb too', async () => {
    const empty = gunzipSync(await archiveOf({ name: 'a', type: 'directory' })).subarray(0, 512);
    const many = gzipSync(Buffer.concat(Array.from({ length: 1000 }, () => empty)));
    const limits = { unpackedBytesMax: 100_000 };
    await refuses(unpackTree(many, limits), 'SOURCE_TOO_LARGE', /unpackedBytesMax/);
    const said = /more than 10 files \(filesMax\)/;
    await refuses(unpackTree(many, { filesMax: 10 }), 'SOURCE_TOO_LARGE', said);
  });

  it('with more files than the limit is refused', async () => {
    const archive = await packTree(treeFromFiles({ a: '', b: '', c: '' }));
    const said = /more than 2 files \(filesMax\)/;
    await refuses(unpackTree(archive, { filesMax: 2 }), 'SOURCE_TOO_LARGE', said);
    assert.equal((await unpackTree(archive, { filesMax: 3 })).size, 3);
  });

  it('larger than the limit is refused unread', async () => {
    const archive = new Uint8Array(sourceLimits.archiveBytesMax + 1);
    await refuses(unpackTree(archive), 'SOURCE_TOO_LARGE', /67108864 bytes \(archiveBytesMax\)/);
  });

  it('that is not gzipped is refused', async () => {
    const tar = gunzipSync(await archiveOf({ name: 'a' }));
    await refuses(unpackTree(tar), 'SOURCE_INVALID', /not gzipped/);
    await refuses(unpackTree(new Uint8Array()), 'SOURCE_INVALID', /not gzipped/);
  });

  it('that is cut off anywhere is refused', async () => {
    const whole = await packTree(treeFromFiles({ 'a/b': 'hello'.repeat(100), c: 'x'.repeat(600) }));
    for (let length = 2; length < whole.length; length += 1) {
      await refuses(unpackTree(whole.subarray(0, length)), 'SOURCE_INVALID', /damaged or cut off/);
    }
    const tar = gunzipSync(whole);
    for (const length of [1, 100, 511, 513, 800, 1023, 1600, 2047]) {
      const cut = gzipSync(tar.subarray(0, length));
      await refuses(unpackTree(cut), 'SOURCE_INVALID', /damaged or cut off/);
    }
  });

  it('of any bytes gives a tree or a GatewayError', async () => {
    const valid = gunzipSync(
      await packTree(treeFromFiles({ 'a/b': 'hello', [`${'l'.repeat(150)}`]: '' })),
    );
    const damaged = fc
      .array(fc.tuple(fc.nat(valid.length - 1), fc.nat(255)), { maxLength: 8 })
      .map(changes => {
        const copy = Buffer.from(valid);
        for (const [at, value] of changes) copy[at] = value;
        for (let at = 0; at + 512 <= copy.length; at += 512)
          fixChecksum(copy.subarray(at, at + 512));
        return gzipSync(copy, { level: 1 });
      });
    const bytes = fc.uint8Array({ maxLength: 3000 });
    const anything = fc.oneof(
      bytes,
      bytes.map(raw => gzipSync(raw)),
      damaged,
    );
    await fc.assert(
      fc.asyncProperty(anything, async archive => {
        const result = await unpackTree(archive).catch(error => error);
        if (result instanceof Map) {
          for (const name of result.keys()) assert.equal(pathProblem(name), undefined);
        } else {
          assert.ok(isGatewayError(result), String(result?.stack));
          assert.match(result.code, /^SOURCE_/);
        }
      }),
      { numRuns: 300 },
    );
  });
});

/** An archive of exactly these headers, however wrong. */
async function archiveOf(...entries: (Partial<Header> & { name: string; text?: string })[]) {
  const archive = pack();
  for (const { text = '', ...header } of entries) archive.entry(header, Buffer.from(text));
  archive.finalize();
  const chunks: Uint8Array[] = [];
  for await (const chunk of archive) chunks.push(chunk as Uint8Array);
  return gzipSync(Buffer.concat(chunks));
}

/** A tar header counts only with the sum of its bytes; this makes a changed one count. */
function fixChecksum(header: Buffer): void {
  if (header.every(byte => byte === 0)) return;
  header.write('        ', 148);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
}
