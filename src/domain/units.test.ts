/** Goal: durations and sizes mean what people write. Method: tables, and that formatting parses back. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatDuration, formatSize, parseDuration, parseSize } from './units.ts';

test('durations are read in their units', () => {
  const table: Array<[string, number | undefined]> = [
    ['100ms', 100],
    ['30s', 30_000],
    ['1.5s', 1500],
    ['2m', 120_000],
    ['1h', 3_600_000],
    ['1d', 86_400_000],
    ['0s', 0],
    ['30', undefined],
    ['-1s', undefined],
    ['1w', undefined],
    ['1 s', undefined],
    ['', undefined],
    ['1e3s', undefined],
  ];
  for (const [text, ms] of table) assert.equal(parseDuration(text), ms, text);
});

test('sizes are read in decimal and binary units', () => {
  const table: Array<[string, number | undefined]> = [
    ['512', 512],
    ['1k', 1000],
    ['1Ki', 1024],
    ['256Mi', 268_435_456],
    ['1Gi', 1_073_741_824],
    ['1M', 1_000_000],
    ['1KB', undefined],
    ['Mi', undefined],
    ['-1Mi', undefined],
  ];
  for (const [text, bytes] of table) assert.equal(parseSize(text), bytes, text);
});

test('what is formatted is read back as the same', () => {
  fc.assert(
    fc.property(
      fc.nat(),
      n => parseDuration(formatDuration(n)) === n && parseSize(formatSize(n)) === n,
    ),
  );
  assert.equal(formatDuration(90_000), '90s');
  assert.equal(formatDuration(60_000), '1m');
  assert.equal(formatSize(256 * 1024 ** 2), '256Mi');
});
