/** Goal: what a resource names stays while it is there. Method: a store in memory, and a removal that takes its time. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createSealer } from '../auth/seal.ts';
import { scheduleSchema } from '../domain/schedule.ts';
import { GatewayError } from '../errors.ts';
import { createMemoryStore } from '../store/memory.ts';
import { FakeClock } from '../testing/fake-clock.ts';
import { Resources } from './resources.ts';

test('nothing that names a function is put while that is removed', async () => {
  const store = createMemoryStore();
  const clock = new FakeClock();
  const resources = new Resources({ store, sealer: createSealer(new Uint8Array(32)), clock });
  await resources.load();
  let isThere = true;
  resources.check = () => {
    if (!isThere) throw new GatewayError('FUNCTION_NOT_FOUND', 'there is no function a');
  };
  const named = { kind: 'function', namespace: 'default', name: 'a' } as const;
  const place = { namespace: 'default', name: 's' };
  const definition = scheduleSchema.parse({ function: 'a', every: '1h' });
  const put = () => resources.put('schedule', place, { definition, project: undefined });

  let end!: () => void;
  const removal = resources.removeNamed(named, async () => {
    await new Promise<void>(resolve => {
      end = resolve;
    });
    isThere = false;
  });
  const late = put();
  await new Promise(resolve => setImmediate(resolve));
  end();
  await removal;
  await assert.rejects(late, { code: 'FUNCTION_NOT_FOUND' });

  isThere = true;
  await put();
  await assert.rejects(
    resources.removeNamed(named, async () => assert.fail('it was removed')),
    { code: 'RESOURCE_IN_USE', message: 'function a is used by schedule s' },
  );
});
