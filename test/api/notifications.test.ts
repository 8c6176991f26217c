/**
 * Goal: who asks is told of deploys and of what is dead, once for a cause, until it is taken. Method: a real gateway, and a
 * real server that is told.
 */
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, test } from 'node:test';
import type { NotificationEvent } from '../../client/api.ts';
import { javascript, startTestGateway } from '../../src/testing/test-gateway.ts';
import { waitFor } from '../../src/testing/wait-for.ts';

const gateway = await startTestGateway({
  shared: true,
  env: { FNWAY_ALLOW_PRIVATE_CALLBACKS: 'true' },
});
const { client } = gateway;
const notifications = client.resources('notifications');

const told: Array<{ path: string; headers: Record<string, unknown>; body: Buffer }> = [];
const answers = new Map<string, number[]>();
const server = createServer(async (request, response) => {
  const body = Buffer.concat(await Array.fromAsync(request));
  const { url: path = '/', headers } = request;
  told.push({ path, headers, body });
  response.writeHead(answers.get(path)?.shift() ?? 200).end();
});
await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
const target = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
after(() => {
  server.closeAllConnections();
  server.close();
});

const at = (path: string) => told.filter(other => other.path === path);
async function toldAt(path: string, count = 1) {
  await waitFor(() => at(path).length >= count, {
    what: `${count} told at ${path}`,
    timeoutMs: 20_000,
  });
  return at(path).map(
    ({ body }) => JSON.parse(String(body)) as NotificationEvent & { text: string },
  );
}

test('of deploys that succeed and fail, signed, in JSON', async () => {
  await notifications.put('deploys', {
    url: `${target}/deploys`,
    on: ['deploy-succeeded', 'deploy-failed'],
  });
  await gateway.put('good', javascript('export default () => new Response();'));
  const { function: bad } = await client.putFunction('bad', javascript('export default ('), {
    wait: '30s',
  });
  assert.equal(bad.state, 'failed');
  const events = await toldAt('/deploys', 2);
  const { at: _, ...good } = events.find(event => event.function === 'good')!;
  assert.deepEqual(good, {
    ...{ event: 'deploy-succeeded', namespace: 'default', function: 'good', version: 1 },
    text: 'good version 1 is ready',
  });
  const failed = events.find(event => event.function === 'bad')!;
  assert.equal(failed.event, 'deploy-failed');
  assert.match(failed.text, /^bad version 1 failed: .*handler\.mjs/s);
  const [{ headers, body }] = at('/deploys') as [(typeof told)[number]];
  assert.equal(headers['x-fnway-notification'], 'deploys');
  assert.match(String(headers['x-fnway-signature']), /^t=\d+,v1=[0-9a-f]{64}$/);
  assert.ok(body.length > 0 && createHmac);
});

test('of what is dead, to an address that is a secret, in the words of Slack, once for a cause', async () => {
  await client.putSecret('SLACK', `${target}/slack`);
  await notifications.put('deaths', { secret: 'SLACK', format: 'slack', on: ['dead-letter'] });
  await gateway.put(
    'dies',
    javascript(`export default () => { throw new TypeError('broken inside'); }`),
  );
  await client.resources('topics').put('t', {});
  await client
    .resources('subscriptions')
    .put('s', { topic: 't', function: 'dies', retry: { attempts: 1 } });
  for (let i = 0; i < 5; i++) await client.publish('t', [{ data: 'AA==' }]);
  await waitFor(
    async () => (await client.listDeadLetters({ subscription: 's' })).items.length === 5,
    {
      what: 'five dead letters',
    },
  );
  assert.deepEqual(await toldAt('/slack'), [
    { text: 'A message for subscription s is dead after 1 tries, threw TypeError: broken inside' },
  ]);
  await gateway.put('dies-too', {
    ...javascript(`export default () => new Response('', { status: 503 });`),
    retry: { attempts: 2, minDelay: '1ms' },
  });
  await client.invokeAsync('dies-too', { body: 'x' });
  const events = await toldAt('/slack', 2);
  assert.equal(events[1]!.text, 'A call of dies-too is dead after 2 tries, answered 503');
  // Of five of one cause, one.
  assert.equal(at('/slack').length, 2);
});

test('is tried again until it is taken, and its lane is nobody else’s', async () => {
  answers.set('/again', [503, 302]);
  await notifications.put('again', {
    url: `${target}/again`,
    on: ['deploy-succeeded'],
    window: '0ms',
  });
  await gateway.put('again', javascript('export default () => new Response("again");'));
  const [first] = await toldAt('/again');
  assert.equal(first!.function, 'again');
  // Its next try is seconds away: it waits as a job.
  const metrics = await (await gateway.call('/metrics')).text();
  assert.match(metrics, /fnway_jobs_ended\{state="succeeded"\}/);
});

test('of nothing while it is paused, or in another namespace', async () => {
  await notifications.put('paused', { url: `${target}/paused` });
  await notifications.pause('paused');
  await client
    .inNamespace('team')
    .resources('notifications')
    .put('team', { url: `${target}/team` });
  await notifications.put('last', { url: `${target}/last` });
  await gateway.put('any', javascript('export default () => new Response("any");'));
  await toldAt('/last');
  assert.deepEqual([at('/paused').length, at('/team').length], [0, 0]);
});

for (const [definition, detail] of [
  [{}, /say one of url, and secret/],
  [{ url: 'http://a/', secret: 'SLACK' }, /say one of url, and secret/],
  [{ url: 'mailto:a@b' }, /url: not an http address/],
  [{ secret: 'NONE' }, /secret: there is no secret NONE/],
  [{ url: 'http://a/', on: ['birthday'] }, /on\.0/],
  [{ url: 'http://a/', window: '2d' }, /window: at most 1d/],
] as Array<[object, RegExp]>)
  test(`${JSON.stringify(definition)} is refused`, async () => {
    await assert.rejects(notifications.put('refused', definition), (error: Error) => {
      assert.match(error.message, detail);
      return true;
    });
  });
