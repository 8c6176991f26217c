/**
 * Where the modules of a function come from. Its packages: from its own version, and from what the gateway puts beside all
 * functions. Node looks in every directory above as well, where a project that holds the data directory has packages of
 * its own: code that found those would run here and fail elsewhere. The functions framework is ours. Its entry, when compiled: read here, because the
 * gateway wrote it and Node's own way to a file costs a cold call twice as much.
 */
import { readFileSync } from 'node:fs';
import { registerHooks } from 'node:module';
import { dirname } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const frameworkName = '@google-cloud/functions-framework';
const frameworkUrl = new URL('./framework/functions-framework.mjs', import.meta.url).href;

let root;
let compiledEntry;
let isFrameworkUsed = false;

/** Whether code has asked for the functions framework. */
export function usesFramework() {
  return isFrameworkUsed;
}

/** Set up before LOAD, because the first resolution through a hook takes its time. */
export function watchModules() {
  registerHooks({ resolve, load });
}

/**
 * Says whose modules are loaded from here on.
 * @param {string} directory of a version, without symbolic links: two levels below the directory of all functions
 * @param {string} entry the address of its entry file
 */
export function keepModulesIn(directory, entry) {
  root = `${pathToFileURL(dirname(dirname(directory))).href}/`;
  compiledEntry = /\.fnway\.mjs(?:\?|$)/.test(entry) ? entry : undefined;
}

function resolve(specifier, context, next) {
  if (specifier === compiledEntry) return { url: specifier, format: 'module', shortCircuit: true };
  if (specifier === frameworkName) {
    isFrameworkUsed = true;
    return { url: frameworkUrl, format: 'module', shortCircuit: true };
  }
  const found = next(specifier, context);
  // Only names are looked up; and whoever sets NODE_PATH has said where.
  if (root === undefined || !isName(specifier) || process.env.NODE_PATH) return found;
  if (!found.url.startsWith('file:') || found.url.startsWith(root)) return found;
  const error = new Error(`Cannot find package '${specifier}' imported from ${context.parentURL}`);
  error.code = 'ERR_MODULE_NOT_FOUND';
  throw error;
}

function load(url, context, next) {
  if (url !== compiledEntry) return next(url, context);
  return { format: 'module', source: readFileSync(fileURLToPath(url)), shortCircuit: true };
}

function isName(specifier) {
  return !/^(?:[./#]|[a-z]+:)/i.test(specifier);
}
