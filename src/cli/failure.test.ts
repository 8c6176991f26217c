/** Goal: whatever answers in a gateway's place, a command tells it and harms no terminal. Method: problems by hand. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Problem } from '../../client/errors.ts';
import { problemLines } from './failure.ts';
import { Output, printable } from './output.ts';

const problem = { title: 'T', status: 500, code: 'INTERNAL', detail: 'd', remedy: 'r' } as Problem;

test('issues that are none are left out', () => {
  for (const issues of [5, 'x', {}, [null, 5, {}, 'x']]) {
    const { why } = problemLines({ ...problem, issues } as unknown as Problem);
    assert.deepEqual(why, ['d'], JSON.stringify(issues));
  }
});

test('fields of another kind are told as well as they can be', () => {
  const odd = { title: 5, detail: {}, remedy: 7, log: 'x' } as unknown as Problem;
  const { title, why, next } = problemLines({ ...problem, ...odd });
  assert.deepEqual([title, why, next], ['5', ['[object Object]'], undefined]);
});

test('what a terminal would obey is not printed', () => {
  assert.equal(printable('a\tb\nc é 日'), 'a\tb\nc é 日');
  assert.equal(printable('\x1b]0;mine\x07\x1b[2J\x9b2J'), '\ufffd]0;mine\ufffd\ufffd[2J\ufffd2J');
  let text = '';
  const stream = { write: (part: string) => (text += part) };
  const out = new Output({ json: false, stdout: stream, stderr: stream, env: {} });
  out.problem({ ...problem, detail: 'cannot parse \x1b[2J', log: ['\x1b[31m'] });
  assert.equal(text.includes('\x1b'), false);
});
