/**
 * What function code gets for `@google-cloud/functions-framework`, by `import` and by `require`, also where its own
 * packages hold the real one: the gateway is the server, so only the registration is left.
 */
import { register } from './registry.mjs';

/** @param {string} name @param {Function} handler takes (req, res) */
export function http(name, handler) {
  register(name, 'http', handler);
}

/** @param {string} name @param {Function} handler takes (event[, callback]) */
export function cloudEvent(name, handler) {
  register(name, 'cloudevent', handler);
}

export default { http, cloudEvent };
