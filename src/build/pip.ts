/**
 * Installs the packages of requirements.txt into `.fnway/python` of the version, with pip, compiled
 * to bytecode (the first call then need not). A source distribution runs its build script on
 * installation, so without allowScripts only wheels are taken. pip's own `--only-binary` holds for
 * packages from an index alone; directories, archives and repositories that the file names are
 * refused here.
 */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import type { VersionFailure } from '../domain/function.ts';
import type { InstallOptions } from './npm.ts';
import { pathProblem } from './source.ts';
import type { ToolOutcome } from './tool.ts';

/**
 * Where the packages go, relative to the version's directory; the Python runtime puts it on its
 * path.
 */
export const pythonPackagesDirectory = '.fnway/python';

/** `added` is installed as well, as if the file named it. */
export async function installWithPip(
  options: InstallOptions & { added?: string },
): Promise<VersionFailure | undefined> {
  const { runner, tools, dependenciesFile: file, allowScripts, added } = options;
  const requirements = await readRequirements(runner.directory, file);
  if (!requirements.some(namesPackage) && added === undefined) return undefined;
  if (!allowScripts) {
    const refused = refusedWithoutScripts(requirements);
    if (refused !== undefined) return refused;
  }
  const missing = (reason: string) => pipMissing(reason, requirements.length > 0 ? file : added!);
  if (tools.python === undefined) return missing('python3 is not installed');

  const outcome = await runner.run(
    tools.python,
    [
      ...['-m', 'pip', 'install', '--target', pythonPackagesDirectory],
      ...['--no-input', '--disable-pip-version-check', '--progress-bar', 'off', '--compile'],
      ...(allowScripts ? [] : ['--only-binary', ':all:']),
      ...(requirements.length > 0 ? ['-r', file] : []),
      ...(added === undefined ? [] : [added]),
    ],
    { home: true },
  );
  if (outcome.kind === 'not-started') {
    return missing(`${tools.python} cannot be run (${outcome.errno})`);
  }
  if (outcome.status === 0) return undefined;
  if (outcome.output.includes('No module named pip')) {
    return missing(`${tools.python} has no pip`);
  }
  return pipFailure(outcome, { file, requirements, allowScripts, added });
}

/** One logical line: without its comment, its continuations joined. */
export interface Requirement {
  file: string;
  line: number;
  text: string;
  /** From a file of constraints, which installs nothing by itself. */
  constraint?: boolean;
  /** Includes a file that is not in the source, so it is not known what it says. */
  outside?: boolean;
}

/** Those of Python's splitlines, which pip uses: what a comment hides from us must be hidden from it. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: these end lines
const lineEnds = /\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/;

/** The lines of a requirements file as pip reads them; comments and empty lines are left out. */
export function parseRequirements(content: string, file: string): Requirement[] {
  const found: Requirement[] = [];
  let open: Requirement | undefined;
  const lines = content.replace(/^\uFEFF/, '').split(lineEnds);
  for (const [index, raw] of lines.entries()) {
    const isComment = /^\s*#/.test(raw);
    const continues = raw.endsWith('\\') && !isComment;
    open ??= { file, line: index + 1, text: '' };
    open.text += continues ? raw.slice(0, -1) : raw;
    if (continues && index < lines.length - 1) continue;
    const text = open.text.replace(/(?:^|\s)#.*$/, '').trim();
    if (text !== '') found.push({ ...open, text });
    open = undefined;
  }
  return found;
}

/**
 * The first line that would run a package's build script, or might: what is not understood is
 * refused.
 */
export function refusedWithoutScripts(requirements: Requirement[]): VersionFailure | undefined {
  for (const { file, line, text, outside } of requirements) {
    const reason = outside
      ? 'includes a file outside of the source, which may run a build script'
      : text.startsWith('-')
        ? optionProblem(text)
        : packageProblem(text);
    if (reason === undefined) continue;
    const message =
      `"${text.slice(0, 200)}" ${reason}. Install scripts are off: ` +
      'use a wheel (.whl) or a released package, or set allowScripts: true.';
    return { code: 'BUILD_FAILED', message, file, line };
  }
  return undefined;
}

/**
 * Exactly pip's forms, one to a line; a line that pip might read in another way is not an include
 * for us.
 */
const includeOption = /^(?:-[rc]\s*|--(?:requirement|constraint)[\s=]\s*)([\w./-]+)$/;

/** Options that change where packages come from, not whether their scripts run. */
const harmlessOptions = new Set([
  ...['-i', '--index-url', '--extra-index-url', '--no-index', '-f', '--find-links'],
  ...['--pre', '--trusted-host', '--prefer-binary', '--require-hashes'],
]);

function optionProblem(text: string): string | undefined {
  // pip reads these as a shell would; we do not, and would see other words than it does.
  if (/["'\\]/.test(text))
    return 'has quotes or backslashes, which may hide an option that runs a build script';
  if (includeOption.test(text)) return undefined;
  const name = /^[^\s=]+/.exec(text)![0];
  if (!harmlessOptions.has(name)) return 'may run a build script';
  // Several options may share a line.
  const rest = text.split(/\s+/).slice(1);
  const other = rest.find(
    word => word.startsWith('-') && !harmlessOptions.has(word.split('=')[0]!),
  );
  return other === undefined ? undefined : `has ${other}, which may run a build script`;
}

const archiveSuffix = /\.(?:zip|tar|tgz|tbz|txz|tlz|tar\.(?:gz|bz2|xz|lz|lzma))$/i;

function packageProblem(text: string): string | undefined {
  // Per-requirement options (--hash is one) come last, an environment marker before them.
  const [spec, ...options] = text.split(/\s(?=--)/) as [string, ...string[]];
  const option = options.find(word => !word.startsWith('--hash'));
  if (option !== undefined) return `has ${option.trim()}, which may run a build script`;
  const target = spec.split(';')[0]!.trim();
  const released = /^([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*(?:\(?\s*[<>=!~].*)?$/.exec(
    target,
  );
  if (released !== null && !archiveSuffix.test(target) && !target.includes('/')) {
    return undefined;
  }
  const address = target.replace(/^[^@\s]+\s*@\s*/, '');
  const isWheel = /^[^\s$]+\.whl(?:#\S*)?$/.test(address) && !/^[a-z]+\+/.test(address);
  return isWheel
    ? undefined
    : 'is not a released package or a wheel and would run its build script';
}

function namesPackage({ text, constraint, outside }: Requirement): boolean {
  if (outside) return true;
  return !constraint && !(text.startsWith('-') && optionProblem(text) === undefined);
}

/** The lines of the file and of those it includes from inside the directory. */
export async function readRequirements(directory: string, first: string): Promise<Requirement[]> {
  const requirements: Requirement[] = [];
  const files = [{ file: first, constraint: false }];
  const seen = new Set<string>();
  // Grows while it is walked.
  for (const { file, constraint } of files) {
    // A file that is missing is for pip to complain about.
    const content = await readFile(path.join(directory, file), 'utf8').catch(() => '');
    for (const requirement of parseRequirements(content, file)) {
      const included = includeOption.exec(requirement.text)?.[1];
      const name = included && path.posix.join(path.posix.dirname(file), included);
      const outside =
        name !== undefined && (included!.startsWith('/') || pathProblem(name) !== undefined);
      requirements.push({ ...requirement, constraint, outside });
      if (name === undefined || outside) continue;
      const next = { file: name, constraint: constraint || /^--?c/.test(requirement.text) };
      // One file may be both: its lines then install as well.
      if (!seen.has(`${next.constraint} ${name}`)) files.push(next);
      seen.add(`${next.constraint} ${name}`);
    }
  }
  return requirements;
}

function pipMissing(reason: string, wanted: string): VersionFailure {
  const message =
    `${wanted} has to be installed, but ${reason}. ` +
    'Install Python 3 with pip on the machine of the gateway, readable for all users.';
  return { code: 'BUILD_TOOL_MISSING', message };
}

function pipFailure(
  outcome: Extract<ToolOutcome, { kind: 'exited' }>,
  context: {
    file: string;
    requirements: Requirement[];
    allowScripts: boolean;
    added: string | undefined;
  },
): VersionFailure {
  const errors = outcome.output
    .split('\n')
    .filter(line => line.startsWith('ERROR: '))
    // Of hundreds of versions that there are, the last ones tell enough.
    .map(line =>
      line
        .slice('ERROR: '.length)
        .trim()
        .replace(/\(from versions: (?:.*, )?((?:[^,]+, ){4}[^,)]+)\)/, '(there are … $1)'),
    );
  const ended = outcome.signal ?? `status ${outcome.status}`;
  const detail = errors.slice(0, 3).join(' ').slice(0, 500) || `pip ended with ${ended}`;
  const hint =
    !context.allowScripts && detail.includes('No matching distribution')
      ? ' Install scripts are off, so only wheels are taken; allowScripts: true takes others too.'
      : '';
  return {
    code: 'BUILD_FAILED',
    message: `pip could not install the requirements: ${detail}${hint}${addedHint(context)}`,
    ...(context.requirements.length > 0 && placeOf(detail, context)),
  };
}

function addedHint({ added, file }: { added: string | undefined; file: string }): string {
  if (added === undefined) return '';
  return ` ${added} was added for the function's style; name the version that fits in ${file}.`;
}

/** Where the requirement stands that pip complains about. */
function placeOf(
  detail: string,
  { file, requirements }: { file: string; requirements: Requirement[] },
): { file: string; line?: number } {
  const named = /\(from line (\d+) of ([^)]+)\)/.exec(detail);
  if (named !== null) return { file: named[2]!, line: Number(named[1]) };
  const wanted = /(?:requirement|found for) ([A-Za-z0-9][A-Za-z0-9._-]*)/.exec(detail)?.[1];
  const found = requirements.find(
    ({ text }) => wanted !== undefined && text.toLowerCase().startsWith(wanted.toLowerCase()),
  );
  return found === undefined ? { file } : { file: found.file, line: found.line };
}
