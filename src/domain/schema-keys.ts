/** Which keys a schema knows: for whoever tells people that they wrote another. Pure. */

import type { z } from 'zod';

/** The keys that an object of the schema may have at a path. */
export function keysAt(schema: z.ZodType, path: readonly PropertyKey[]): string[] {
  let current: unknown = schema;
  for (const step of path) current = shapeOf(current)?.[String(step)] ?? elementOf(current);
  return Object.keys(shapeOf(current) ?? {});
}

/** Of a list. */
function elementOf(schema: unknown): unknown {
  return (schema as { element?: unknown } | undefined)?.element;
}

function shapeOf(schema: unknown): Record<string, unknown> | undefined {
  let current = schema as
    | { shape?: Record<string, unknown>; unwrap?: () => unknown; options?: unknown[]; in?: unknown }
    | undefined;
  for (let i = 0; i < 8 && current !== undefined; i++) {
    if (current.shape !== undefined) return current.shape;
    if (current.options !== undefined)
      return Object.assign({}, ...current.options.map(option => shapeOf(option) ?? {}));
    current = (current.unwrap?.() ?? current.in) as typeof current;
  }
  return undefined;
}
