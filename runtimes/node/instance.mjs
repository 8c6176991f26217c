/**
 * What makes a generic process an instance of one version: its user, its environment, its code. In this order, so that
 * nothing of a user's runs as anybody else.
 */
import { pathToFileURL } from 'node:url';
import { useHandler } from './calls.mjs';
import { findHandler, locateSyntaxError, problemOf } from './handler.mjs';
import { endFlag } from './link.mjs';
import { keepModulesIn, usesFramework } from './modules.mjs';

/** LOAD may come in parts: the first in a frame of its own, the rest as DATA outside of any call. */
export class LoadText {
  #parts = [];

  /** @returns {string | undefined} all of it, once the last part is there */
  add(flags, chunk, start, end) {
    this.#parts.push(chunk.toString('latin1', start, end));
    if ((flags & endFlag) === 0) return undefined;
    // Only whole is it text: a part may end within a character.
    return Buffer.from(this.#parts.join(''), 'latin1').toString('utf8');
  }
}

/**
 * @param {string} text what LOAD says, as JSON
 * @param {import('./link.mjs').Link} [link] for a last answer of an instance that ends
 * @returns {Promise<{ style: 'web' | 'event' | 'framework' } | { problem: object }>} the problem as LOAD_FAILED has it
 */
export async function becomeInstance(text, link) {
  const settings = JSON.parse(text);
  try {
    takeIdentity(settings);
    takeEnvironment(settings.env);
    process.chdir(settings.directory);
  } catch (error) {
    const message = `cannot become the function's user: ${error.message}`;
    return { problem: { reason: 'identity', message } };
  }
  const entry =
    pathToFileURL(`${settings.directory}/${settings.entry}`).href + (settings.query ?? '');
  keepModulesIn(settings.directory, entry);
  let module;
  try {
    module = await import(entry);
  } catch (error) {
    const problem = problemOf(error, settings);
    const isLost = problem.reason === 'syntax' && problem.line === undefined;
    return { problem: isLost ? locateSyntaxError(problem, entry, settings) : problem };
  }
  const found = (await isOfFramework(settings))
    ? await loadFramework(module, settings, link)
    : findHandler(module, settings);
  if (found.problem !== undefined) return found;
  useHandler(found.style, found.handle, settings);
  return { style: found.style };
}

/** As its definition or its package.json says, which the gateway has read; or because its code registers a function. */
async function isOfFramework({ signature, env }) {
  if ((signature ?? env.FUNCTION_TARGET ?? env.FUNCTION_SIGNATURE_TYPE) !== undefined) return true;
  if (!usesFramework()) return false;
  const { registeredNames } = await import('./framework/registry.mjs');
  return registeredNames().length > 0;
}

/** Not with the rest: most functions never need it. */
async function loadFramework(module, settings, link) {
  try {
    const { frameworkStyle } = await import('./framework/style.mjs');
    return frameworkStyle(module, settings, link);
  } catch (error) {
    return { problem: problemOf(error, settings) };
  }
}

function takeIdentity({ uid, gid }) {
  if (uid === undefined) return;
  process.setgid(gid);
  process.setuid(uid);
}

function takeEnvironment(env) {
  const gateway = process.env.FNWAY_GATEWAY;
  for (const key of Object.keys(process.env)) delete process.env[key];
  Object.assign(process.env, env, { FNWAY_GATEWAY: gateway });
}
