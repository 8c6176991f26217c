/**
 * Goal: packages of requirements.txt are installed into the version by the function's user, and run
 * nothing unless allowed. Method: the real pip on a wheel and a package made by hand, so that no
 * registry is needed.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readdir, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, it } from 'node:test';
import type { BuildRequest } from './build.ts';
import { createFixture, toolUid } from './build-fixture.ts';
import { parseRequirements, pythonPackagesDirectory, refusedWithoutScripts } from './pip.ts';

const { tools, newPath, requestFor, built, failed } = createFixture(process.env.PATH ?? '');

const python = {
  installer: 'pip',
  dependenciesFile: 'requirements.txt',
  entries: ['handler.py'],
  compile: 'none',
} as const;

describe('pip', { skip: tools.python === undefined && 'no python3 that this user can run' }, () => {
  /** A package that is built without setuptools, so that no registry is needed. */
  const local = {
    'handler.py': '',
    'pkg/pyproject.toml':
      '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n' +
      '[project]\nname = "local-x"\nversion = "1.0"\n',
    'pkg/backend.py': `
import zipfile
def build_wheel(directory, config_settings=None, metadata_directory=None):
    write(directory + '/local_x-1.0-py3-none-any.whl', 'local_x')
    return 'local_x-1.0-py3-none-any.whl'
def write(file, name):
    with zipfile.ZipFile(file, 'w') as wheel:
        info = name + '-1.0.dist-info/'
        wheel.writestr(name + '.py', 'word = "installed"\\n')
        wheel.writestr(info + 'METADATA',
            'Metadata-Version: 2.1\\nName: ' + name + '\\nVersion: 1.0\\n')
        wheel.writestr(info + 'WHEEL',
            'Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
        wheel.writestr(info + 'RECORD', '')
`,
  };

  /** What a handler would see of an installed package. */
  function importWord(request: BuildRequest, module: string): string {
    const env = { PYTHONPATH: path.join(request.directory, pythonPackagesDirectory) };
    const code = `import ${module}; print(${module}.word)`;
    return execFileSync(tools.python!, ['-c', code], { env, encoding: 'utf8' }).trim();
  }

  it("installs wheels into the version, compiled, as the function's user", async () => {
    const request = await requestFor(
      {
        ...local,
        'requirements.txt': '# comment\n-r more.txt\n',
        'more.txt': './wheel_x-1.0-py3-none-any.whl\n',
      },
      python,
    );
    const wheel = path.join(request.directory, 'wheel_x-1.0-py3-none-any.whl');
    const args = ['-c', 'import sys, backend; backend.write(sys.argv[1], "wheel_x")', wheel];
    execFileSync(tools.python!, args, { env: { PYTHONPATH: path.join(request.directory, 'pkg') } });
    const { entry, log } = await built(request);
    assert.equal(entry, 'handler.py');
    assert.match(log, /-m pip install --target \.fnway\/python/);
    assert.equal(importWord(request, 'wheel_x'), 'installed');
    const installed = path.join(request.directory, pythonPackagesDirectory);
    assert.match(String(await readdir(path.join(installed, '__pycache__'))), /wheel_x\..*\.pyc/);
    assert.equal((await stat(installed)).uid, toolUid);
  });

  it('builds a package from source only where the definition allows it', async () => {
    const files = { ...local, 'requirements.txt': '\n./pkg\n' };
    const off = await requestFor(files, python);
    const { code, file, line, message } = await failed(off);
    assert.deepEqual([code, file, line], ['BUILD_FAILED', 'requirements.txt', 2]);
    assert.match(message, /"\.\/pkg" .*allowScripts: true/);

    const on = await requestFor(files, { ...python, allowScripts: true });
    await built(on);
    assert.equal(importWord(on, 'local_x'), 'installed');
  });

  it('that finds no package is reported with the line that names it', async () => {
    const request = await requestFor(
      { 'handler.py': '', 'requirements.txt': '--no-index\n# x\nnot-there-x==1.0\n' },
      python,
    );
    const { code, file, line, message } = await failed(request);
    assert.deepEqual([code, file, line], ['BUILD_FAILED', 'requirements.txt', 3]);
    assert.match(message, /No matching distribution found for not-there-x==1\.0.*allowScripts/);
  });

  it('is not run without a package to install', async () => {
    for (const text of ['', '# a\n\n', '--pre\n', '-c c.txt\n']) {
      const files = { 'handler.py': '', 'requirements.txt': text, 'c.txt': 'a==1' };
      assert.equal((await built(await requestFor(files, python))).log, '');
    }
  });

  it('missing on the machine is named with what to install', async () => {
    const request = await requestFor({ 'handler.py': '', 'requirements.txt': 'a' }, python);
    const bare = path.join(newPath());
    await writeFile(bare, '#!/bin/sh\necho "$0: No module named pip" >&2\nexit 1\n', {
      mode: 0o755,
    });
    for (const without of [undefined, '/nowhere/python3', bare]) {
      const { code, message } = await failed(request, { tools: { ...tools, python: without } });
      assert.equal(code, 'BUILD_TOOL_MISSING');
      assert.match(message, /Install Python 3 with pip/);
    }
  });
});

describe('requirements.txt', () => {
  it('is read line by line as pip reads it', () => {
    const text =
      '\uFEFFa==1 # one\r\n\r\n#b\nc \\\n  --hash=sha256:x\nd@https://x/#egg\n  # \\\ne\\';
    assert.deepEqual(
      parseRequirements(text, 'r').map(({ line, text }) => [line, text]),
      [
        [1, 'a==1'],
        [4, 'c   --hash=sha256:x'],
        [6, 'd@https://x/#egg'],
        [8, 'e'],
      ],
    );
  });

  const allowed = [
    ...['a', 'A.b-c_d', 'a==1.0', 'a[x,y]>=1,<2', 'a ~= 1.0 ; python_version > "3"', 'a (>=1)'],
    ...['./x-1.0-py3-none-any.whl', 'a @ https://host/x-1.whl#sha256=0', 'file:x.whl'],
    ...[
      'a==1 --hash=sha256:0 --hash=sha256:1',
      '-r more.txt',
      '--requirement=more.txt',
      '-cmore.txt',
    ],
    ...['--index-url https://host/simple', '--index-url=https://host/', '-i https://x --pre'],
  ];
  for (const line of allowed) {
    it(`may say ${line} without install scripts`, () => {
      assert.equal(refusedWithoutScripts(parseRequirements(line, 'r')), undefined);
    });
  }

  const refused = [
    ...['.', './pkg', '../pkg', 'pkg/', 'a/b', '/abs', 'file:pkg', 'file:///pkg.tar.gz'],
    ...['a.zip', 'a-1.0.tar.gz', 'a==1.zip', 'a[x].tgz', 'https://host/a.tar.gz', 'a @ file:./pkg'],
    ...[
      'git+https://host/a',
      'a @ git+https://host/a.whl',
      '-e .',
      '-e./pkg',
      '--editable=x',
      '--edit x',
    ],
    ...['--no-binary a', '--no-binary=:all:', '--no-bin a', '--only-binary :none:', '--pre -e .'],
    ...['a --global-option=x', 'a --config-settings x=y', '-r "more.txt"', '-r a.txt -e .'],
    ...['--pre "-e" ./pkg', '--pre \\-e ./pkg', "--no-index '-r' /r.txt"],
    ...['-r https://host/r.txt', '$' + '{X}', 'a @ $' + '{X}.whl', '-r=more.txt'],
  ];
  for (const line of refused) {
    it(`may not say ${line} without install scripts`, () => {
      const failure = refusedWithoutScripts(parseRequirements(`\n${line}`, 'r'));
      assert.deepEqual(
        [failure?.code, failure?.line],
        ['BUILD_FAILED', 2],
        JSON.stringify(failure),
      );
    });
  }

  it('may not hide a line behind what pip takes as the end of one', async () => {
    for (const end of ['\f', '\v', '\x1c', '\x1d', '\x1e', '\x85', '\u2028', '\u2029', '\r']) {
      const lines = parseRequirements(`# wheels only${end}./evil`, 'r');
      assert.equal(refusedWithoutScripts(lines)?.code, 'BUILD_FAILED', JSON.stringify(end));
    }
  });

  it('may not include a file by its absolute path without install scripts', async () => {
    const files = { 'handler.py': '', 'requirements.txt': '\n-r /tmp/r.txt' };
    const { file, line, message } = await failed(await requestFor(files, python));
    assert.deepEqual([file, line], ['requirements.txt', 2]);
    assert.match(message, /outside of the source/);
  });

  it('may not include a file outside of the source without install scripts', async () => {
    const files = {
      'handler.py': '',
      'requirements.txt': '-r sub/a.txt',
      'sub/a.txt': '\n-r ../../b',
    };
    const { file, line, message } = await failed(await requestFor(files, python));
    assert.deepEqual([file, line], ['sub/a.txt', 2]);
    assert.match(message, /outside of the source/);
  });

  it('that includes itself is read once', async () => {
    const files = {
      'handler.py': '',
      'requirements.txt': '-r requirements.txt\n-c requirements.txt\n-e .',
    };
    assert.equal((await failed(await requestFor(files, python))).line, 3);
  });
});
