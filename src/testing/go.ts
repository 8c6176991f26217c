/** For tests of functions written in Go: whether the machine has Go, a cache that all of them share, and definitions. */
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { FunctionDefinition } from '../../client/api.ts';
import { findTools, isReachableByAll } from '../build/find-tools.ts';

const isRoot = process.getuid?.() === 0;

/** What of Go the PATH of a test finds. `needsGo` is for a suite: skipped, and told so, where there is none. */
export function findGo(path: string): {
  goProgram: string | undefined;
  needsGo: { skip?: string };
} {
  const reachable = isRoot ? isReachableByAll : existsSync;
  const { go } = findTools({ path, reachable, node: process.execPath });
  const skip = 'Go is not installed on this machine (golang-go on Debian)';
  return { goProgram: go, needsGo: go === undefined ? { skip } : {} };
}

/** The standard library is compiled once for all test runs of a user, not once a gateway. */
export const goCache = join(tmpdir(), `fnway-test-go-cache-${process.getuid?.()}`);

/** Longer than the standard library takes on a slow machine. */
export const goBuildWait = '9m';

/** A go function of one file. */
export function go(code: string, more: FunctionDefinition = {}): FunctionDefinition {
  return { runtime: 'go', source: { files: { 'handler.go': code } }, ...more };
}
