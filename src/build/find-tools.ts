/**
 * Finds the programs that builds run: npm, Python, esbuild, Go. Looks only, runs nothing; done once at
 * start. A tool that the functions' users cannot reach counts as absent, because the build runs as
 * them.
 */
import { accessSync, constants, realpathSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

export interface BuildTools {
  /** The Node that runs npm and install scripts. */
  node: string;
  /** npm's `npm-cli.js`. Absent tools make a build that needs them fail with BUILD_TOOL_MISSING. */
  npmCli: string | undefined;
  python: string | undefined;
  esbuild: string | undefined;
  go: string | undefined;
}

export interface FindToolsOptions {
  /** Directories separated by ':', as in PATH. */
  path: string;
  /** Whether the users that builds run as can reach a file; see `isReachableByAll`. */
  reachable: (file: string) => boolean;
  node: string;
  /** npm's own `npm_execpath`, tried before the path. */
  npmExecPath?: string;
}

export function findTools(options: FindToolsOptions): BuildTools {
  return {
    node: options.node,
    npmCli: findNpm(options),
    python: findPython(options),
    esbuild: findEsbuild(),
    go: findGo(options),
  };
}

/** The native binary that npm installed with esbuild for this machine. */
export function findEsbuild(): string | undefined {
  try {
    // It is a dependency of esbuild, not of ours, so it is resolved from there.
    const here = createRequire(import.meta.url);
    const there = createRequire(here.resolve('esbuild'));
    return there.resolve(`@esbuild/${process.platform}-${process.arch}/bin/esbuild`);
  } catch {
    return undefined;
  }
}

/** Whether any user can read (and for a program run) the file: for a gateway that runs as root. */
export function isReachableByAll(file: string): boolean {
  try {
    const isProgram = (statSync(file).mode & 0o111) !== 0;
    const wanted = isProgram ? 0o005 : 0o004;
    if ((statSync(file).mode & wanted) !== wanted) return false;
    for (let above = path.dirname(file); ; above = path.dirname(above)) {
      if ((statSync(above).mode & 0o001) === 0) return false;
      if (above === path.dirname(above)) return true;
    }
  } catch {
    return false;
  }
}

function findNpm({ path: directories, reachable, node, npmExecPath }: FindToolsOptions) {
  const candidates = [
    ...(npmExecPath === undefined ? [] : [npmExecPath]),
    ...searchPath(directories).map(directory => path.join(directory, 'npm')),
    // Beside the Node given, where its own distribution has it.
    path.resolve(path.dirname(node), '../lib/node_modules/npm/bin/npm-cli.js'),
  ];
  for (const candidate of candidates) {
    const real = realFile(candidate);
    // A wrapper script called npm may start another Node; only npm itself is taken.
    if (real?.endsWith('/npm-cli.js') && reachable(real)) return real;
  }
  return undefined;
}

function findPython({ path: directories, reachable }: FindToolsOptions): string | undefined {
  for (const directory of searchPath(directories)) {
    const candidate = path.join(directory, 'python3');
    const real = realFile(candidate);
    if (real === undefined || !isExecutable(real)) continue;
    // The name as found is kept: a virtual environment is known by it.
    if (reachable(candidate) && reachable(real)) return candidate;
  }
  return undefined;
}

/** Where its own distribution is unpacked counts too: a gateway's PATH often leaves it out. */
function findGo({ path: directories, reachable }: FindToolsOptions): string | undefined {
  for (const directory of [...searchPath(directories), '/usr/local/go/bin']) {
    const real = realFile(path.join(directory, 'go'));
    if (real !== undefined && isExecutable(real) && reachable(real)) return real;
  }
  return undefined;
}

/**
 * Relative and empty entries would mean the current directory, which is no place to find a tool.
 */
function searchPath(directories: string): string[] {
  return directories.split(path.delimiter).filter(directory => path.isAbsolute(directory));
}

function realFile(file: string): string | undefined {
  try {
    const real = realpathSync(file);
    return statSync(real).isFile() ? real : undefined;
  } catch {
    return undefined;
  }
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
