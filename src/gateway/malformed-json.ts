/** V8 names no position for most mistakes in JSON; people want line and column. */
import { firstJsonError } from '../domain/json-error.ts';
import { GatewayError } from '../errors.ts';

export function malformedJson(text: string): GatewayError {
  const { message, line, column } = firstJsonError(text) ?? {
    message: 'not JSON',
    line: 1,
    column: 1,
  };
  const detail = `the body is not JSON: ${message}, at line ${line}, column ${column}`;
  return new GatewayError('JSON_MALFORMED', detail, {
    issues: [{ path: '', message, line, column }],
  });
}
