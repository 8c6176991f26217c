/**
 * Goal: calls are split as asked for, none is lost while that changes, and what is deployed, promoted or rolled back
 * meanwhile does what the docs say. Method: versions that answer with their number, counted.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  javascript,
  makeDataDirectory,
  startTestGateway,
  type TestGateway,
} from '../../src/testing/index.ts';

const gateway = await startTestGateway({ shared: true });

const code = (n: number) => `export default () => new Response('${n}');`;

async function deploy(own: TestGateway, name: string, ...numbers: number[]): Promise<void> {
  for (const n of numbers) await own.put(name, javascript(code(n)));
}

async function count(
  own: TestGateway,
  name: string,
  calls: number,
  headers: (i: number) => Record<string, string> = () => ({}),
): Promise<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (let i = 0; i < calls; i++) {
    const response = await own.call(`/function/${name}`, { headers: headers(i) });
    assert.equal(response.status, 200);
    const text = await response.text();
    counts[text] = (counts[text] ?? 0) + 1;
  }
  return counts;
}

describe('a split', () => {
  test('sends each version its share; a pinned call goes where it is pinned', async () => {
    await deploy(gateway, 'hello', 1, 2, 3);
    const { client } = gateway;
    const view = await client.splitTraffic('hello', { shares: { 2: 75, 3: 25, 1: 0 } });
    assert.deepEqual(view.traffic, { shares: { 2: 75, 3: 25 } });
    assert.equal(view.activeVersion, 3);
    const counts = await count(gateway, 'hello', 200);
    assert.ok(Math.abs(counts[2]! - 150) <= 6, JSON.stringify(counts));
    assert.equal(counts[2]! + counts[3]!, 200);
    assert.equal(await (await gateway.call('/function/hello@1')).text(), '1');
    const { items } = await client.listInvocations({ function: 'hello', version: 2 });
    assert.equal(items.length, Math.min(100, counts[2]!));
  });

  test('sticks to a header where asked for, whatever its letters’ case', async () => {
    const { client } = gateway;
    await client.splitTraffic('hello', { shares: { 2: 50, 3: 50 }, stickyHeader: 'X-User' });
    const places = new Map<string, string>();
    for (let round = 0; round < 3; round++) {
      for (let user = 0; user < 20; user++) {
        const name = round === 1 ? 'x-user' : 'X-USER';
        const response = await gateway.call('/function/hello', {
          headers: { [name]: `user-${user}` },
        });
        const text = await response.text();
        assert.equal(places.get(`${user}`) ?? text, text);
        places.set(`${user}`, text);
      }
    }
    assert.equal(new Set(places.values()).size, 2, 'both versions have users');
    const without = await count(gateway, 'hello', 40);
    assert.ok(without[2]! >= 15 && without[3]! >= 15, 'calls without the header are split too');
  });

  test('what is deployed takes no part until it is promoted, which ends the split', async () => {
    const { client } = gateway;
    await deploy(gateway, 'hello', 4);
    const counts = await count(gateway, 'hello', 40);
    assert.deepEqual(Object.keys(counts).sort(), ['2', '3']);
    const view = await client.promoteVersion('hello', 4);
    assert.deepEqual([view.traffic, view.activeVersion], [undefined, 4]);
    assert.deepEqual(await count(gateway, 'hello', 10), { 4: 10 });
    await deploy(gateway, 'hello', 5);
    assert.deepEqual(await count(gateway, 'hello', 10), { 5: 10 }, 'and deploys take over again');
  });

  test('ends when it is told to: the active version answers again', async () => {
    const { client } = gateway;
    await client.splitTraffic('hello', { shares: { 1: 100 } });
    assert.deepEqual(await count(gateway, 'hello', 10), { 1: 10 });
    const view = await client.endTraffic('hello');
    assert.equal(view.traffic, undefined);
    assert.deepEqual(await count(gateway, 'hello', 10), { 5: 10 });
  });

  test('changes without a call being lost', async () => {
    const { client } = gateway;
    let calling = true;
    const callers = Array.from({ length: 8 }, async () => {
      let calls = 0;
      while (calling) {
        const response = await gateway.call('/function/hello');
        assert.equal(response.status, 200);
        await response.text();
        calls++;
      }
      return calls;
    });
    const splits: Array<Record<string, number>> = [
      { 1: 50, 2: 50 },
      { 3: 100 },
      { 1: 10, 4: 90 },
      { 5: 100 },
    ];
    for (const shares of splits) await client.splitTraffic('hello', { shares });
    await client.endTraffic('hello');
    calling = false;
    for (const calls of await Promise.all(callers)) assert.ok(calls > 0);
  });
});

test('what is wrong is refused, and changes nothing', async () => {
  await deploy(gateway, 'strict', 1, 2);
  const { client } = gateway;
  await client.splitTraffic('strict', { shares: { 1: 50, 2: 50 } });
  await client.putFunction(
    'strict',
    { ...javascript('throw new Error("no");'), auth: 'none' },
    { wait: '30s' },
  );
  for (const [traffic, code] of [
    [{ shares: { 1: 50, 2: 45 } }, 'TRAFFIC_INVALID'],
    [{ shares: {} }, 'TRAFFIC_INVALID'],
    [{ shares: { 1: 101 } }, 'TRAFFIC_INVALID'],
    [{ shares: { 1: -1, 2: 101 } }, 'TRAFFIC_INVALID'],
    [{ shares: { one: 100 } }, 'TRAFFIC_INVALID'],
    [{ shares: { 1: 100 }, stickyHeader: 'a b' }, 'TRAFFIC_INVALID'],
    [{ shares: { 1: 50, 9: 50 } }, 'VERSION_NOT_FOUND'],
    [{ shares: { 1: 50, 3: 50 } }, 'VERSION_NOT_READY'],
  ] as const)
    await assert.rejects(
      client.splitTraffic('strict', traffic as never),
      { code },
      JSON.stringify(traffic),
    );
  await assert.rejects(client.splitTraffic('nobody', { shares: { 1: 100 } }), {
    code: 'FUNCTION_NOT_FOUND',
  });
  assert.deepEqual((await client.getFunction('strict')).traffic, { shares: { 1: 50, 2: 50 } });
});

test('a split survives a restart, and its versions are kept', async () => {
  const data = makeDataDirectory();
  const settings = { versionsKeptMax: '2' };
  const first = await startTestGateway({ data, settings });
  await deploy(first, 'hello', 1, 2);
  await first.client.splitTraffic('hello', { shares: { 1: 50, 2: 50 } });
  await deploy(first, 'hello', 3, 4, 5);
  await first.stop();
  const second = await startTestGateway({ data, settings });
  const counts = await count(second, 'hello', 20);
  assert.deepEqual(Object.keys(counts).sort(), ['1', '2']);
  const { ready, busy } = (await second.client.getFunction('hello')).running!;
  assert.ok(ready + busy >= 2, 'instances of each version are told');
  await second.stop();
});
