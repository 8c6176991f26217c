/**
 * Goal: only tools that builds can really run are found. Method: directories of stand-ins on a
 * made-up PATH.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmod, mkdir, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, it } from 'node:test';
import { createFixture } from './build-fixture.ts';
import { findEsbuild, findTools, isReachableByAll } from './find-tools.ts';

const { newPath } = createFixture(process.env.PATH ?? '');

describe('finding tools', () => {
  it('takes npm itself through its link, and the first python3 that is reachable', async () => {
    const directory = newPath();
    for (const name of ['lib', 'a', 'b', 'c'])
      await mkdir(path.join(directory, name), { recursive: true });
    const npmCli = path.join(directory, 'lib/npm-cli.js');
    await writeFile(npmCli, '');
    await writeFile(path.join(directory, 'a/npm'), '#!/bin/sh\n', { mode: 0o755 });
    await symlink('../lib/npm-cli.js', path.join(directory, 'b/npm'));
    for (const name of ['a', 'b', 'c']) {
      await writeFile(path.join(directory, name, 'python3'), '', {
        mode: name === 'b' ? 0o644 : 0o755,
      });
    }
    const options = {
      path: ['relative', ...['a', 'b', 'c'].map(name => path.join(directory, name)), ''].join(':'),
      node: '/nowhere/bin/node',
    };
    const found = findTools({ ...options, reachable: file => !file.startsWith(`${directory}/a/`) });
    assert.equal(found.npmCli, npmCli);
    assert.equal(found.python, path.join(directory, 'c/python3'));
    const none = findTools({ ...options, reachable: () => false });
    assert.deepEqual([none.npmCli, none.python], [undefined, undefined]);
  });

  it('finds the compiler that came with esbuild', () => {
    assert.match(
      execFileSync(findEsbuild()!, ['--version'], { encoding: 'utf8' }),
      /^\d+\.\d+\.\d+/,
    );
  });

  it('counts a file as reachable only when every directory above lets others through', async () => {
    const directory = newPath();
    await mkdir(directory, { mode: 0o755 });
    const file = path.join(directory, 'tool');
    await writeFile(file, '', { mode: 0o755 });
    assert.equal(isReachableByAll(file), true);
    await chmod(file, 0o754);
    assert.equal(isReachableByAll(file), false);
    await chmod(file, 0o644);
    assert.equal(isReachableByAll(file), true);
    await chmod(directory, 0o750);
    assert.equal(isReachableByAll(file), false);
    assert.equal(isReachableByAll('/nowhere'), false);
  });
});
