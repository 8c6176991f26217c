/** Goal: an error says what, why and what to do, and a mistake of ours says nothing of itself. Method: examples. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { errorCodes } from '../client/errors.ts';
import { errorKinds, GatewayError, toProblem } from './errors.ts';

test('every code has a status of its class, a title and a remedy', () => {
  for (const code of errorCodes) {
    const { status, title, remedy } = errorKinds[code];
    assert.ok(status >= 400 && status <= 599 && title.length > 3 && remedy.length > 5, code);
  }
});

test('a problem carries code, detail, remedy, issues and the request id', () => {
  const error = new GatewayError('DEFINITION_INVALID', 'bad', {
    issues: [{ path: 'a', message: 'b' }],
  });
  const { type, code, status, detail, requestId, issues, remedy } = toProblem(error, 'req_1');
  assert.deepEqual(
    [type, code, status, detail, requestId],
    ['urn:fnway:error:DEFINITION_INVALID', 'DEFINITION_INVALID', 422, 'bad', 'req_1'],
  );
  assert.deepEqual(issues, [{ path: 'a', message: 'b' }]);
  assert.equal(remedy, errorKinds.DEFINITION_INVALID.remedy);
});

test('anything else is INTERNAL and does not say what it was', () => {
  const problem = toProblem(new Error('password=hunter2'), 'req_1');
  assert.equal(problem.code, 'INTERNAL');
  assert.ok(!JSON.stringify(problem).includes('hunter2'));
});
