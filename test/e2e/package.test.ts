/**
 * Goal: what `npm pack` makes installs and runs on a plain Node 24 machine and brings no second Node. Method: pack, install
 * the tarball into an empty directory as npm would, serve with the installed command, call a function.
 */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';

const root = join(import.meta.dirname, '../..');
const run = promisify(execFile);
let directory: string;
/** A plain Node 24 machine: this Node first on the path, nothing of this checkout. */
let environment: NodeJS.ProcessEnv;

before(() => {
  directory = mkdtempSync(join(tmpdir(), 'fnway-package-'));
  const path = (process.env.PATH ?? '').split(':').filter(part => !part.startsWith(root));
  environment = {
    ...process.env,
    PATH: [dirname(process.execPath), ...path].join(':'),
    FNWAY_DATA: join(directory, 'data'),
  };
  for (const key of Object.keys(environment)) if (/^npm_/i.test(key)) delete environment[key];
});

after(() => rmSync(directory, { recursive: true, force: true }));

test('the package installs without a second Node, serves, and has types', {
  timeout: 300_000,
}, async () => {
  const { stdout: packed } = await run('npm', ['pack', '--json', '--pack-destination', directory], {
    cwd: root,
    env: environment,
  });
  const [{ filename, files }] = JSON.parse(packed.slice(packed.indexOf('[')));
  const names = files.map((file: { path: string }) => file.path);
  assert.deepEqual(
    names.filter((name: string) => /\.test\.|__pycache__|^src\//.test(name)),
    [],
  );

  const app = join(directory, 'app');
  await run('mkdir', [app]);
  writeFileSync(join(app, 'package.json'), JSON.stringify({ private: true, type: 'module' }));
  await run('npm', ['install', '--no-audit', '--no-fund', join(directory, filename)], {
    cwd: app,
    env: environment,
  });
  assert.deepEqual(
    readdirSync(join(app, 'node_modules')).filter(name => /^node-(?:linux|darwin|win)/.test(name)),
    [],
  );
  assert.ok(existsSync(join(app, 'node_modules/fnway/dist/src/index.d.ts')));

  writeFileSync(
    join(app, 'handler.ts'),
    "import { defineFunction } from 'fnway/function';\nexport default defineFunction(() => new Response('packed'));\n",
  );
  writeFileSync(
    join(app, 'fnway.yaml'),
    'functions:\n  packed: { runtime: node, source: ./handler.ts, auth: none }\n' +
      '  cloud: { runtime: node, source: ./index.js, entry: ":cloud", signature: http, auth: none }\n',
  );
  writeFileSync(join(app, 'index.js'), 'exports.cloud = (req, res) => res.json(req.query);\n');
  const server = spawn('npx', ['fnway', 'serve', '--port', '0', '--apply', '.'], {
    cwd: app,
    env: environment,
    detached: true,
  });
  try {
    const url = await new Promise<string>((resolve, reject) => {
      let text = '';
      const read = (chunk: Buffer) => {
        text += chunk;
        const found = /http:\/\/[\d.:]+/.exec(text);
        if (found !== null) resolve(found[0]);
      };
      server.stdout.on('data', read);
      server.stderr.on('data', read);
      server.once('exit', () => reject(new Error(text)));
    });
    assert.equal(await (await fetch(`${url}/function/packed`)).text(), 'packed');
    // Express is found where npm has put it.
    assert.equal(await (await fetch(`${url}/function/cloud?a=b`)).text(), '{"a":"b"}');
  } finally {
    const exited = new Promise(resolve => server.once('exit', resolve));
    process.kill(-server.pid!, 'SIGTERM');
    await exited;
  }
});
