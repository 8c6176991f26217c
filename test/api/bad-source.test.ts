/**
 * Goal: an upload that is no archive, that would leave its directory or that is a bomb is refused, and nothing of it is
 * kept. Method: archives made entry by entry with tar-stream, which checks nothing.
 */
import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { pack } from 'tar-stream';
import { problemOf, startTestGateway } from '../../src/testing/index.ts';

const gateway = await startTestGateway({ shared: true });
const { client, control } = gateway;
const sources = '/v1/namespaces/default/sources';

interface TarEntry {
  name: string;
  type?: 'file' | 'symlink' | 'link' | 'directory' | 'fifo' | 'character-device';
  linkname?: string;
  text?: string;
}

async function tarOf(entries: TarEntry[]): Promise<Buffer> {
  const archive = pack();
  for (const { text = '', ...header } of entries) archive.entry(header, text);
  archive.finalize();
  return gzipSync(Buffer.concat((await Array.fromAsync(archive)) as Buffer[]));
}

function upload(body: Uint8Array): Promise<Response> {
  const headers = { 'content-type': 'application/gzip' };
  return control(sources, { method: 'POST', headers, body: new Uint8Array(body) });
}

test('an archive that is none, or holds what no source may, is refused', async () => {
  const good = await tarOf([{ name: 'a.py', text: 'a' }]);
  const cases: Array<[what: string, bytes: Uint8Array, said: RegExp]> = [
    ['nothing', new Uint8Array(0), /gzip/],
    ['text', Buffer.from('not an archive'), /gzip/],
    ['a tar without gzip', Buffer.alloc(1024), /gzip/],
    ['half', good.subarray(0, good.length / 2), /damaged|cut off/],
    ['gzipped noise', gzipSync(Buffer.alloc(2000, 7)), /./],
    ['up', await tarOf([{ name: '../up', text: 'x' }]), /\.\./],
    ['up inside', await tarOf([{ name: 'a/../../up', text: 'x' }]), /\.\./],
    ['absolute', await tarOf([{ name: '/etc/cron.d/x', text: 'x' }]), /absolute/],
    ['a link', await tarOf([{ name: 'a', type: 'symlink', linkname: '/etc' }]), /symlink/],
    ['a hard link', await tarOf([{ name: 'a', type: 'link', linkname: '/etc/passwd' }]), /link/],
    ['a pipe', await tarOf([{ name: 'a', type: 'fifo' }]), /fifo/],
    [
      'twice',
      await tarOf([
        { name: 'a', text: '1' },
        { name: 'a', text: '2' },
      ]),
      /twice/,
    ],
    [
      'both',
      await tarOf([
        { name: 'a', text: '1' },
        { name: 'a/b', text: '2' },
      ]),
      /both/,
    ],
    ['control', await tarOf([{ name: 'a\nb', text: '1' }]), /control/],
    ['deep', await tarOf([{ name: `${'d/'.repeat(65)}a`, text: '1' }]), /deeper/],
  ];
  for (const [what, bytes, said] of cases) {
    const problem = await problemOf(
      await upload(bytes),
      { status: 422, code: 'SOURCE_INVALID' },
      what,
    );
    assert.match(problem.detail, said, what);
    assert.doesNotMatch(problem.detail, new RegExp(gateway.data));
  }
  for (const path of ['../up', '/etc/x', 'a/../../up', 'a\\b', 'a//b', './a/.']) {
    const put = client.putFunction('escapes', {
      runtime: 'node',
      source: { files: { [path]: '' } },
    });
    await assert.rejects(put, { code: 'SOURCE_INVALID', status: 422 }, path);
  }
});

test('an archive bomb is refused before it fills the memory', async () => {
  const files = await tarOf(Array.from({ length: 10_001 }, (_, i) => ({ name: `f${i}` })));
  const many = await problemOf(await upload(files), { status: 413, code: 'SOURCE_TOO_LARGE' });
  assert.match(many.detail, /10000|10,000/);
  // 320 MiB of zeros in 320 KiB: one gzip member for the head, then the same one again and again.
  const archive = pack();
  const entry = archive.entry({ name: 'zeros', size: 320 * 1024 ** 2 });
  const head = await new Promise<Buffer>(resolve =>
    archive.once('data', chunk => resolve(chunk as Buffer)),
  );
  entry.on('error', () => {});
  archive.destroy();
  const zeros = gzipSync(Buffer.alloc(16 * 1024 ** 2));
  const bomb = Buffer.concat([gzipSync(head), ...Array.from({ length: 20 }, () => zeros)]);
  assert.ok(bomb.length < 1024 ** 2);
  const { detail } = await problemOf(await upload(bomb), { status: 413, code: 'SOURCE_TOO_LARGE' });
  assert.match(detail, /unpacked/);
});

test('an upload over its limit is refused', async () => {
  const response = await upload(Buffer.alloc(64 * 1024 ** 2 + 1, 1)).catch(() => undefined);
  // fetch may see the connection end before it reads the answer.
  if (response !== undefined) await problemOf(response, { status: 413, code: 'BODY_TOO_LARGE' });
});

test('nothing of what was refused has been kept', async () => {
  const blobs = join(gateway.data, 'blobs');
  const kept = existsSync(blobs)
    ? readdirSync(blobs, { recursive: true, withFileTypes: true }).filter(entry => entry.isFile())
    : [];
  assert.deepEqual(kept, []);
  assert.deepEqual((await client.listFunctions()).items, []);
});
