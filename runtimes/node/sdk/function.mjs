/**
 * What function code may import as `fnway/function`, put into every version by the node runtime, so that it needs no
 * install. Types for editors are in the npm package `fnway` (sdk/function.ts).
 */

/**
 * Gives the handler its types and changes nothing: `export default defineFunction(request => new Response('hi'))`.
 * @template T
 * @param {T} handler
 * @returns {T}
 */
export function defineFunction(handler) {
  return handler;
}

/** One JSON line on standard output: severity, message and fields. */
function entry(severity, message, fields) {
  process.stdout.write(`${JSON.stringify({ severity, message, ...fields })}\n`);
}

export const log = {
  /** @param {string} message @param {Record<string, unknown>} [fields] */
  info: (message, fields) => entry('INFO', message, fields),
  /** @param {string} message @param {Record<string, unknown>} [fields] */
  warn: (message, fields) => entry('WARNING', message, fields),
  /** @param {string} message @param {Record<string, unknown>} [fields] */
  error: (message, fields) => entry('ERROR', message, fields),
};
