/**
 * What a call means to a function that is an operation: a script whose arguments are keys of the JSON body, or a server
 * that takes and answers a flat map of strings. Pure. A mistake in the input is a GatewayError that names the key.
 */
import type { Issue } from '../../client/errors.ts';
import { GatewayError } from '../errors.ts';
import type { VersionSpec } from './function.ts';
import { firstJsonError } from './json-error.ts';

/** Limits of operations; each is in docs/reference/limits.md and has a test. */
export const operationLimits = {
  /** The kernel takes 128 KiB of a single argument. */
  argumentsBytesMax: 100_000,
  answerBytesMax: 2 * 1024 ** 2,
} as const;

/** Issues told of one input. */
const issuesMax = 20;

/** Literal arguments, then the values of `argKeys` in order. */
export function argumentsOf(spec: VersionSpec, body: Uint8Array): string[] {
  const { args = [], argKeys = [] } = spec;
  if (argKeys.length === 0) return [...args];
  const input = parseInput(body);
  const issues: Issue[] = [];
  const values = argKeys.map(key => {
    const value = Object.hasOwn(input, key) ? input[key] : undefined;
    const message = argumentProblem(value);
    if (message !== undefined) issues.push({ path: key, message });
    return String(value);
  });
  if (issues.length > 0) throw invalid(issues);
  const bytes = values.reduce((sum, value) => sum + Buffer.byteLength(value), 0);
  if (bytes > operationLimits.argumentsBytesMax) {
    const message = `the arguments take ${bytes} bytes; ${operationLimits.argumentsBytesMax} are allowed`;
    throw invalid([{ path: argKeys.join(', '), message }]);
  }
  return [...args, ...values];
}

function argumentProblem(value: unknown): string | undefined {
  if (value === undefined) return 'is missing, and the script takes it as an argument';
  if (!(value instanceof NumberText) && (value === null || typeof value === 'object'))
    return `expected text, a number, true or false, not ${kindOf(value)}`;
  return String(value).includes('\0') ? 'a NUL byte cannot be in an argument' : undefined;
}

/** Refuses a body that is not a flat map of strings; an empty one is an empty map. The bytes to send. */
export function stringMapBody(body: Uint8Array): Uint8Array {
  if (body.length === 0) return Buffer.from('{}');
  const input = parseInput(body);
  const issues = Object.entries(input)
    .filter(([, value]) => typeof value !== 'string')
    .map(([path, value]) => ({ path, message: `expected text, not ${kindOf(value)}` }));
  if (issues.length > 0) throw invalid(issues);
  return body;
}

/** What is wrong with a server's answer, or undefined when it is a flat map of strings. */
export function stringMapProblem(answer: Uint8Array): string | undefined {
  let value: unknown;
  try {
    value = JSON.parse(decoder.decode(answer));
  } catch {
    return 'is not JSON';
  }
  if (!isObject(value)) return `is ${kindOf(value)}, not a map of strings`;
  const wrong = Object.entries(value).find(([, item]) => typeof item !== 'string');
  return wrong === undefined
    ? undefined
    : `has ${kindOf(wrong[1])} as ${JSON.stringify(wrong[0])}, not a string`;
}

/** The answer of a script whose result is JSON. `error` is there when the exit status was not 0. */
export function scriptResult(
  result: NonNullable<VersionSpec['result']>,
  outcome: { output: string; status: string },
): string {
  const prefix = result === 'json' ? '' : `operation.${result.key}.`;
  return JSON.stringify({
    [`${prefix}output`]: outcome.output,
    ...(outcome.status !== 'status 0' && { [`${prefix}error`]: `exit ${outcome.status}` }),
  });
}

/** Whether a script that ended like this has answered. `status` is as `status 3` or `signal SIGKILL`. */
export function isAllowedExit(spec: VersionSpec, status: string): boolean {
  if (status === 'status 0') return true;
  const code = /^status (\d+)$/.exec(status)?.[1];
  if (code === undefined || spec.allowExitCodes === undefined) return false;
  return spec.allowExitCodes === 'any' || spec.allowExitCodes.includes(Number(code));
}

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: false });

function parseInput(body: Uint8Array): Record<string, unknown> {
  let value: unknown;
  let text = '';
  try {
    text = decoder.decode(body);
    value = JSON.parse(text, asWritten);
  } catch {
    throw malformed(text);
  }
  if (isObject(value)) return value;
  const message = `expected a JSON object, not ${kindOf(value)}`;
  throw invalid([{ path: '', message }]);
}

/** Numbers keep their digits: more of them than a number here can have are an id as well as any. */
function asWritten(this: unknown, _key: string, value: unknown, context?: { source?: string }) {
  return typeof value === 'number' && context?.source !== undefined
    ? new NumberText(context.source)
    : value;
}

class NumberText {
  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
  }

  toString(): string {
    return this.#text;
  }
}

function malformed(text: string): GatewayError {
  const error = firstJsonError(text) ?? { message: 'it is not UTF-8', line: 1, column: 1 };
  const { message, line, column } = error;
  const detail = `the body is not JSON: line ${line}, column ${column}: ${message}`;
  return new GatewayError('JSON_MALFORMED', detail, {
    issues: [{ path: '', message, line, column }],
  });
}

function invalid(issues: Issue[]): GatewayError {
  const [first] = issues;
  const more = issues.length > 1 ? ` (and ${issues.length - 1} more)` : '';
  const where = first!.path === '' ? 'the body' : first!.path;
  const detail = `${where}: ${first!.message}${more}`;
  return new GatewayError('INPUT_INVALID', detail, { issues: issues.slice(0, issuesMax) });
}

function isObject(value: unknown): value is Record<string, unknown> {
  return kindOf(value) === 'an object';
}

function kindOf(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'a list';
  if (value instanceof NumberText || typeof value === 'number') return 'a number';
  if (typeof value === 'object') return 'an object';
  return typeof value === 'string' ? 'text' : 'true or false';
}
