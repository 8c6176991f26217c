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

test('of a text that is cut, what of a value is left at its end is hidden too', () => {
  const masks = new Masks();
  masks.add('fn', 'hunter2-and-more');
  const cut = (text: string) => masks.hide('fn', text, { isCut: true });
  assert.equal(cut('it is hunter2-and-mor'), 'it is ***');
  assert.equal(cut('it is hunt'), 'it is ***');
  assert.equal(cut('it is hun'), 'it is hun', 'three characters tell nothing');
  assert.equal(cut('hunter2-and-more and hunter2'), '*** and ***');
  assert.equal(masks.hide('fn', 'it is hunter2'), 'it is hunter2', 'whole, it is no value');
});
