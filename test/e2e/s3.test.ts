/**
 * Goal: what changes in a bucket of a store behind S3 calls a function, once, also when it changed while no gateway ran.
 * Method: a real gateway, and Ceph's gateway as the store.
 */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { after, describe, test } from 'node:test';
import { AwsClient } from 'aws4fetch';
import type { InvocationView } from '../../client/api.ts';
import {
  javascript,
  makeDataDirectory,
  startTestGateway,
  type TestGateway,
} from '../../src/testing/test-gateway.ts';
import { waitFor } from '../../src/testing/wait-for.ts';
import { needsRadosgw, type Radosgw, startRadosgw } from './radosgw.ts';

const mirror = javascript(`export default async request => Response.json({
  object: await request.json(), type: request.headers.get('ce-type') });`);

async function untilTold(
  { client }: TestGateway,
  bucket: string,
  expected: string[],
): Promise<void> {
  let told: string[] = [];
  await waitFor(
    async () => {
      const { items } = await client.listInvocations({ origin: 'bucket', limit: 1000 });
      const all = await Promise.all(
        items.map(async ({ id }: InvocationView) => {
          if ((await client.getInvocation(id)).trigger !== bucket) return [];
          const { object, type } = (await (await client.getResult(id)).json()) as never as {
            object: { name: string };
            type: string;
          };
          return [`${type.split('.').at(-1)} ${object.name}`];
        }),
      );
      told = all.flat().sort();
      return told.length >= expected.length;
    },
    { what: `${expected.length} told`, timeoutMs: 30_000 },
  ).catch(() => {});
  assert.deepEqual(told, [...expected].sort());
}

describe('a bucket of a store', {
  ...needsRadosgw(process.env.PATH ?? ''),
  timeout: 300_000,
}, () => {
  const data = makeDataDirectory();
  let store: Radosgw;
  let gateway: TestGateway;
  after(async () => {
    await gateway?.stop();
    store?.stop();
    rmSync(data, { recursive: true, force: true });
  });

  const ask = async (method: string, path: string, init: RequestInit = {}) => {
    const { accessKey: accessKeyId, secretKey: secretAccessKey, endpoint } = store;
    const client = new AwsClient({
      accessKeyId,
      secretAccessKey,
      service: 's3',
      region: 'us-east-1',
    });
    const response = await client.fetch(`${endpoint}/${path}`, { method, ...init });
    const text = await response.text();
    assert.ok(response.ok, `${method} ${path}: ${response.status} ${text}`);
  };
  const put = (path: string, body: string) => ask('PUT', path, { body });
  const place = (more = {}) => ({
    endpoint: store.endpoint,
    bucket: 'photos',
    accessKey: 'S3_KEY',
    secretKey: 'S3_SECRET',
    ...more,
  });
  const quick = {
    function: 'mirror',
    every: '1s',
    events: ['finalize', 'delete', 'metadataUpdate', 'archive'],
  };

  test('calls for what is new, written over, touched and removed, whatever its name', async () => {
    store = await startRadosgw();
    gateway = await startTestGateway({ data });
    await gateway.put('mirror', mirror);
    await gateway.client.putSecret('S3_KEY', store.accessKey);
    await gateway.client.putSecret('S3_SECRET', store.secretKey);
    await ask('PUT', 'photos');
    await gateway.client
      .resources('buckets')
      .put('photos', { ...quick, s3: place(), prefix: 'img/' });
    await put('photos/img/a.png', 'one');
    await put(`photos/img/${encodeURIComponent('ü & <b>+c d.png')}`, 'two');
    await put('photos/elsewhere', 'no');
    const first = ['finalized img/a.png', 'finalized img/ü & <b>+c d.png'];
    await untilTold(gateway, 'photos', first);
    await put('photos/img/a.png', 'one and more');
    await ask('DELETE', `photos/img/${encodeURIComponent('ü & <b>+c d.png')}`);
    const second = [...first, 'finalized img/a.png', 'deleted img/ü & <b>+c d.png'];
    await untilTold(gateway, 'photos', second);
    // The same content anew, in another second, is how metadata are changed.
    const writtenAt = Math.floor(Date.now() / 1000);
    await waitFor(() => Math.floor(Date.now() / 1000) > writtenAt + 1);
    await put('photos/img/a.png', 'one and more');
    await untilTold(gateway, 'photos', [...second, 'metadataUpdated img/a.png']);
  });

  test('has more than a page holds, and finds what changed while no gateway ran', async () => {
    await ask('PUT', 'many');
    const keys = Array.from({ length: 1100 }, (_, i) => `k${String(i).padStart(4, '0')}`);
    for (let i = 0; i < keys.length; i += 50)
      await Promise.all(keys.slice(i, i + 50).map(key => put(`many/${key}`, key)));
    const { client } = gateway;
    await client
      .resources('buckets')
      .put('many', { ...quick, s3: place({ bucket: 'many' }), existing: 'fire' });
    const count = async () =>
      (await client.listInvocations({ origin: 'bucket', limit: 1000, since: '10m' })).items.length;
    await waitFor(async () => (await count()) >= 1000, {
      what: 'a thousand calls',
      timeoutMs: 60_000,
    });
    await gateway.stop();
    await ask('DELETE', 'many/k0003');
    await put('many/zz', 'new');
    gateway = await startTestGateway({ data });
    await waitFor(
      async () => {
        const { items } = await gateway.client.listInvocations({ origin: 'bucket', limit: 2 });
        const told = await Promise.all(
          items.map(async ({ id }) => (await gateway.client.getResult(id)).text()),
        );
        return (
          told.some(text => text.includes('"zz"')) && told.some(text => text.includes('"k0003"'))
        );
      },
      { what: 'both changes', timeoutMs: 30_000 },
    );
  });

  test('is looked at when the store says so, and archives what it has versions of', async () => {
    await ask('PUT', 'versioned');
    const { client } = gateway;
    await client.resources('buckets').put('versioned', {
      ...{ ...quick, every: '1d', existing: 'fire' },
      s3: place({ bucket: 'versioned', versioned: true }),
    });
    await client.putSecret('HOOK', 'a token of the store');
    await client.resources('webhooks').put('changed', {
      bucket: 'versioned',
      verify: { kind: 'token', secret: 'HOOK' },
    });
    const say = () =>
      gateway.call('/webhook/changed', {
        method: 'POST',
        headers: { authorization: 'Bearer a token of the store' },
        body: '{"Records":[]}',
      });
    await put('versioned/a', '1');
    assert.equal((await say()).status, 202);
    await untilTold(gateway, 'versioned', ['finalized a']);
    await put('versioned/a', '2');
    await say();
    await untilTold(gateway, 'versioned', ['archived a', 'finalized a', 'finalized a']);
    await ask('DELETE', 'versioned/a');
    await say();
    await untilTold(gateway, 'versioned', [
      'archived a',
      'archived a',
      'finalized a',
      'finalized a',
    ]);
  });

  test('that refuses says why in the log, and brings nothing', async () => {
    const { client } = gateway;
    await client.putSecret('WRONG', 'not the secret');
    await client
      .resources('buckets')
      .put('refused', { ...quick, s3: place({ secretKey: 'WRONG' }), existing: 'fire' });
    await client.resources('buckets').put('beside', {
      ...quick,
      s3: place(),
      existing: 'fire',
      events: ['finalize'],
      prefix: 'elsewhere',
    });
    await untilTold(gateway, 'beside', ['finalized elsewhere']);
    await untilTold(gateway, 'refused', []);
    await assert.rejects(
      client.resources('buckets').put('none', { ...quick, s3: place({ accessKey: 'NOPE' }) }),
      /s3\.accessKey: there is no secret NOPE/,
    );
    await assert.rejects(
      client.resources('buckets').put('none', { ...quick, path: '/a', s3: place() }),
      /say one of path and s3/,
    );
  });
});
