/** Goal: whatever is added and taken in whatever order, the earliest comes first. Method: random steps against a sorted list. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DueList } from './due.ts';

test('the earliest comes first', () => {
  fc.assert(
    fc.property(fc.array(fc.option(fc.integer({ min: 0, max: 50 }))), steps => {
      const due = new DueList<number>();
      const sorted: number[] = [];
      for (const ms of steps) {
        if (ms === null) assert.equal(due.take()?.ms, sorted.shift());
        else {
          due.add(ms, ms);
          sorted.push(ms);
          sorted.sort((a, b) => a - b);
        }
        assert.equal(due.first?.ms, sorted[0]);
      }
    }),
  );
});
