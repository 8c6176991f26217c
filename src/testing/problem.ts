/** What every refusal of the gateway must look like, whoever reads the answer: fetch, or a test on a raw socket. */
import assert from 'node:assert/strict';
import { type ErrorCode, errorCodes, type Problem } from '../../client/errors.ts';
import { type RawAnswer, utf8Of } from './raw-connection.ts';

/** The problem of an answer, after checking that it is one of this code with all that people need. */
export async function problemOf(
  response: Response,
  expected: { status: number; code: ErrorCode },
  what = '',
): Promise<Problem> {
  const type = response.headers.get('content-type');
  return check({ status: response.status, type, text: await response.text() }, expected, what);
}

/** The same for the answer of a raw connection. */
export function rawProblemOf(
  answer: RawAnswer,
  expected: { status: number; code: ErrorCode },
  what = '',
): Problem {
  const type = answer.headers.get('content-type')?.[0] ?? null;
  return check({ status: answer.status, type, text: utf8Of(answer) }, expected, what);
}

function check(
  answer: { status: number; type: string | null; text: string },
  expected: { status: number; code: ErrorCode },
  what: string,
): Problem {
  const { status, type, text } = answer;
  assert.equal(status, expected.status, `${what} ${text.slice(0, 500)}`);
  assert.match(type ?? '', /^application\/problem\+json\b/, what);
  const problem = JSON.parse(text) as Problem;
  assert.equal(problem.code, expected.code, `${what} ${text}`);
  assertProblem(problem, status, what);
  return problem;
}

/** Every problem has these, whatever its code. */
export function assertProblem(problem: Problem, status: number, what = ''): void {
  const text = `${what} ${JSON.stringify(problem)}`;
  assert.ok(errorCodes.includes(problem.code), text);
  assert.equal(problem.type, `urn:fnway:error:${problem.code}`, text);
  assert.equal(problem.status, status, text);
  for (const key of ['title', 'detail', 'remedy', 'requestId'] as const)
    assert.ok(typeof problem[key] === 'string' && problem[key] !== '', `${text}: no ${key}`);
}
