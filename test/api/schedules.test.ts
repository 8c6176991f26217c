/**
 * Goal: schedules call their functions, once a slot, also across restarts; and can be listed, paused, run and removed.
 * Method: a real gateway and a real function over HTTP; where time matters, slots a second apart, or a gateway whose clock a
 * test moves.
 */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { after, describe, test } from 'node:test';
import type { InvocationView, ScheduleView, SlotView } from '../../client/api.ts';
import {
  javascript,
  makeDataDirectory,
  startTestGateway,
  type TestGateway,
} from '../../src/testing/test-gateway.ts';
import { waitFor } from '../../src/testing/wait-for.ts';

const gateway = await startTestGateway({ shared: true });
const { client } = gateway;
const schedules = client.resources('schedules');

const mirror = javascript(`export default async request => Response.json({
  method: request.method, path: new URL(request.url).pathname, body: await request.text(),
  type: request.headers.get('content-type'),
  schedule: request.headers.get('x-fnway-schedule'), slot: request.headers.get('x-fnway-slot') });`);
await gateway.put('mirror', mirror);
await gateway.put(
  'slow',
  javascript(`export default async request => {
  await new Promise(resolve => request.signal.addEventListener('abort', resolve)); return new Response(); }`),
);

const far = '0 0 1 1 *';
const ended = (id: string): Promise<InvocationView> => client.getInvocation(id, { wait: '30s' });

async function slotsOf(name: string, count: number, { client }: TestGateway = gateway) {
  return waitFor(
    async () => {
      const { items } = await client.listSlots(name);
      return items.length >= count ? items : undefined;
    },
    { what: `${count} slots of ${name}` },
  ) as Promise<SlotView[]>;
}

describe('a schedule', () => {
  test('calls its function at each slot, with its body, and says which slot it is', async () => {
    const { resource } = await schedules.put('ticking', {
      ...{ function: 'mirror', cron: '* * * * * *', body: { a: [1, 'ü'] } },
    });
    assert.equal(resource.next.length, 5);
    const slots = await slotsOf('ticking', 2);
    await schedules.remove('ticking');
    const { at, outcome, invocation } = slots.at(-1)!;
    assert.equal(outcome, 'fired');
    const view = await ended(invocation!);
    const { state, origin, caller, trigger } = view;
    assert.deepEqual(
      { state, origin, caller, trigger, function: view.function },
      {
        ...{ state: 'succeeded', origin: 'schedule', caller: 'trigger', trigger: 'ticking' },
        function: 'mirror',
      },
    );
    assert.deepEqual(await (await client.getResult(invocation!)).json(), {
      ...{ method: 'POST', path: '/', body: '{"a":[1,"ü"]}', type: 'application/json' },
      ...{ schedule: 'ticking', slot: at },
    });
    const records = await waitFor(
      async () => {
        const { items } = await client.listInvocations({ origin: 'schedule' });
        return items.length > 0 ? items : undefined;
      },
      { what: 'its record' },
    );
    assert.equal((records as InvocationView[])[0]!.caller, 'trigger');
  });

  test('is put once: the same definition changes nothing, another is told', async () => {
    const definition = { function: 'mirror', every: '24h', start: '2021-01-01T04:00:00Z' };
    assert.equal((await schedules.put('daily', definition)).outcome, 'created');
    const same = await schedules.put('daily', { ...definition, every: '1d' });
    assert.equal(same.outcome, 'unchanged');
    assert.ok(same.resource.next.every(slot => slot.endsWith('T04:00:00.000Z')));
    const changed = await schedules.put('daily', { ...definition, body: 'text' });
    assert.equal(changed.outcome, 'updated');
    assert.equal(changed.resource.id, same.resource.id);
    assert.ok(changed.resource.revision > same.resource.revision);
    assert.deepEqual(changed.resource.definition, {
      ...{ function: 'mirror', every: '1d', start: '2021-01-01T04:00:00.000Z', body: 'text' },
      ...{ overlap: 'allow', catchUp: 'one', catchUpMax: 100, description: '' },
    });
    await schedules.remove('daily');
    await assert.rejects(schedules.get('daily'), { code: 'RESOURCE_NOT_FOUND', status: 404 });
  });

  test('runs by hand, also while it is paused, and tells so', async () => {
    await schedules.put('by-hand', { function: 'mirror', cron: far, body: 'as text' });
    const paused = await schedules.pause('by-hand');
    assert.deepEqual([paused.paused, paused.next], [true, []]);
    const { id } = await client.runSchedule('by-hand');
    const { body, type } = (await (await client.getResult(id, { wait: '30s' })).json()) as never;
    assert.deepEqual([body, type], ['as text', 'text/plain; charset=utf-8']);
    const [slot] = await slotsOf('by-hand', 1);
    assert.deepEqual([slot!.outcome, slot!.invocation], ['by-hand', id]);
    const resumed = await schedules.resume('by-hand');
    assert.deepEqual([resumed.paused, resumed.next.length], [false, 5]);
  });

  test('that is paused brings nothing, and nothing of that time when it is resumed', async () => {
    await schedules.put('paused', { function: 'mirror', every: '1s', catchUp: 'all' });
    await schedules.pause('paused');
    const before = (await client.listSlots('paused')).items.map(({ at }) => at);
    await schedules.put('beside', { function: 'mirror', every: '1s' });
    await slotsOf('beside', 3);
    await schedules.remove('beside');
    const { updatedAt } = await schedules.resume('paused');
    await slotsOf('paused', before.length + 1);
    const { items } = await client.listSlots('paused');
    const since = items.map(({ at }) => at).filter(at => !before.includes(at));
    // A slot that was being decided when it was paused may have been.
    assert.ok(since.filter(at => at <= updatedAt).length <= 1, `${since} since ${updatedAt}`);
    await schedules.remove('paused');
  });

  test('with overlap skip leaves slots out while a call runs; with queue they wait', async () => {
    await schedules.put('skipping', { function: 'slow', every: '1s', overlap: 'skip' });
    await schedules.put('queueing', { function: 'slow', every: '1s', overlap: 'queue' });
    const skipped = await slotsOf('skipping', 3);
    const outcomes = skipped.map(({ outcome }) => outcome).reverse();
    assert.deepEqual(outcomes.slice(0, 3), ['fired', 'skipped', 'skipped']);
    const queued = (await slotsOf('queueing', 3)).reverse();
    await schedules.remove('skipping');
    await schedules.remove('queueing');
    const states = await Promise.all(
      queued.slice(0, 3).map(async ({ invocation }) => {
        const running = await waitFor(async () => {
          const view = await client.getInvocation(invocation!);
          return invocation !== queued[0]!.invocation || view.state === 'running'
            ? view
            : undefined;
        });
        return (running as InvocationView).state;
      }),
    );
    assert.deepEqual(states, ['running', 'queued', 'queued']);
    for (const { invocation } of [...skipped, ...queued])
      if (invocation !== undefined) await client.cancelInvocation(invocation).catch(() => {});
  });

  test('keeps its function from being removed', async () => {
    await gateway.put('kept', mirror);
    await schedules.put('keeper', { function: 'kept', cron: far });
    await assert.rejects(client.removeFunction('kept'), {
      ...{ code: 'RESOURCE_IN_USE', message: 'function kept is used by schedule keeper' },
    });
    await schedules.remove('keeper');
    await client.removeFunction('kept');
  });

  test('belongs to its project', async () => {
    await schedules.put('owned', { function: 'mirror', cron: far, project: 'shop' });
    await assert.rejects(
      schedules.put('owned', { function: 'mirror', cron: far, project: 'other' }),
      { code: 'RESOURCE_EXISTS', status: 409 },
    );
    const { items } = await schedules.list({ project: 'shop' });
    assert.deepEqual(
      items.map(({ name, project }) => [name, project]),
      [['owned', 'shop']],
    );
  });

  test('is listed in pages, and in its namespace only', async () => {
    const team = client.inNamespace('team');
    await team.putFunction('mirror', { ...mirror, auth: 'none' }, { wait: '30s' });
    for (const name of ['c', 'a', 'b'])
      await team.resources('schedules').put(name, { function: 'mirror', cron: far });
    const pages = team.resources('schedules').each({ limit: 2 });
    const names = (await Array.fromAsync(pages)).map(({ name }) => name);
    assert.deepEqual(names, ['a', 'b', 'c']);
  });
});

describe('what is no schedule is refused, and leaves nothing', () => {
  for (const [definition, detail] of [
    [{ function: 'nobody', cron: far }, /function: there is no function nobody/],
    [{ function: 'mirror', cron: '61 * * * *' }, /cron: Invalid value for minute/],
    [{ function: 'mirror', cron: far, timezone: 'Mars/Phobos' }, /timezone: not a time zone/],
    [{ function: 'mirror', every: '10ms' }, /every: at least 1s/],
    [{ function: 'mirror' }, /cron: say when/],
    [{ cron: far }, /function: /],
    [{ function: 'mirror', corn: far }, /corn: unknown key; did you mean cron/],
    [{ function: 'mirror', cron: far, project: 'No' }, /project: /],
    [[], /expected object/],
  ] as Array<[object, RegExp]>)
    test(JSON.stringify(definition), async () => {
      await assert.rejects(schedules.put('refused', definition), (error: Error) => {
        assert.equal((error as Error & { code: string }).code, 'DEFINITION_INVALID');
        assert.match(error.message, detail);
        return true;
      });
      await assert.rejects(schedules.get('refused'), { code: 'RESOURCE_NOT_FOUND' });
    });

  test('a name that is none, and verbs of what is not there', async () => {
    await assert.rejects(schedules.put('No', { function: 'mirror', cron: far }), {
      code: 'DEFINITION_INVALID',
    });
    for (const call of [
      () => client.runSchedule('none'),
      () => client.listSlots('none'),
      () => schedules.pause('none'),
      () => schedules.remove('none'),
    ])
      await assert.rejects(call(), { code: 'RESOURCE_NOT_FOUND' });
  });
});

describe('across restarts', () => {
  const data = makeDataDirectory();
  after(() => rmSync(data, { recursive: true, force: true }));

  test('no slot is missing and none comes twice', async () => {
    const seen = new Map<string, string>();
    for (let round = 0; round < 3; round++) {
      const again = await startTestGateway({ data });
      if (round === 0) {
        await again.put('mirror', mirror);
        await again.client
          .resources('schedules')
          .put('secondly', { function: 'mirror', every: '1s' });
      }
      const slots = await slotsOf('secondly', seen.size + 2, again);
      for (const { at, outcome, invocation } of slots) {
        assert.equal(outcome, 'fired');
        assert.equal(seen.get(at) ?? invocation, invocation, `slot ${at} has one invocation`);
        seen.set(at, invocation!);
      }
      await again.stop();
    }
    const times = [...seen.keys()].map(at => Date.parse(at)).sort((a, b) => a - b);
    const expected = times.map((_, i) => times[0]! + i * 1000);
    assert.deepEqual(times, expected);
    assert.equal(new Set(seen.values()).size, seen.size);
  });

  test('it is there as it was, and paused where it was', async () => {
    const first = await startTestGateway({ data });
    const routes = first.client.resources('schedules');
    const before: ScheduleView = await routes.pause('secondly');
    await first.stop();
    const second = await startTestGateway({ data });
    assert.deepEqual(await second.client.resources('schedules').get('secondly'), before);
    await second.stop();
  });
});
