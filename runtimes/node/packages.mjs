/**
 * Where the packages of a function may come from: its own version, and what the gateway puts beside all functions. Node
 * looks in every directory above as well, where a project that holds the data directory has packages of its own: code that
 * found those would run here and fail elsewhere.
 */
import { realpathSync } from 'node:fs';
import { registerHooks } from 'node:module';
import { dirname } from 'node:path';
import { pathToFileURL } from 'node:url';

let root;

/** Set up before LOAD, because the first resolution through a hook takes its time. */
export function watchPackages() {
  registerHooks({ resolve });
}

/** @param {string} directory of a version: two levels below the directory of all functions */
export function keepPackagesBeside(directory) {
  // As Node names what it finds: without symbolic links.
  root = `${pathToFileURL(realpathSync(dirname(dirname(directory)))).href}/`;
}

function resolve(specifier, context, next) {
  const found = next(specifier, context);
  // Only names are looked up; and whoever sets NODE_PATH has said where.
  if (root === undefined || !isName(specifier) || process.env.NODE_PATH) return found;
  if (!found.url.startsWith('file:') || found.url.startsWith(root)) return found;
  const error = new Error(`Cannot find package '${specifier}' imported from ${context.parentURL}`);
  error.code = 'ERR_MODULE_NOT_FOUND';
  throw error;
}

function isName(specifier) {
  return !/^(?:[./#]|[a-z]+:)/i.test(specifier);
}
