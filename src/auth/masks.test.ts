/** Goal: no value comes through, whatever it is beside. Method: texts with one, many and overlapping values. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Masks } from './masks.ts';

test('values are hidden where they stand, of the one function only', () => {
  const masks = new Masks();
  masks.add('fn', 'hunter2');
  masks.add('fn', 'hunter2-and-more');
  masks.add('fn', 'hunter2');
  assert.equal(masks.hide('fn', 'a hunter2, b hunter2-and-more.'), 'a ***, b ***.');
  assert.equal(masks.hide('other', 'hunter2'), 'hunter2');
  assert.deepEqual(
    masks.hideIn('fn', { message: 'x hunter2', log: ['hunter2', 'y'], line: 3, stack: undefined }),
    { message: 'x ***', log: ['***', 'y'], line: 3, stack: undefined },
  );
  masks.remove('fn');
  assert.equal(masks.hide('fn', 'hunter2'), 'hunter2');
});

test('special characters of patterns and replacements mean nothing', () => {
  const masks = new Masks();
  masks.add('fn', '$&.*(a)');
  assert.equal(masks.hide('fn', 'x $&.*(a) $& y'), 'x *** $& y');
});
