/** Parses what the control plane is sent: zod's findings in our words, with the path of each field. */
import type { z } from 'zod';
import type { ErrorCode, Issue } from '../../client/errors.ts';
import { keysAt } from '../domain/schema-keys.ts';
import { suggest } from '../domain/suggest.ts';
import { GatewayError } from '../errors.ts';

/** Deeper, nothing is looked for: no definition goes there. */
const pathCharsMax = 2000;
/** Issues in one answer. */
const issuesMax = 20;

/** The value as its type, or a GatewayError whose issues name every field that is wrong. */
export function parse<T extends z.ZodType>(
  schema: T,
  value: unknown,
  code: ErrorCode,
): z.output<T> {
  const lost = lostKey(value);
  if (lost !== undefined) {
    const message = 'the name __proto__ cannot be used';
    throw new GatewayError(code, `${lost}: ${message}`, { issues: [{ path: lost, message }] });
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const found = result.error.issues;
  // A caller mends the first few; explaining thousands would cost more than the request.
  const issues = found
    .slice(0, issuesMax)
    .flatMap(issue => explain(issue, schema))
    .slice(0, issuesMax);
  const first = issues[0]!;
  const hint = first.hint === undefined ? '' : `; ${first.hint}`;
  const others = Math.max(found.length, issues.length) - 1;
  const more = others > 0 ? ` (and ${others} more)` : '';
  const where = first.path === '' ? '' : `${first.path}: `;
  throw new GatewayError(code, `${where}${first.message}${hint}${more}`, { issues });
}

/** The path of a key that zod would drop from a record without a word. At the top it is an unknown key like others. */
function lostKey(value: unknown): string | undefined {
  // A list of our own: a body may be nested deeper than calls can be.
  const open = [{ value, path: '' }];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    if (next.value === null || typeof next.value !== 'object') continue;
    for (const [key, inner] of Object.entries(next.value)) {
      const path = next.path === '' ? key : `${next.path}.${key}`;
      if (key === '__proto__' && next.path !== '') return path;
      if (path.length <= pathCharsMax) open.push({ value: inner, path });
    }
  }
  return undefined;
}

function explain(issue: z.core.$ZodIssue, schema: z.ZodType): Issue[] {
  const path = issue.path.join('.');
  if (issue.code === 'unrecognized_keys') {
    const known = keysAt(schema, issue.path);
    return issue.keys.slice(0, issuesMax).map(key => {
      const near = suggest(key, known);
      return {
        path: path === '' ? key : `${path}.${key}`,
        message: 'unknown key',
        hint: near === undefined ? `known are ${known.join(', ')}` : `did you mean ${near}?`,
      };
    });
  }
  if (issue.code === 'invalid_union' && issue.errors.length > 0) {
    // The alternative that fits best speaks for all: the one with the fewest complaints.
    const best = [...issue.errors].sort((a, b) => a.length - b.length)[0]!;
    return best.flatMap(inner =>
      explain({ ...inner, path: [...issue.path, ...inner.path] } as z.core.$ZodIssue, schema),
    );
  }
  if (issue.code === 'invalid_key') {
    return [{ path, message: issue.issues[0]?.message ?? issue.message }];
  }
  return [{ path, message: issue.message }];
}
