/**
 * Goal: a reading says the same each time, gives the same arrays for the same question, and keeps nothing large. Method:
 * heads as a reader gives them.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { rememberedBytesMax } from '../invoke/invoke.ts';
import { Reading } from './reading.ts';

function reading(headers: readonly string[] = []): Reading {
  const head = { method: 'GET', target: '/function/a/b', headers, remoteAddress: '127.0.0.2' };
  return new Reading(head, false);
}

test('headers for the function: with and without Authorization, each the same array every time', () => {
  const read = reading(['Host', 'h', 'Authorization', 'Bearer x', 'X', 'y']);
  const way = [
    'X-Forwarded-For',
    '127.0.0.2',
    'X-Forwarded-Proto',
    'http',
    'X-Forwarded-Host',
    'h',
  ];
  for (let time = 0; time < 2; time++) {
    assert.deepEqual(read.headersFor(true), ['Host', 'h', 'X', 'y', ...way]);
    assert.deepEqual(read.headersFor(false), [
      ...['Host', 'h', 'Authorization', 'Bearer x', 'X', 'y'],
      ...way,
    ]);
  }
  assert.equal(read.headersFor(true), read.headersFor(true));
  assert.equal(read.headersFor(false), read.headersFor(false));
});

test('an answer’s head is remembered for the same array only, and never for a length that is not counted', () => {
  const read = reading();
  const given = ['content-type', 'text/plain', 'content-length', '7'];
  const first = read.answerHead(given, true);
  assert.deepEqual(first, { headers: ['content-type', 'text/plain'] });
  assert.equal(read.answerHead(given, true), first);
  assert.deepEqual(read.answerHead(given, false), { headers: given });
  assert.equal(read.answerHead(given, true), first);
  assert.equal(read.remembers(first), true);
  const other = read.answerHead([...given], true);
  assert.notEqual(other, first);
  assert.deepEqual(other, first);
});

test('what is large is not kept: neither long texts nor many empty ones, nor what is left of one', () => {
  for (const given of [
    ['x', 'y', 'upgrade', 'z'.repeat(rememberedBytesMax)],
    ['x', 'y'.repeat(rememberedBytesMax)],
    Array.from({ length: rememberedBytesMax + 2 }, () => ''),
  ]) {
    const read = reading();
    assert.notEqual(read.answerHead(given, true), read.answerHead(given, true));
    assert.equal(read.remembers(read.answerHead(given, true)), false);
    assert.deepEqual(read.answerHead(given, true), read.answerHead(given, true));
  }
});
