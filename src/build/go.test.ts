/**
 * Goal: the build of a Go function runs what it should as whom it should, and its messages become failures with a place.
 * Method: stand-ins for go, and texts of the real one. What the real one builds is checked in test/api/go.test.ts.
 */
import assert from 'node:assert/strict';
import { chmod, mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, it } from 'node:test';
import { createFixture, toolUid } from './build-fixture.ts';
import { findTools } from './find-tools.ts';
import { failureOf } from './go.ts';

const { newPath, tools, requestFor, built, failed } = createFixture(process.env.PATH ?? '');
const runtimeDirectory = path.join(import.meta.dirname, '../../runtimes/go');
const goRequest = {
  installer: 'none',
  dependenciesFile: undefined,
  entries: ['handler.go'],
  compile: 'go',
} as const;

/** A program called go that notes who runs it with which environment and words. */
async function standIn(): Promise<{ go: string; notes: string }> {
  const directory = newPath();
  const notes = path.join(directory, 'notes');
  await mkdir(notes, { recursive: true });
  await chmod(notes, 0o777);
  const go = path.join(directory, 'go');
  const script = `#!/bin/sh
[ "$1" = env ] && { echo go1.21.3; exit; }
case "$*" in *net/mail*) file=fill;; *) file=build;; esac
{ /usr/bin/id -u; pwd; echo "$@"; /usr/bin/env; } > ${notes}/$file
`;
  await writeFile(go, script, { mode: 0o755 });
  return { go, notes };
}

/** Its own runtime is in a checkout that other users may not reach: a copy is where they can. */
async function stagedRuntime(): Promise<string> {
  const directory = newPath();
  const { cp } = await import('node:fs/promises');
  await cp(runtimeDirectory, directory, { recursive: true });
  return directory;
}

describe('building Go', () => {
  it('is refused with what to install where there is no Go', async () => {
    const request = await requestFor({ 'handler.go': 'package f' }, goRequest);
    const failure = await failed(request, { tools: { ...tools, go: undefined } });
    assert.equal(failure.code, 'BUILD_TOOL_MISSING');
    assert.match(failure.message, /Install Go/);
  });

  it('fills the shared cache as the gateway, with nothing of the function in it', async () => {
    const { go, notes } = await standIn();
    const goCache = newPath();
    const request = await requestFor(
      { 'handler.go': 'package f' },
      {
        ...goRequest,
        runtimeDirectory: await stagedRuntime(),
        buildEnv: { GOFLAGS: '-toolexec=/theirs', PATH: '/theirs', NODE_OPTIONS: '--no-warnings' },
      },
    );
    const { entry } = await built(request, { tools: { ...tools, go }, goCache });
    assert.equal(entry, '.fnway/go/function');
    const fill = await readFile(path.join(notes, 'fill'), 'utf8');
    assert.equal(fill.split('\n')[0], String(process.getuid?.()));
    assert.equal(fill.split('\n')[1], goCache);
    assert.doesNotMatch(fill, /theirs|no-warnings/);
    assert.equal((await stat(goCache)).mode & 0o777, 0o755);
    const build = await readFile(path.join(notes, 'build'), 'utf8');
    assert.equal(build.split('\n')[0], String(toolUid));
    assert.equal(build.split('\n')[1], request.directory);
    assert.match(build, /^GOFLAGS=-toolexec=\/theirs$/m);
    assert.match(build, /^HOME=.*fnway-build-/m);
  });

  it('goes on without the cache when it cannot be filled', async () => {
    const { go, notes } = await standIn();
    const request = await requestFor(
      { 'handler.go': 'package f' },
      { ...goRequest, runtimeDirectory: await stagedRuntime() },
    );
    await built(request, { tools: { ...tools, go }, goCache: '/dev/null/cache' });
    assert.match(await readFile(path.join(notes, 'build'), 'utf8'), /^build /m);
  });

  it('finds Go by the PATH first', async () => {
    const { go } = await standIn();
    const found = findTools({
      path: path.dirname(go),
      reachable: () => true,
      node: process.execPath,
    });
    assert.equal(found.go, go);
  });
});

describe('messages of go build', () => {
  const cases: Array<[string, string, object]> = [
    [
      'a place with a column, and more errors',
      'a.go:3:7: undefined: x\na.go:9:1: missing return\n',
      {
        message: 'undefined: x\na.go:9:1: missing return',
        file: 'a.go',
        line: 3,
        column: 7,
      },
    ],
    ['a place without a column', 'a/go.mod:2: unknown directive: x', { file: 'a/go.mod', line: 2 }],
    ['no line', 'handler.go: there is no Handle.', { file: 'handler.go', line: undefined }],
    ['no place', 'go: no network\n', { message: 'go: no network', file: undefined }],
    ['nothing', '', { message: 'go build ended with status 1' }],
  ];
  for (const [what, output, expected] of cases) {
    it(`with ${what} are read`, () => {
      const failure = failureOf({ kind: 'exited', status: 1, signal: null, output });
      assert.equal(failure.code, 'BUILD_FAILED');
      for (const [key, value] of Object.entries(expected))
        assert.equal(failure[key as keyof typeof failure], value, key);
    });
  }
});
