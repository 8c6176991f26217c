/**
 * Goal: dependencies of package.json are installed as the lockfile says, by the function's user,
 * and run nothing unless allowed. Method: the real npm on packages in the source itself, so that no
 * registry is needed.
 */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readdir, readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { describe, it } from 'node:test';
import { createFixture, load, needsNpm, toolUid } from './build-fixture.ts';
import { parseDependencies } from './npm.ts';

const { tools, requestFor, built, failed, toolsWithNpm } = createFixture(process.env.PATH ?? '');

describe('npm', () => {
  const dep = {
    'dep/package.json': '{"name":"dep","version":"1.0.0","main":"index.js"}',
    'dep/index.js': 'module.exports = "from dep";',
    'handler.ts': 'import dep from "dep"; export default dep as string;',
  };
  const lock = JSON.stringify({
    name: 'x',
    lockfileVersion: 3,
    requires: true,
    packages: {
      '': { name: 'x', dependencies: { dep: 'file:./dep' } },
      dep: { version: '1.0.0' },
      'node_modules/dep': { resolved: 'dep', link: true },
    },
  });

  it("installs dependencies as the function's user, without running install scripts", async () => {
    const request = await requestFor({
      ...dep,
      'package.json': JSON.stringify({
        dependencies: { dep: 'file:./dep' },
        devDependencies: { dev: 'file:./dev' },
        scripts: { postinstall: 'touch ran' },
      }),
      'dev/package.json': '{"name":"dev","version":"1.0.0"}',
      '.npmrc': 'ignore-scripts=false\n',
    });
    const { entry, log } = await built(request);
    assert.equal(load(request, entry, 'console.log(mod.default)'), 'from dep');
    assert.match(log, /npm-cli\.js install .*--omit=dev/);
    const names = await readdir(request.directory);
    assert.ok(!existsSync(path.join(request.directory, 'node_modules/dev')));
    assert.ok(!names.includes('ran'));
    assert.ok(!names.includes('package-lock.json'));
    for (const name of ['node_modules', entry]) {
      const { uid } = await stat(path.join(request.directory, name));
      assert.equal(uid, toolUid);
    }
  });

  it('runs install scripts where they are allowed, with the build environment', async () => {
    const request = await requestFor(
      {
        ...dep,
        'package.json': JSON.stringify({
          name: 'x',
          dependencies: { dep: 'file:./dep' },
          scripts: { install: 'echo "$WORD $SECRET $(id -u)" > ran' },
        }),
        'package-lock.json': lock,
        '.npmrc': 'ignore-scripts=true\n',
      },
      { allowScripts: true, buildEnv: { WORD: 'given' } },
    );
    process.env.SECRET = 'of the gateway';
    const { log } = await built(request);
    assert.match(log, /npm-cli\.js ci /);
    const ran = await readFile(path.join(request.directory, 'ran'), 'utf8');
    assert.equal(ran.trim(), `given  ${toolUid}`);
  });

  it('follows the lockfile, and refuses one that does not fit package.json', async () => {
    const request = await requestFor({
      ...dep,
      'other/package.json': '{"name":"other","version":"1.0.0"}',
      'package.json': JSON.stringify({
        dependencies: { dep: 'file:./dep', other: 'file:./other' },
      }),
      'package-lock.json': lock,
    });
    const { code, file, message } = await failed(request);
    assert.deepEqual([code, file], ['BUILD_FAILED', 'package.json']);
    assert.match(message, /npm could not install the dependencies: .*npm ci/);
  });

  it('that cannot install a dependency is reported with the line that names it', async () => {
    const tools = await toolsWithNpm(`
      console.error('npm error code E404');
      console.error("npm error 404  'gone@1' is not in this registry.");
      process.exit(1);
    `);
    const request = await requestFor({
      'handler.js': '',
      'package.json': '{\n  "dependencies": {\n    "there": "1",\n    "gone": "1"\n  }\n}',
    });
    const { code, file, line, message } = await failed(request, { tools });
    assert.deepEqual([code, file, line], ['BUILD_FAILED', 'package.json', 4]);
    assert.match(message, /'gone@1' is not in this registry/);
  });

  it('is not run without dependencies', async () => {
    const files = { 'handler.js': '', 'package.json': '{"devDependencies":{"a":"1"}}' };
    assert.equal((await built(await requestFor(files))).log, '');
    assert.equal((await built(await requestFor({ 'handler.js': '' }))).log, '');
  });

  it('is not asked about a package.json that is not right', async () => {
    const request = await requestFor({ 'handler.js': '', 'package.json': '{\n  "a": 1,\n}' });
    const { code, file, line, column, message } = await failed(request);
    assert.deepEqual([code, file, line, column], ['BUILD_FAILED', 'package.json', 3, 1]);
    assert.match(message, /package\.json is not JSON/);
    for (const text of ['[]', '1', '{"dependencies":[]}', '{"dependencies":"a"}']) {
      assert.ok(!Array.isArray(parseDependencies(text, 'package.json')), text);
    }
  });

  it('missing on the machine is named with what to install', async () => {
    const request = await requestFor(needsNpm);
    const cases = [
      { npmCli: undefined },
      { npmCli: '/nowhere/npm-cli.js' },
      { npmCli: tools.npmCli, node: '/nowhere/node' },
    ];
    for (const missing of cases) {
      const { code, message } = await failed(request, { tools: { ...tools, ...missing } });
      assert.equal(code, 'BUILD_TOOL_MISSING');
      assert.match(message, /Install Node\.js with npm/);
    }
  });
});
