/** Goal: numbers lead to their items and to nothing else. Method: random sequences against a Map. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Slots } from './slots.ts';

test('a number leads to its item until it is removed, and never to a later one', () => {
  fc.assert(
    fc.property(fc.array(fc.nat(9), { maxLength: 200 }), steps => {
      const slots = new Slots<{ n: number }>();
      const living = new Map<number, { n: number }>();
      const gone: number[] = [];
      steps.forEach((step, n) => {
        if (step < 6 || living.size === 0) {
          const item = { n };
          const id = slots.add(item);
          assert.ok(id > 0 && !living.has(id) && !gone.includes(id));
          living.set(id, item);
        } else {
          const id = [...living.keys()][step % living.size]!;
          slots.remove(id);
          slots.remove(id);
          living.delete(id);
          gone.push(id);
        }
        for (const [id, item] of living) assert.equal(slots.get(id), item);
        for (const id of gone) assert.equal(slots.get(id), undefined);
        assert.equal(slots.size, living.size);
        assert.deepEqual(new Map(slots.entries()), living);
      });
    }),
  );
});
