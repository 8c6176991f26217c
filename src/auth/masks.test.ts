/** Goal: no value comes through, whatever it is beside. Method: texts with one, many and overlapping values. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formsOf } from '../domain/secret.ts';
import { Masks, rememberedValuesMax } from './masks.ts';

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

test('a value of any length, and any number of them, is hidden', () => {
  const masks = new Masks();
  const long = Array.from({ length: 900 }, (_, i) => `line ${i} ${'k'.repeat(60)}`).join('\n');
  masks.add('fn', long);
  assert.equal(masks.hide('fn', `a ${long} b`), 'a *** b');
  assert.equal(masks.hide('fn', 'x line 7 '.concat('k'.repeat(60))), 'x ***');
  for (let i = 0; i < rememberedValuesMax; i++) masks.add('fn', `value-${i}-x`);
  assert.equal(masks.hide('fn', 'value-0-x value-299-x'), '*** ***');
  masks.add('fn', 'one-more');
  assert.equal(masks.hide('fn', 'value-0-x one-more'), 'value-0-x ***', 'the oldest goes');
  masks.add('fn', 'value-1-x');
  masks.add('fn', 'another');
  assert.equal(masks.hide('fn', 'value-1-x value-2-x'), '*** value-2-x', 'what is in use stays');
});

test('words of ours stay what they are; what a runtime has cut is hidden to its end', () => {
  const masks = new Masks();
  for (const value of ['threw', 'function', 'FAILED', 'hunter2-and-more']) masks.add('fn', value);
  const failure = {
    kind: 'function',
    code: 'FUNCTION_FAILED',
    reason: 'threw',
    message: 'it threw',
  };
  assert.deepEqual(masks.hideIn('fn', failure), { ...failure, message: 'it ***' });
  const long = 'x'.repeat(5000);
  for (const mark of ['', ' …'])
    assert.equal(
      masks.hideIn('fn', { message: `${long} hunter2-an${mark}` }).message,
      `${long} ***${mark}`,
    );
});

test('what is hidden is what a plain search finds, longest and leftmost first', () => {
  const letters = (size: { minLength?: number; maxLength: number }) =>
    fc.string({ unit: fc.constantFrom('a', 'b', 'é'), ...size });
  fc.assert(
    fc.property(
      fc.array(letters({ minLength: 4, maxLength: 6 }), { minLength: 1, maxLength: 4 }),
      letters({ maxLength: 40 }),
      (values, text) => {
        const masks = new Masks();
        for (const value of values) masks.add('fn', value);
        const forms = values.flatMap(formsOf).sort((a, b) => b.length - a.length);
        let expected = '';
        for (let at = 0; at < text.length; ) {
          const form = forms.find(one => text.startsWith(one, at));
          expected += form === undefined ? text[at] : '***';
          at += form?.length ?? 1;
        }
        assert.equal(masks.hide('fn', text), expected);
      },
    ),
  );
});
