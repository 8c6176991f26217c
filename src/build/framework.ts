/**
 * What a source has to do with the functions framework of its runtime: whether it is written for it, and where the
 * framework would look for its functions. Pure, read from the tree before any tool has run. What a function answers is
 * the runtime's business.
 */
import path from 'node:path';
import type { VersionSpec } from '../domain/function.ts';
import type { Runtime } from '../domain/runtime.ts';
import type { Tree } from './source.ts';

/**
 * `used`: what is said of the function, or its packages, make it one of the framework. `mentioned`: its code may make it
 * one when it is loaded.
 */
export type FrameworkUse = 'used' | 'mentioned';

export interface FrameworkFacts {
  use: FrameworkUse;
  /** Where its functions are, first choice first, where the definition names no entry. */
  entries: string[];
}

/** Undefined for what has nothing to do with it, and for runtimes without one. */
export function frameworkFacts(
  tree: Tree,
  spec: Pick<VersionSpec, 'env' | 'signature'>,
  runtime: Pick<Runtime, 'framework' | 'dependencies' | 'entries'>,
): FrameworkFacts | undefined {
  const { framework, dependencies, entries } = runtime;
  if (framework === undefined) return undefined;
  const file = dependencies === undefined ? undefined : tree.get(dependencies);
  const text = file === undefined ? '' : viewOf(file.bytes).toString('utf8');
  const isManifest = dependencies === 'package.json';
  const manifest = isManifest ? parsed(text) : {};
  const isNamed = isManifest
    ? Object.hasOwn({ ...manifest.devDependencies, ...manifest.dependencies }, framework.package)
    : lists(text, framework.package);
  if (isNamed || spec.signature !== undefined || namesTarget(spec.env)) {
    return { use: 'used', entries: [...mainFiles(manifest), ...framework.entries, ...entries] };
  }
  return mentions(tree, framework.package) ? { use: 'mentioned', entries } : undefined;
}

/** The framework's own way to name a function and how it is called. */
export function namesTarget(env: Readonly<Record<string, string>>): boolean {
  return env.FUNCTION_TARGET !== undefined || env.FUNCTION_SIGNATURE_TYPE !== undefined;
}

interface Manifest {
  main?: unknown;
  dependencies?: object;
  devDependencies?: object;
}

/** Whatever is wrong with it is told by npm. */
function parsed(text: string): Manifest {
  try {
    const value: unknown = JSON.parse(text);
    return value !== null && typeof value === 'object' ? value : {};
  } catch {
    return {};
  }
}

/** As Node looks for what `main` names: a file, one with an extension, or a directory. */
function mainFiles({ main }: Manifest): string[] {
  if (typeof main !== 'string' || main === '') return [];
  const name = path.posix.normalize(main).replace(/\/$/, '');
  return [name, `${name}.js`, path.posix.join(name, 'index.js')];
}

/** Whether a list of requirements, one a line, has the package. Names differ in case and in what joins their words. */
function lists(text: string, name: string): boolean {
  return text
    .split('\n')
    .map(line =>
      /^\s*([\w.-]*\w)/
        .exec(line)?.[1]
        ?.toLowerCase()
        .replace(/[-_.]+/g, '-'),
    )
    .includes(name);
}

function mentions(tree: Tree, name: string): boolean {
  const wanted = Buffer.from(name);
  return [...tree].some(
    ([file, { bytes }]) => /\.[cm]?[jt]sx?$/.test(file) && viewOf(bytes).includes(wanted),
  );
}

function viewOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
