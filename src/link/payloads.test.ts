/**
 * Goal: heads that are remembered say what they would have said if they had been read, and long ones are not kept.
 * Method: sequences of heads with repeats, against reading each of them alone.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { rememberedBytesMax } from '../invoke/invoke.ts';
import { CallHeaders, ReplyHeads } from './payloads.ts';

test('a reply’s head is what its text says, whatever came before', () => {
  const anyHead = fc.record({
    status: fc.constantFrom(200, 204, 404, 599),
    headers: fc.array(fc.tuple(fc.constantFrom('a', 'b'), fc.constantFrom('', '1', '2'))),
  });
  fc.assert(
    fc.property(fc.array(anyHead, { minLength: 1, maxLength: 20 }), heads => {
      const read = new ReplyHeads();
      for (const { status, headers } of heads) {
        const text = [status, ...headers.flat()].join('\0');
        assert.deepEqual(read.parse(text), { status, headers: headers.flat(), threw: false });
        assert.equal(read.parse(text).headers, read.parse(text).headers, 'the same array');
      }
    }),
  );
});

test('a head that breaks the protocol does so each time, and the one before still holds', () => {
  const used = new ReplyHeads();
  const good = used.parse('200\0a\0b');
  for (const read of [new ReplyHeads(), used]) {
    for (const text of [
      '',
      '',
      'x',
      '99',
      '199',
      '600',
      '200\0a',
      '2e2',
      '0xc8',
      ' 200',
      '200\n',
      '200.0',
    ])
      assert.throws(() => read.parse(text), { code: 'LINK_PROTOCOL_BROKEN' }, text);
  }
  assert.equal(used.parse('200\0a\0b'), good);
});

test('a long head is read again: it is not worth its memory', () => {
  const read = new ReplyHeads();
  const text = `200\0a\0${'b'.repeat(rememberedBytesMax)}`;
  assert.notEqual(read.parse(text), read.parse(text));
  assert.deepEqual(read.parse(text), read.parse(text));
});

test('a call’s headers as text, whatever came before', () => {
  const calls = new CallHeaders();
  const few = ['a', '1', 'b', '2'];
  const long = ['a', 'x'.repeat(rememberedBytesMax)];
  for (const headers of [few, few, [], long, few, long])
    assert.equal(calls.textOf(headers), headers.map(text => `\0${text}`).join(''));
});

test('a reply says that its function threw by its last header only', () => {
  const read = new ReplyHeads();
  assert.equal(read.parse('500\0a\0b\0X-Fnway-Failure\0threw').threw, true);
  for (const text of ['500\0X-Fnway-Failure\0threw\0a\0b', '500\0a\0threw', '200'])
    assert.equal(read.parse(text).threw, false);
});
