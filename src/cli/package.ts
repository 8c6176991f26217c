/** Where this package is, in a checkout and when installed, and what it calls itself. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { assert } from '../errors.ts';

/** The directory that has `runtimes/` and the package.json of fnway. */
function packageRoot(): string {
  let directory = import.meta.dirname;
  while (!existsSync(path.join(directory, 'runtimes')) || !existsSync(manifestOf(directory))) {
    const above = path.dirname(directory);
    assert(above !== directory, 'this program is inside its package');
    directory = above;
  }
  return directory;
}

export function packageVersion(): string {
  return JSON.parse(readFileSync(manifestOf(packageRoot()), 'utf8')).version;
}

/** Those of this package, and `more`. */
export function runtimeDirectories(more: readonly string[]): string[] {
  return [path.join(packageRoot(), 'runtimes'), ...more];
}

/** Of the runtimes that have a sample function. */
export function runtimeNames(more: readonly string[]): string[] {
  return runtimeDirectories(more)
    .filter(parent => existsSync(parent))
    .flatMap(parent =>
      readdirSync(parent).filter(n => existsSync(path.join(parent, n, 'function'))),
    )
    .sort();
}

function manifestOf(directory: string): string {
  return path.join(directory, 'package.json');
}
