/** Goal: severity and fields of a line survive, whichever logger wrote it. Method: lines as they write them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readLine } from './log-line.ts';

test('plain text is info on standard output and an error on standard error', () => {
  for (const text of ['hello', '', '{not json}', '{"a":1', '[1]', '"x"']) {
    assert.deepEqual(readLine(text, 'stdout'), { severity: 'info', message: text });
    assert.deepEqual(readLine(text, 'stderr'), { severity: 'error', message: text });
  }
});

test('a line of JSON keeps its severity, its message and its fields', () => {
  const found: Array<[object, object]> = [
    [
      { severity: 'WARNING', message: 'slow', ms: 12, nested: { a: [1] } },
      { severity: 'warning', message: 'slow', fields: { ms: 12, nested: { a: [1] } } },
    ],
    [
      { level: 30, msg: 'pino' },
      { severity: 'info', message: 'pino', fields: {} },
    ],
    [
      { level: 60, msg: 'pino' },
      { severity: 'critical', message: 'pino', fields: {} },
    ],
    [
      { level: 'warn', event: 'structlog' },
      { severity: 'warning', message: 'structlog', fields: {} },
    ],
    [
      { levelname: 'DEBUG', message: 'x' },
      { severity: 'debug', message: 'x', fields: {} },
    ],
    // What is not understood stays a field.
    [
      { level: 'loud', message: 'x' },
      { severity: 'info', message: 'x', fields: { level: 'loud' } },
    ],
    [{ message: 7 }, { severity: 'info', message: '{"message":7}', fields: { message: 7 } }],
  ];
  for (const [line, read] of found)
    assert.deepEqual(readLine(JSON.stringify(line), 'stdout'), read);
});
