/**
 * Makes an instance of code that is written for the functions framework: finds the target among what it registered and
 * what it exports, decides its signature, and gives it the server part (app.mjs). When code is of this style:
 * docs/guides/cloud-functions.md.
 */
import { createRequire } from 'node:module';
import { sourceName } from '../handler.mjs';
import { createApp } from './app.mjs';
import { answerWith } from './exchange.mjs';
import { endInstanceOnUncaught } from './failure.mjs';
import { registered, registeredNames } from './registry.mjs';

/** The framework's own name for a function that nobody names. */
const defaultTarget = 'function';
const signatures = ['http', 'event', 'cloudevent'];

/**
 * @param {any} module what the entry exports
 * @param {any} settings of LOAD
 * @param {{ flush: () => void, end: (fn: () => void) => void }} link written to by an instance that ends
 * @returns {{ style: 'framework', handle: Function } | { problem: object }}
 */
export function frameworkStyle(module, settings, link) {
  const found = findTarget(module, settings);
  if (found.problem !== undefined) return found;
  if (settings.express === undefined) return expressMissing(settings);
  // A gateway that saw the style before it loaded the code has said so in the environment.
  process.env.FUNCTION_TARGET ??= found.target;
  process.env.FUNCTION_SIGNATURE_TYPE ??= found.signature;
  const express = createRequire(import.meta.url)(settings.express);
  const app = createApp(express, found);
  endInstanceOnUncaught(link);
  return { style: 'framework', handle: exchange => answerWith(app, exchange) };
}

function findTarget(module, settings) {
  const target = settings.handler ?? settings.env.FUNCTION_TARGET ?? defaultTarget;
  const signature = settings.signature ?? settings.env.FUNCTION_SIGNATURE_TYPE ?? 'http';
  const own = registered(target);
  if (own !== undefined) return { target, ...own };
  if (!signatures.includes(signature)) {
    return missing(
      `Function signature type must be one of: ${signatures.join(', ')}; it is ${signature}`,
      settings,
    );
  }
  const exports = 'module.exports' in module ? module['module.exports'] : module;
  const handle = target
    .split('.')
    .reduce((holder, part) => (holder === undefined ? undefined : holder?.[part]), exports);
  if (typeof handle === 'function') return { target, signature, handle };
  const what =
    handle === undefined
      ? `Function '${target}' is not defined in the provided module`
      : `'${target}' needs to be of type function. Got: ${typeof handle}`;
  return missing(`${what}; ${choices(exports, settings)}`, settings);
}

/** What could be named instead. */
function choices(exports, settings) {
  const names = [
    ...registeredNames().map(name => `${name} is registered`),
    ...Object.keys(exports ?? {})
      .filter(name => name !== '__esModule' && typeof exports[name] === 'function')
      .map(name => `${name} is exported`),
  ];
  const found = names.length === 0 ? 'it registers and exports no function' : names.join(', ');
  return `${found}. Name one: entry: ${sourceName(settings.entry)}:NAME, or FUNCTION_TARGET in env`;
}

function missing(message, settings) {
  return { problem: { reason: 'handler-missing', message, file: sourceName(settings.entry) } };
}

function expressMissing(settings) {
  const message =
    'a function is registered with @google-cloud/functions-framework, which this source does not name; ' +
    'add it to package.json, or set signature';
  return missing(message, settings);
}
