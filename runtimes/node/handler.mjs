/**
 * Finds the handler among a module's exports and puts a user's mistakes into words, with file and line.
 *
 * Styles: `web` takes (Request, context) and returns a Response; `event` takes (event, context) and returns
 * `{ statusCode, headers, body }` or a value. The default export and `{ fetch }` are web; an export whose name starts
 * with `handle` is event; any other named export is web.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

export function findHandler(module, settings) {
  const name = settings.handler;
  const exported = exportsOf(module);
  if (name !== undefined) {
    const value = exported[name];
    if (value === undefined)
      return missing(`${sourceName(settings.entry)} exports no ${name}`, exported, settings);
    return callable(value, name) ?? missing(`${name} is not a function`, exported, settings);
  }
  for (const candidate of ['default', 'fetch', 'handle', 'handler']) {
    const value = exported[candidate];
    if (value === undefined) continue;
    const found = callable(value, candidate);
    if (found !== undefined) return found;
  }
  return missing('no default export and no export named handle', exported, settings);
}

function callable(value, name) {
  if (typeof value === 'function')
    return { style: name.startsWith('handle') ? 'event' : 'web', handle: value };
  if (value !== null && typeof value === 'object' && typeof value.fetch === 'function') {
    return { style: 'web', handle: (request, context) => value.fetch(request, context) };
  }
  return undefined;
}

/** CommonJS exports arrive as the default export: look through it. */
function exportsOf(module) {
  const inner = module.default;
  const looksCommonJs = 'module.exports' in module;
  if (!looksCommonJs) return module;
  if (typeof inner === 'function') return Object.assign({ default: inner }, inner);
  return { ...inner };
}

function missing(what, exported, settings) {
  const names = Object.keys(exported).filter(
    key => key !== 'module.exports' && key !== '__esModule',
  );
  const found = names.length === 0 ? 'it exports nothing' : `it exports ${names.join(', ')}`;
  return {
    problem: {
      reason: 'handler-missing',
      message: `${what}; ${found}. Write \`export default (request) => new Response('hi')\`, or name one: entry: ${sourceName(settings.entry)}:NAME`,
      file: sourceName(settings.entry),
    },
  };
}

const missingModule = new Set([
  'ERR_MODULE_NOT_FOUND',
  'MODULE_NOT_FOUND',
  'ERR_UNSUPPORTED_DIR_IMPORT',
]);

/** What went wrong while the user's module was loaded, or in a handler. */
export function problemOf(error, settings) {
  const stack = textOf(() => error?.stack);
  const message =
    textOf(() => error?.message) ?? textOf(() => String(error)) ?? '[a value without text]';
  const className = textOf(() => error?.constructor?.name) ?? typeof error;
  // Of one that has no class of its own, what it calls itself.
  const type = (className === 'Error' && textOf(() => error.name)) || className;
  const place = placeIn(stack, settings.directory) ?? {};
  const problem = { reason: 'threw', type, message, ...place, stack };
  if (missingModule.has(textOf(() => error?.code))) {
    problem.reason = 'module-missing';
    if (message.includes(`'${settings.directory}/${settings.entry}'`) && place.file === undefined)
      problem.reason = 'entry-missing';
    const importer = / imported from (?:file:\/\/)?(\S+)$/m.exec(message)?.[1];
    if (importer?.startsWith(`${settings.directory}/`))
      problem.file ??= sourceName(importer.slice(settings.directory.length + 1));
    problem.message = explainMissing(message, problem, settings);
  } else if (
    textOf(() => error?.code) === 'ERR_UNKNOWN_FILE_EXTENSION' &&
    message.endsWith(`${settings.directory}/${settings.entry}`)
  ) {
    problem.reason = 'entry-missing';
    problem.file = settings.entry;
    problem.message = `${settings.entry} is neither JavaScript nor TypeScript; is it for another runtime?`;
  } else if (error instanceof SyntaxError) {
    problem.reason = 'syntax';
  }
  return problem;
}

/** Names the user's file and line instead of the compiled one, and what to do about a package that is not there. */
function explainMissing(message, problem, settings) {
  const text = sourceNames(message.replaceAll(`${settings.directory}/`, ''));
  // Node's words for `import`, and for `require`.
  const name =
    /^Cannot find package '([^/'][^']*)' imported from /.exec(message)?.[1] ??
    /^Cannot find module '([^./'][^']*)'\nRequire stack:\n/.exec(message)?.[1];
  if (name === undefined) return text.replace(/\nRequire stack:[\s\S]*$/, '');
  problem.file ??= sourceName(/^- (\S+)$/m.exec(text)?.[1] ?? settings.entry);
  problem.line ??= lineOfImport(name, problem.file, settings.directory);
  return `Cannot find package '${name}' imported from ${problem.file}; add it to package.json`;
}

function lineOfImport(specifier, file, directory) {
  try {
    const lines = readFileSync(`${directory}/${file}`, 'utf8').split('\n');
    const quoted = [`'${specifier}'`, `"${specifier}"`];
    const at = lines.findIndex(line => {
      const place = quoted.map(text => line.indexOf(text)).find(index => index !== -1);
      return place !== undefined && /\b(?:from|import|require)\b[\s(]*$/.test(line.slice(0, place));
    });
    return at === -1 ? undefined : at + 1;
  } catch {
    return undefined;
  }
}

/** Anything can be thrown, also what throws when it is looked at. */
function textOf(read) {
  try {
    const text = read();
    return typeof text === 'string' ? text : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Node keeps the place of a syntax error in an ES module to itself until it prints it: so it is made to. Nothing of the
 * module runs, since it does not parse.
 */
export function locateSyntaxError(problem, url, settings) {
  const args = ['--input-type=module', '-e', `await import(${JSON.stringify(url)})`];
  const { stderr } = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 5000 });
  const match = /^file:\/\/(\/.+):(\d+)$/m.exec(stderr ?? '');
  if (match === null || !match[1].startsWith(`${settings.directory}/`)) return problem;
  return {
    ...problem,
    file: match[1].slice(settings.directory.length + 1),
    line: Number(match[2]),
  };
}

/** The first line of the stack inside the version's directory, not inside its dependencies. */
function placeIn(stack, directory) {
  if (stack === undefined) return undefined;
  const pattern = /(?:file:\/\/)?(\/[^\s():]+):(\d+)(?::(\d+))?/g;
  for (const [, file, line, column] of stack.matchAll(pattern)) {
    if (!file.startsWith(`${directory}/`) || file.includes('/node_modules/')) continue;
    return {
      file: sourceName(file.slice(directory.length + 1)),
      line: Number(line),
      ...(column !== undefined && { column: Number(column) }),
    };
  }
  return undefined;
}

/** `handler.fnway.mjs` was compiled from handler.ts; the user knows the latter. */
export function sourceName(file) {
  return file.replace(/\.fnway\.[mc]js$/, '.ts');
}

function sourceNames(text) {
  return text.replaceAll(/\.fnway\.[mc]js\b/g, '.ts');
}
