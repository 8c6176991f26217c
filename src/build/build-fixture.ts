/**
 * For the tests of builds: sources written to temporary directories with the request to build each,
 * the machine's real tools, and stand-ins for npm. As root, builds run as another user. Not for
 * production code.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before } from 'node:test';
import { pathToFileURL } from 'node:url';
import { sleep, systemClock } from '../clock.ts';
import { type BuilderOptions, type BuildRequest, createBuilder } from './build.ts';
import { type BuildTools, findTools, isReachableByAll } from './find-tools.ts';
import { treeFromFiles, writeTree } from './source.ts';

export const isRoot = process.getuid?.() === 0;
/** The user that builds run as. */
export const identity = isRoot ? { uid: 300_001, gid: 300_001 } : undefined;
export const toolUid = identity?.uid ?? process.getuid?.();
export const never = new AbortController().signal;

/** A source that makes a build run npm. */
export const needsNpm = { 'handler.js': '', 'package.json': '{"dependencies":{"a":"1"}}' };

/**
 * To be called once a test file, with its PATH; everything is removed when the file's tests are
 * over.
 */
export function createFixture(pathVariable: string) {
  const tools = findTools({
    path: pathVariable,
    reachable: isRoot ? isReachableByAll : () => true,
    node: process.execPath,
  });
  const newPath = createScratch();

  /** A written source with the request to build it. */
  async function requestFor(
    files: Record<string, string>,
    request: Partial<BuildRequest> = {},
  ): Promise<BuildRequest> {
    const directory = newPath();
    await writeTree(treeFromFiles(files), directory, { owner: identity });
    return {
      directory,
      installer: 'npm',
      dependenciesFile: 'package.json',
      entry: undefined,
      entries: ['handler.ts', 'handler.js', 'index.js'],
      buildEnv: {},
      allowScripts: false,
      identity,
      compile: 'typescript',
      ...request,
    };
  }

  function build(request: BuildRequest, options: Partial<BuilderOptions> = {}) {
    return createBuilder({ tools, clock: systemClock, ...options }).build(request, never);
  }

  async function built(request: BuildRequest, options: Partial<BuilderOptions> = {}) {
    const result = await build(request, options);
    assert.ok(result.ok, JSON.stringify(result));
    return result;
  }

  async function failed(request: BuildRequest, options: Partial<BuilderOptions> = {}) {
    const result = await build(request, options);
    assert.ok(!result.ok, JSON.stringify(result));
    return { ...result.failure, log: result.log };
  }

  /** A stand-in for npm that does what the text says. */
  async function toolsWithNpm(script: string): Promise<BuildTools> {
    const directory = newPath();
    await mkdir(directory);
    const npmCli = path.join(directory, 'npm-cli.js');
    await writeFile(npmCli, `const fs = require('node:fs');\n${script}`);
    return { ...tools, npmCli };
  }

  return { tools, newPath, requestFor, built, failed, toolsWithNpm };
}

/** Gives paths where nothing is yet. */
function createScratch(): () => string {
  let scratch = '';
  let directories = 0;

  before(async () => {
    scratch = await mkdtemp(path.join(tmpdir(), 'fnway-build-test-'));
    // The functions' users pass through it, as through a gateway's data directory.
    await chmod(scratch, 0o755);
  });
  after(async () => {
    await rm(scratch, { recursive: true, force: true });
  });

  return () => {
    directories += 1;
    return path.join(scratch, String(directories));
  };
}

export async function waitUntil(state: string, isSo: () => boolean): Promise<void> {
  const deadlineMs = systemClock.monotonicMs() + 10_000;
  while (!isSo()) {
    assert.ok(systemClock.monotonicMs() < deadlineMs, `not within 10 s: ${state}`);
    await sleep(systemClock, 5);
  }
}

/** What a program that imports the entry prints. */
export function load(request: BuildRequest, entry: string, program: string): string {
  const url = pathToFileURL(path.join(request.directory, entry)).href;
  const code = `const mod = await import(${JSON.stringify(url)});\n${program}`;
  const args = ['--enable-source-maps', '--input-type=module', '-e', code];
  return execFileSync(process.execPath, args, { encoding: 'utf8', stdio: 'pipe' }).trim();
}
