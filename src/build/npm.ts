/**
 * Installs the dependencies of package.json beside the code, with npm. Install scripts are off
 * unless the definition allows them; a lockfile is followed to the letter. A mistake in
 * package.json is a value.
 */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import type { VersionFailure } from '../domain/function.ts';
import type { BuildTools } from './find-tools.ts';
import type { ToolOutcome, ToolRunner } from './tool.ts';

export interface InstallOptions {
  runner: ToolRunner;
  tools: BuildTools;
  /** Relative to the runner's directory. */
  dependenciesFile: string;
  allowScripts: boolean;
}

export async function installWithNpm(options: InstallOptions): Promise<VersionFailure | undefined> {
  const { runner, tools, dependenciesFile: file, allowScripts } = options;
  const text = await readFile(path.join(runner.directory, file), 'utf8').catch(error => {
    if (error.code === 'EISDIR') return undefined;
    throw error;
  });
  if (text === undefined)
    return { code: 'BUILD_FAILED', message: `${file} is a directory, not a file`, file };
  const names = parseDependencies(text, file);
  if (!Array.isArray(names)) return names;
  if (names.length === 0) return undefined;
  if (tools.npmCli === undefined) return npmMissing('npm is not installed');

  const locked = ['package-lock.json', 'npm-shrinkwrap.json'].some(name =>
    existsSync(path.join(runner.directory, name)),
  );
  const outcome = await runner.run(
    tools.node,
    [
      tools.npmCli,
      ...(locked ? ['ci'] : ['install', '--no-package-lock']),
      '--omit=dev',
      '--no-audit',
      '--no-fund',
      '--no-progress',
      '--no-update-notifier',
      // Always said, so that neither an .npmrc nor the environment decides it.
      allowScripts ? '--no-ignore-scripts' : '--ignore-scripts',
    ],
    { home: true },
  );
  if (outcome.kind === 'not-started') {
    return npmMissing(`${tools.node} cannot be run (${outcome.errno})`);
  }
  if (outcome.status === 0) return undefined;
  return npmFailure(outcome, { file, text, names, npmCli: tools.npmCli });
}

/** The names that npm would install without dev; or what is wrong with the file. */
export function parseDependencies(text: string, file: string): string[] | VersionFailure {
  let content: unknown;
  try {
    // npm drops a byte order mark as well.
    content = JSON.parse(text.replace(/^\uFEFF/, ''));
  } catch (error) {
    const { message } = error as Error;
    const at = /\(line (\d+) column (\d+)\)/.exec(message);
    const position = at === null ? {} : { line: Number(at[1]), column: Number(at[2]) };
    return { code: 'BUILD_FAILED', message: `${file} is not JSON: ${message}`, file, ...position };
  }
  if (!isObject(content)) {
    return { code: 'BUILD_FAILED', message: `${file} is not a JSON object`, file };
  }
  const names: string[] = [];
  for (const key of ['dependencies', 'optionalDependencies']) {
    const section = content[key];
    if (section === undefined) continue;
    if (!isObject(section)) {
      const message = `"${key}" in ${file} is not an object of names and versions`;
      return { code: 'BUILD_FAILED', message, file };
    }
    names.push(...Object.keys(section));
  }
  return names;
}

function npmMissing(reason: string): VersionFailure {
  const message =
    `package.json has dependencies, but ${reason}. ` +
    'Install Node.js with npm on the machine of the gateway, readable for all users.';
  return { code: 'BUILD_TOOL_MISSING', message };
}

function npmFailure(
  outcome: Extract<ToolOutcome, { kind: 'exited' }>,
  { file, text, names, npmCli }: { file: string; text: string; names: string[]; npmCli: string },
): VersionFailure {
  if (outcome.output.includes(`Cannot find module '${npmCli}'`)) {
    return npmMissing(`${npmCli} cannot be read by the function's user`);
  }
  const lines: string[] = [];
  for (const line of outcome.output.split('\n')) {
    const said = /^npm (?:error|ERR!) ?(.*)$/.exec(line)?.[1]?.trim();
    // npm says a missing package in three ways; the first names the address.
    if (said && /^404 (?:The requested|Note that|or )|^404$/.test(said)) continue;
    if (said && !/^(?:code|errno|syscall|path|dest) |complete log of this run/.test(said)) {
      lines.push(said);
    }
  }
  const ended = outcome.signal ?? `status ${outcome.status}`;
  const detail = lines.slice(0, 4).join(' ').slice(0, 500) || `npm ended with ${ended}`;
  const culprit = names.find(name => lines.some(line => mentions(line, name)));
  const line = culprit === undefined ? undefined : lineOf(text, `"${culprit}"`);
  return {
    code: 'BUILD_FAILED',
    message: `npm could not install the dependencies: ${detail}`,
    file,
    ...(line !== undefined && { line }),
  };
}

/** `name@…` or a registry's address of it, not a name that merely contains it. */
function mentions(line: string, name: string): boolean {
  const encoded = name.replace('/', '%2f');
  return [` ${name}@`, `'${name}@`, `/${name} `, `/${encoded} `].some(form =>
    `${line} `.includes(form),
  );
}

function lineOf(text: string, part: string): number | undefined {
  const at = text.indexOf(part);
  return at < 0 ? undefined : text.slice(0, at).split('\n').length;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return value !== null && typeof value === 'object' && !Array.isArray(value);
}
