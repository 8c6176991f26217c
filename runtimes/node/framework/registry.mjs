/**
 * The functions that code has registered, by name: what `functions.http` and `functions.cloudEvent` of
 * `@google-cloud/functions-framework` fill. Knows nothing of calls.
 */

/** @type {Map<string, { signature: 'http' | 'cloudevent', handle: Function }>} */
const functions = new Map();

const namePattern = /^[A-Za-z](?:[-_A-Za-z0-9]{0,61}[A-Za-z0-9])?$/;

export function register(name, signature, handle) {
  if (!namePattern.test(name)) throw new Error(`Invalid function name: ${name}`);
  functions.set(name, { signature, handle });
}

export function registered(name) {
  return functions.get(name);
}

export function registeredNames() {
  return [...functions.keys()];
}
