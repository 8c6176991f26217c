/**
 * Goal: the head of a call says what its text says, whatever was remembered of the one before. Method: sequences of heads
 * with repeats, in the gateway's order of headers and in others, against splitting each.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { CallHead } from './call-head.mjs';
import { originOf } from './web/request.mjs';

const anyValue = fc.constantFrom<string>('', 'a', 'b.example', 'https');
const anyName = fc.constantFrom<string>(
  'Host',
  'X-Forwarded-Host',
  'X-Forwarded-Proto',
  'x-call-id',
  'A',
);
const anyPairs = fc.array(fc.tuple(anyName, anyValue), { maxLength: 6 }).map(all => all.flat());
const own = ['X-Call-Id', 'call', 'Traceparent', 'trace'];
const anyHeaders = fc.oneof(
  anyPairs.map(pairs => [...own, ...pairs]),
  anyPairs,
  anyPairs.map(pairs => [...pairs, ...own]),
  anyPairs.map(pairs => [...own.slice(0, 2), ...pairs]),
);

test('a head is what its text says, whatever came before', () => {
  fc.assert(
    fc.property(fc.array(anyHeaders, { minLength: 1, maxLength: 12 }), calls => {
      for (const headers of calls) {
        for (let time = 0; time < 2; time++) {
          const text = ['PUT', '/a?b', 'inv_1', '250', ...headers].join('\0');
          const head = new CallHead(text);
          const { method, target, id, timeoutMs } = head;
          assert.deepEqual([method, target, id, timeoutMs], ['PUT', '/a?b', 'inv_1', 250]);
          assert.deepEqual(head.headers, headers);
          assert.equal(head.origin, originOf(headers));
          // What a handler does to its headers is nothing to the next call.
          head.headers.fill('changed');
        }
      }
    }),
    { numRuns: 300 },
  );
});
