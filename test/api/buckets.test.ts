/**
 * Goal: what changes in a watched directory calls a function, once a change, also when it changed while no gateway ran.
 * Method: a real gateway, real files; a function that says what it was told.
 */
import assert from 'node:assert/strict';
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import type { InvocationView } from '../../client/api.ts';
import {
  javascript,
  makeDataDirectory,
  startTestGateway,
  type TestGateway,
} from '../../src/testing/test-gateway.ts';
import { waitFor } from '../../src/testing/wait-for.ts';

const root = mkdtempSync(join(tmpdir(), 'fnway-buckets-'));
after(() => rmSync(root, { recursive: true, force: true }));
let directories = 0;
function newDirectory(): string {
  const path = join(root, String(directories++));
  mkdirSync(path);
  return path;
}
/** Written a while ago: nobody writes to it any more. */
function put(path: string, text: string, secondsAgo = 10): void {
  writeFileSync(path, text);
  const at = Date.now() / 1000 - secondsAgo;
  utimesSync(path, at, at);
}

const mirror = javascript(`export default async request => Response.json({
  object: await request.json(), headers: Object.fromEntries(request.headers) });`);

interface Told {
  object: { name: string; size?: string; bucket: string };
  headers: Record<string, string>;
}

/** What the function was told of a bucket so far: `finalized a.txt`. */
async function toldOf({ client }: TestGateway, bucket: string): Promise<string[]> {
  const { items } = await client.listInvocations({ origin: 'bucket', limit: 1000 });
  const own = await Promise.all(
    items.map(async ({ id }: InvocationView) => {
      const { trigger } = await client.getInvocation(id);
      if (trigger !== bucket) return [];
      const { object, headers } = (await (await client.getResult(id)).json()) as Told;
      return [`${headers['ce-type']!.split('.').at(-1)} ${object.name}`];
    }),
  );
  return own.flat().sort();
}

async function untilTold(gateway: TestGateway, bucket: string, expected: string[]): Promise<void> {
  let told: string[] = [];
  await waitFor(
    async () => {
      told = await toldOf(gateway, bucket);
      return told.length >= expected.length;
    },
    { what: `${expected.length} told`, timeoutMs: 20_000 },
  ).catch(() => {});
  assert.deepEqual(told, [...expected].sort());
}

const gateway = await startTestGateway({ shared: true });
const buckets = gateway.client.resources('buckets');
await gateway.put('mirror', mirror);
const quick = { function: 'mirror', every: '1s' };
const everything = ['finalize', 'delete', 'archive', 'metadataUpdate'];

describe('a watched directory', () => {
  test('calls for what is new, changed, and removed, and for nothing twice', async () => {
    const path = newDirectory();
    put(join(path, 'before.txt'), 'was here');
    // A change of it is none of the bucket's business either, until the bucket is there.
    await waitFor(() => Date.now() - statSync(join(path, 'before.txt')).ctimeMs > 100);
    await buckets.put('all', { ...quick, path, events: everything });
    put(join(path, 'a.txt'), 'one');
    mkdirSync(join(path, 'below/deep'), { recursive: true });
    put(join(path, 'below/deep/ü b.txt'), 'two');
    const first = ['finalized a.txt', 'finalized below/deep/ü b.txt'];
    await untilTold(gateway, 'all', first);
    put(join(path, 'a.txt'), 'one and more', 9);
    chmodSync(join(path, 'below/deep/ü b.txt'), 0o600);
    const second = [...first, 'finalized a.txt', 'metadataUpdated below/deep/ü b.txt'];
    await untilTold(gateway, 'all', second);
    unlinkSync(join(path, 'a.txt'));
    renameSync(join(path, 'below/deep'), join(path, 'moved'));
    await untilTold(gateway, 'all', [
      ...second,
      ...['deleted a.txt', 'deleted below/deep/ü b.txt', 'finalized moved/ü b.txt'],
    ]);
  });

  test('is told as Cloud Storage tells it', async () => {
    const path = newDirectory();
    await buckets.put('told', { ...quick, path });
    put(join(path, 'a b.txt'), 'four');
    await untilTold(gateway, 'told', ['finalized a b.txt']);
    const { items } = await gateway.client.listInvocations({ origin: 'bucket', limit: 1 });
    const { object, headers } = (await (
      await gateway.client.getResult(items[0]!.id)
    ).json()) as Told;
    assert.deepEqual([object.name, object.size, object.bucket], ['a b.txt', '4', 'told']);
    assert.equal(headers['ce-source'], '//storage.googleapis.com/projects/_/buckets/told');
    assert.equal(headers['ce-subject'], 'objects/a%20b.txt');
    assert.equal(headers['ce-specversion'], '1.0');
  });

  test('calls for what its prefix, suffix and events ask for', async () => {
    const path = newDirectory();
    mkdirSync(join(path, 'img'));
    await buckets.put('some', {
      ...quick,
      path,
      prefix: 'img/',
      suffix: '.png',
      events: ['delete'],
    });
    for (const name of ['img/a.png', 'img/b.jpg', 'c.png']) put(join(path, name), 'x');
    await buckets.put('some-new', {
      ...quick,
      path,
      prefix: 'img/',
      suffix: '.png',
      existing: 'fire',
    });
    await untilTold(gateway, 'some-new', ['finalized img/a.png']);
    unlinkSync(join(path, 'img/a.png'));
    await untilTold(gateway, 'some', ['deleted img/a.png']);
  });

  test('follows no links, and waits for what is being written', async () => {
    const path = newDirectory();
    const elsewhere = newDirectory();
    put(join(elsewhere, 'secret'), 'x');
    await buckets.put('links', { ...quick, path });
    symlinkSync(elsewhere, join(path, 'link'));
    symlinkSync(join(elsewhere, 'secret'), join(path, 'file-link'));
    writeFileSync(join(path, 'growing'), 'half');
    put(join(path, 'last'), 'x');
    await untilTold(gateway, 'links', ['finalized growing', 'finalized last']);
  });

  test('that cannot be read is not taken for empty', async () => {
    const path = newDirectory();
    await buckets.put('gone', { ...quick, path, events: everything });
    put(join(path, 'a'), 'x');
    await untilTold(gateway, 'gone', ['finalized a']);
    renameSync(path, `${path}-away`);
    await buckets.put('beside', { ...quick, path: root, prefix: 'beside' });
    put(join(root, 'beside'), 'x');
    await untilTold(gateway, 'beside', ['finalized beside']);
    renameSync(`${path}-away`, path);
    put(join(path, 'b'), 'x');
    await untilTold(gateway, 'gone', ['finalized a', 'finalized b']);
  });

  for (const [definition, detail] of [
    [{ ...quick, path: 'relative' }, /path: expected an absolute path/],
    [{ ...quick, path: '/a', function: 'nobody' }, /function: there is no function nobody/],
    [{ ...quick, path: '/a', every: '10ms' }, /every: from 1s to 1d/],
    [{ ...quick, path: '/a', events: [] }, /events/],
    [{ ...quick }, /path/],
  ] as Array<[object, RegExp]>)
    test(`${JSON.stringify(definition)} is refused`, async () => {
      await assert.rejects(buckets.put('refused', definition), (error: Error) => {
        assert.match(error.message, detail);
        return true;
      });
    });
});

test('what changed while no gateway ran is found by the next, and nothing comes twice', async () => {
  const [data, path] = [makeDataDirectory(), newDirectory()];
  const first = await startTestGateway({ data });
  await first.put('mirror', mirror);
  await first.client.resources('buckets').put('kept', { ...quick, path, events: everything });
  put(join(path, 'a'), 'x');
  put(join(path, 'b'), 'x');
  await untilTold(first, 'kept', ['finalized a', 'finalized b']);
  await first.stop();
  put(join(path, 'c'), 'x');
  unlinkSync(join(path, 'a'));
  const second = await startTestGateway({ data });
  await untilTold(second, 'kept', ['finalized a', 'finalized b', 'deleted a', 'finalized c']);
  await second.client.resources('buckets').remove('kept');
  await second.client.removeFunction('mirror');
  await second.stop();
  rmSync(data, { recursive: true, force: true });
});
