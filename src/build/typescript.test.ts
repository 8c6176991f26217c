/**
 * Goal: a TypeScript entry becomes a module that Node loads and whose errors name the user's file
 * and line. Method: the real compiler, its output loaded by a real Node.
 */
import assert from 'node:assert/strict';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, it } from 'node:test';
import { createFixture, identity, isRoot, load } from './build-fixture.ts';
import { treeFromFiles, writeTree } from './source.ts';
import { moduleFormat, parseError } from './typescript.ts';

const { tools, newPath, requestFor, built, failed } = createFixture(process.env.PATH ?? '');

describe('TypeScript', () => {
  it('becomes a module beside the entry with its local imports in it', async () => {
    const request = await requestFor(
      {
        'src/handler.ts':
          'import { greet } from "./lib.ts";\nimport { sep } from "node:path";\n' +
          'export default (name: string) => [greet(name), sep, import.meta.dirname].join();',
        'src/lib.ts':
          'export enum Word { hello = "Hello" }\n' +
          'export const greet = (n: string) => Word.hello + n;',
      },
      { entry: 'src/handler.ts' },
    );
    const { entry } = await built(request);
    assert.equal(entry, 'src/handler.fnway.mjs');
    await rm(path.join(request.directory, 'src/lib.ts'));
    const printed = load(request, entry, 'console.log(mod.default("X"))');
    assert.equal(printed, `HelloX,/,${request.directory}/src`);
  });

  it('leaves packages and fnway/function to the runtime', async () => {
    const request = await requestFor({
      'handler.ts':
        'import { a } from "fnway/function"; import b from "gone"; export default [a, b];',
    });
    const { entry } = await built(request);
    const code = await readFile(path.join(request.directory, entry), 'utf8');
    assert.match(code, /from "fnway\/function"/);
    assert.match(code, /from "gone"/);
  });

  it('that throws names its own file and line', async () => {
    const request = await requestFor({
      'handler.ts':
        'interface A { b: string }\n\nexport default (): A => {\n  throw new Error("x");\n};\n',
    });
    const { entry } = await built(request);
    const stack = load(request, entry, 'try { mod.default() } catch (e) { console.log(e.stack) }');
    assert.match(stack, /\/handler\.ts:4:9/);
  });

  it('may use the names of CommonJS, declared by itself or not', async () => {
    const request = await requestFor({
      'handler.ts':
        'import { createRequire } from "node:module";\n' +
        'import lib from "./lib.cjs";\nimport own from "./own.ts";\n' +
        'const require = createRequire(import.meta.url);\n' +
        'export default [__dirname, __filename, require("node:path").sep, lib.sep, own];',
      'lib.cjs': 'exports.sep = require("node:path").sep;',
      'own.ts':
        'import { dirname } from "node:path"; import { fileURLToPath } from "node:url";\n' +
        'const __dirname = dirname(fileURLToPath(import.meta.url));\nexport default __dirname;',
    });
    const { entry } = await built(request);
    const { directory } = request;
    assert.deepEqual(JSON.parse(load(request, entry, 'console.log(JSON.stringify(mod.default))')), [
      directory,
      path.join(directory, entry),
      '/',
      '/',
      directory,
    ]);
  });

  it('may ask what `require` is and where it finds things', async () => {
    const request = await requestFor({
      'handler.ts':
        'export default [typeof require, require.resolve("./lib.cjs"), typeof require.cache];',
      'lib.cjs': 'exports.a = 1;',
    });
    const { entry } = await built(request);
    const print = 'console.log(JSON.stringify(mod.default))';
    assert.deepEqual(JSON.parse(load(request, entry, print)), [
      'function',
      path.join(request.directory, 'lib.cjs'),
      'object',
    ]);
  });

  it('written as CommonJS becomes CommonJS', async () => {
    const cases = {
      'a.cts': 'const x: number = 1; exports.handle = () => x;',
      'b.ts':
        '// export nothing\nconst p = require("node:path");\n' +
        'exports.handle = (): number => p ? 1 : 0;',
      'c.ts': 'function handle(): number { return 1; }\nmodule.exports = { handle };',
      'd.ts.ts': 'export = { handle: (): number => 1 };',
    };
    for (const [entry, text] of Object.entries(cases)) {
      const request = await requestFor({ [entry]: text }, { entry });
      const result = await built(request);
      assert.equal(result.entry, entry.replace(/\.c?ts$/, '.fnway.cjs'));
      assert.equal(load(request, result.entry, 'console.log(mod.default.handle())'), '1');
    }
  });

  it('in .mts, .tsx and .jsx is compiled', async () => {
    const jsx = 'const h = (tag: any) => tag;\nexport default /** @jsx h */ <p/>;';
    const cases = {
      'a.mts': 'export default "p" as string',
      'b.tsx': jsx,
      'c.jsx': jsx.replace(': any', ''),
    };
    for (const [entry, text] of Object.entries(cases)) {
      const request = await requestFor(
        { [entry]: text, 'tsconfig.json': '{"compilerOptions":{"jsxFactory":"h"}}' },
        { entry },
      );
      const result = await built(request);
      assert.match(result.entry, /^[abc]\.fnway\.mjs$/);
      assert.equal(load(request, result.entry, 'console.log(mod.default)'), 'p');
    }
  });

  it('with a syntax error is refused with its file, line and column', async () => {
    const request = await requestFor(
      {
        'src/handler.ts': 'import "./lib.ts";\n',
        'src/lib.ts': 'export const a: number = 1;\nconst b = ;\n',
      },
      { entry: 'src/handler.ts' },
    );
    const { log, ...failure } = await failed(request);
    assert.deepEqual(failure, {
      code: 'BUILD_FAILED',
      message: 'Unexpected ";"',
      file: 'src/lib.ts',
      line: 2,
      column: 11,
    });
    assert.match(log, /\$ esbuild \.\/src\/handler\.ts/);
  });

  it('that imports a file that is not there is refused with the import', async () => {
    const request = await requestFor({
      'handler.ts': '\nimport { a } from "./gone.ts";\nexport default a;',
    });
    const { message, file, line } = await failed(request);
    assert.deepEqual([message, file, line], ['Could not resolve "./gone.ts"', 'handler.ts', 2]);
  });

  it("sees only what the function's user may read", { skip: !isRoot }, async () => {
    const request = await requestFor({
      'handler.ts': 'import text from "../secret.txt";\nexport default text;',
    });
    const secret = path.join(path.dirname(request.directory), 'secret.txt');
    await writeFile(secret, 'top secret', { mode: 0o600 });
    const { message, log } = await failed(request);
    assert.match(message, /Cannot read file|Could not resolve/);
    assert.doesNotMatch(log, /top secret/);
  });

  it('takes no tsconfig.json from above the source', async () => {
    const outer = newPath();
    await mkdir(outer);
    await writeFile(path.join(outer, 'tsconfig.json'), '{ broken');
    const request = await requestFor({ 'handler.ts': 'export default 1 as number;' });
    const directory = path.join(outer, 'code');
    await writeTree(treeFromFiles({ 'handler.ts': 'export default 1 as number;' }), directory, {
      owner: identity,
    });
    assert.equal((await built({ ...request, directory })).entry, 'handler.fnway.mjs');
  });

  it('is not compiled where the runtime takes none, nor is JavaScript', async () => {
    const files = { 'handler.ts': 'const a = ;', 'handler.js': 'const a = ;' };
    const none = await requestFor(files, { compile: 'none' });
    assert.equal((await built(none)).entry, 'handler.ts');
    const plain = await requestFor(files, { entry: 'handler.js' });
    assert.equal((await built(plain)).entry, 'handler.js');
  });

  it('without esbuild on the machine names what to install', async () => {
    const request = await requestFor({ 'handler.ts': '' });
    for (const esbuild of [undefined, '/nowhere/esbuild']) {
      const failure = await failed(request, { tools: { ...tools, esbuild } });
      assert.equal(failure.code, 'BUILD_TOOL_MISSING');
      assert.match(failure.message, /esbuild.*Install fnway again/);
    }
  });

  it('is told from CommonJS by its imports and exports', () => {
    const cases: [string, 'esm' | 'cjs'][] = [
      ['', 'esm'],
      ['const a = await x();', 'esm'],
      ['import a from "a";\nmodule.exports = a;', 'esm'],
      ['import type { A } from "a";\nexports.a = 1;', 'esm'],
      ['import{a}from"a"', 'esm'],
      ['import "a";\nrequire("b")', 'esm'],
      ['const r = require("b");\nexport { r };', 'esm'],
      ['exports.a = import.meta.url;', 'esm'],
      ['/*\nexport the thing\n*/\nexports.a = 1;', 'cjs'],
      ['/* one */ exports.a = 1;', 'cjs'],
      ['// import x\nmodule.exports = 1;', 'cjs'],
      ['import("x").then();\nexports.a = 1;', 'cjs'],
      ['import x = require("x");\nexport = x;', 'esm'],
      ['export = 1;', 'cjs'],
      ['const f = require("@google-cloud/functions-framework");\nf.http("x", h);', 'cjs'],
    ];
    for (const [source, format] of cases)
      assert.equal(moduleFormat('a.ts', source), format, source);
    assert.equal(moduleFormat('a.cts', 'export {}'), 'cjs');
    assert.equal(moduleFormat('a.mts', 'exports.a = 1'), 'esm');
  });

  // A reading that is not linear would take minutes.
  it('is read for its format in little time, whatever it holds', () => {
    for (const part of ['/*', ' ', '\n', 'import ', 'export\t', 'require ', 'exports', '\n/*\n']) {
      const started = performance.now();
      moduleFormat('a.ts', part.repeat(262_144 / part.length));
      const tookMs = performance.now() - started;
      assert.ok(tookMs < 10_000, `${JSON.stringify(part)} took ${tookMs} ms`);
    }
  });

  it('gives errors without a place as well', () => {
    const output = '✘ [ERROR] Could not resolve "x"\n\n✘ [ERROR] y\n\n    a.ts:1:2:\n';
    assert.deepEqual(parseError(output), {
      code: 'BUILD_FAILED',
      message: 'Could not resolve "x"',
    });
    assert.equal(parseError('▲ [WARNING] w\n\n    a.ts:1:2:\n'), undefined);
  });
});
