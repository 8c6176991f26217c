/**
 * The runtimes of this gateway: reads template directories, and puts them where the users of functions can reach
 * them. When the gateway is root that is a copy under the reachable directory, with a hard link of the Node binary;
 * else the directories themselves.
 */
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { parse as parseYaml } from 'yaml';
import { type Runtime, runtimeSchema } from '../../domain/runtime.ts';
import { GatewayError } from '../../errors.ts';

/** The runtime of functions that are given as `script`. */
export const scriptRuntime = 'shell';

/** The runtime whose functions of the functions framework answer through Express. */
export const nodeRuntime = 'node';

export interface Interpreters {
  node: string;
  /** Undefined when the machine has none that a function's user could run. */
  python: string | undefined;
}

/**
 * Reads every directory below the given ones that holds a runtime.yaml (or is one itself). A later one of the
 * same name replaces an earlier one, so a user's `--runtimes` wins.
 */
export function readRuntimes(directories: readonly string[]): Map<string, Runtime> {
  const runtimes = new Map<string, Runtime>();
  for (const directory of directories) {
    for (const candidate of runtimeDirectories(directory)) {
      const runtime = readRuntime(candidate);
      runtimes.set(runtime.name, runtime);
    }
  }
  return runtimes;
}

function runtimeDirectories(directory: string): string[] {
  if (existsSync(join(directory, 'runtime.yaml'))) return [directory];
  let entries: string[];
  try {
    entries = readdirSync(directory);
  } catch (cause) {
    throw new GatewayError(
      'RUNTIME_INVALID',
      `the directory of runtimes ${directory} cannot be read; it is one that holds a directory for each runtime`,
      { cause },
    );
  }
  return entries
    .map(entry => join(directory, entry))
    .filter(path => existsSync(join(path, 'runtime.yaml')));
}

function readRuntime(directory: string): Runtime {
  const file = join(directory, 'runtime.yaml');
  let value: unknown;
  try {
    value = parseYaml(readFileSync(file, 'utf8'));
  } catch (cause) {
    throw new GatewayError('RUNTIME_INVALID', `${file} is not YAML: ${(cause as Error).message}`, {
      cause,
    });
  }
  const result = runtimeSchema.safeParse(value);
  if (!result.success) {
    const what = result.error.issues
      .map(issue => `${issue.path.join('.') || 'file'}: ${issue.message}`)
      .join('; ');
    throw new GatewayError('RUNTIME_INVALID', `${file}: ${what}`);
  }
  return { ...result.data, directory };
}

/** Copies runtimes and the Node binary to where every user can reach them. Idempotent; run at each start. */
export function stageRuntimes(
  runtimes: Map<string, Runtime>,
  options: { directory: string; node: string },
): { runtimes: Map<string, Runtime>; node: string } {
  const root = join(options.directory, 'runtimes');
  rmSync(root, { recursive: true, force: true });
  mkdirSync(root, { recursive: true, mode: 0o755 });
  const staged = new Map<string, Runtime>();
  for (const runtime of runtimes.values()) {
    const directory = join(root, basename(runtime.name));
    cpSync(runtime.directory, directory, {
      recursive: true,
      dereference: true,
      filter: path => !/\.test\.[a-z]+$|__pycache__/.test(path),
    });
    openToAll(directory);
    staged.set(runtime.name, { ...runtime, directory });
  }
  const node = join(root, 'node-binary');
  try {
    linkSync(options.node, node);
  } catch {
    // Another file system, or links to it are not allowed.
    copyFileSync(options.node, node);
  }
  chmodSync(node, 0o755);
  return { runtimes: staged, node };
}

/**
 * Puts what function code may import beside all functions, where Node's look-up upwards finds it, and a package.json
 * that keeps a version without one from being read by the rules of whatever lies above.
 */
export function stageSdks(runtimes: Map<string, Runtime>, codeDirectory: string): void {
  writeFileSync(join(codeDirectory, 'package.json'), '{}\n', { mode: 0o644 });
  for (const runtime of runtimes.values()) {
    if (runtime.sdk === undefined) continue;
    const to = join(codeDirectory, runtime.sdk);
    rmSync(to, { recursive: true, force: true });
    cpSync(join(runtime.directory, 'sdk'), to, { recursive: true });
    chmodSync(dirname(to), 0o755);
    openToAll(to);
  }
}

function openToAll(directory: string): void {
  chmodSync(directory, 0o755);
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) openToAll(path);
    else chmodSync(path, 0o644);
  }
}

/** A runtime's command with its placeholders filled in. RUNTIME_INVALID when the machine lacks the interpreter. */
export function commandOf(
  runtime: Runtime,
  template: readonly string[],
  options: { interpreters: Interpreters; entry?: string },
): string[] {
  return template.map(word =>
    word.replace(/\{(\w+)\}/g, (_, name: string) => {
      if (name === 'runtime') return runtime.directory;
      if (name === 'node') return options.interpreters.node;
      if (name === 'entry' && options.entry !== undefined) return options.entry;
      if (name === 'python') {
        if (options.interpreters.python !== undefined) return options.interpreters.python;
        throw new GatewayError(
          'INSTANCE_NOT_STARTED',
          `the runtime ${runtime.name} needs python3, and this machine has none that the function's user can run`,
        );
      }
      throw new GatewayError(
        'RUNTIME_INVALID',
        `the runtime ${runtime.name} uses {${name}}, which does not exist; use {runtime}, {node}, {python} or {entry}`,
      );
    }),
  );
}
