/**
 * Goal: a source tree is the same wherever it comes from, and no path or link can reach beyond it.
 * Method: real temporary directories, and properties. Archives: archive.test.ts.
 */
import assert from 'node:assert/strict';
import {
  chmod,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import fc from 'fast-check';
import {
  pathLimits,
  pathProblem,
  readTree,
  type Tree,
  treeDigest,
  treeFromFiles,
  writeTree,
} from './source.ts';
import { anyTree, refuses, textOf } from './source-fixture.ts';

let scratch: string;
let directories = 0;

before(async () => {
  scratch = await mkdtemp(path.join(tmpdir(), 'fnway-source-test-'));
});
after(async () => {
  await rm(scratch, { recursive: true, force: true });
});

/** A new directory with these files; a value that starts with '->' makes a symbolic link. */
async function directoryWith(files: Record<string, string>): Promise<string> {
  directories += 1;
  const directory = path.join(scratch, String(directories));
  await mkdir(directory);
  for (const [name, text] of Object.entries(files)) {
    const file = path.join(directory, name);
    await mkdir(path.dirname(file), { recursive: true });
    if (text.startsWith('->')) await symlink(text.slice(2), file);
    else await writeFile(file, text);
  }
  return directory;
}

describe('the digest of a tree', () => {
  it('is the same whatever the order of the files', () => {
    fc.assert(
      fc.property(anyTree, tree => {
        const reversed = new Map([...tree].reverse());
        assert.equal(treeDigest(reversed), treeDigest(tree));
      }),
    );
  });

  it('changes with a path, a mode and a content', () => {
    const trees: Record<string, string>[] = [
      { a: 'x' },
      { b: 'x' },
      { a: 'y' },
      { a: '#!' },
      { a: 'x', b: '' },
      {},
    ];
    const digests = trees.map(files => treeDigest(treeFromFiles(files)));
    const executable = new Map([['a', { mode: 0o755 as const, bytes: Buffer.from('x') }]]);
    digests.push(treeDigest(executable));
    assert.equal(new Set(digests).size, digests.length);
    assert.match(digests[0]!, /^sha256:[0-9a-f]{64}$/);
  });
});

describe('inline files', () => {
  it('follow the same path rules as an archive', async () => {
    for (const name of ['../x', '/x', 'a//b', 'a\\b', '', '.', 'a\0b', '\ud800']) {
      await refuses(
        (async () => treeFromFiles({ [name]: '' }))(),
        'SOURCE_INVALID',
        /In the source/,
      );
    }
    const both = { a: '', 'a/b': '' };
    await refuses((async () => treeFromFiles(both))(), 'SOURCE_INVALID', /both a file and/);
  });

  it('keep to the limits', async () => {
    const make = async () => treeFromFiles({ a: 'é' }, { unpackedBytesMax: 1 });
    await refuses(make(), 'SOURCE_TOO_LARGE', /unpackedBytesMax/);
  });

  it('that name their interpreter are executable', () => {
    const tree = treeFromFiles({ 'run.sh': '#!/bin/sh\n', 'note.txt': 'x' });
    assert.equal(tree.get('run.sh')?.mode, 0o755);
    assert.equal(tree.get('note.txt')?.mode, 0o644);
  });

  it('cannot set a prototype', () => {
    const tree = treeFromFiles(JSON.parse('{"__proto__":"x"}'));
    assert.deepEqual([...tree.keys()], ['__proto__']);
  });
});

describe('a directory', () => {
  it('is read without what is ignored by default', async () => {
    const directory = await directoryWith({
      'handler.ts': 'x',
      'src/lib.ts': 'y',
      'dist/out.js': 'z',
      'node_modules/a/index.js': '',
      'src/node_modules/b/index.js': '',
      '.git/HEAD': '',
      '.env': 'SECRET=1',
      '.env.local': '',
      'pkg/__pycache__/a.pyc': '',
      'pkg/b.pyc': '',
      '.venv/x': '',
      'venv/x': '',
      '.fnway/x': '',
      '.DS_Store': '',
    });
    assert.deepEqual(textOf(await readTree(directory)), {
      'handler.ts': 'x',
      'src/lib.ts': 'y',
      'dist/out.js': 'z',
    });
  });

  it('is read as its ignore file says, which can bring a default back', async () => {
    const directory = await directoryWith({
      '.fnwayignore': '# comment\r\n/data/\r\n*.log\r\n!keep.log\r\n!node_modules\r\n',
      'handler.js': '',
      'data/big.bin': '',
      'src/data/small.bin': '',
      'a.log': '',
      'keep.log': '',
      'node_modules/a/index.js': '',
    });
    const names = [...(await readTree(directory)).keys()];
    assert.deepEqual(names, [
      'handler.js',
      'keep.log',
      'node_modules/a/index.js',
      'src/data/small.bin',
    ]);
  });

  it('keeps which files are executable', async () => {
    const directory = await directoryWith({ run: '', text: '' });
    await chmod(path.join(directory, 'run'), 0o700);
    await chmod(path.join(directory, 'text'), 0o600);
    const tree = await readTree(directory);
    assert.deepEqual([tree.get('run')?.mode, tree.get('text')?.mode], [0o755, 0o644]);
  });

  it('is read through links that stay inside it', async () => {
    const directory = await directoryWith({
      'lib/a.ts': 'a',
      'link.ts': '->lib/a.ts',
      more: '->lib',
      'sub/up.ts': '->../lib/a.ts',
    });
    assert.deepEqual(textOf(await readTree(directory)), {
      'lib/a.ts': 'a',
      'link.ts': 'a',
      'more/a.ts': 'a',
      'sub/up.ts': 'a',
    });
  });

  it('with a link that leaves it is refused, and the link is named', async () => {
    const sibling = await directoryWith({ secret: 'x' });
    const absolute = await directoryWith({ 'sub/out': `->${sibling}/secret` });
    await refuses(
      readTree(absolute),
      'SOURCE_INVALID',
      /"sub\/out" is a symbolic link that leaves/,
    );
    const relative = await directoryWith({ out: '->..' });
    await refuses(readTree(relative), 'SOURCE_INVALID', /"out" is a symbolic link that leaves/);
    // A directory whose name merely starts with this one's.
    const directory = await directoryWith({ a: '' });
    await mkdir(`${directory}-2`);
    await symlink(`../${path.basename(directory)}-2`, path.join(directory, 'beside'));
    await refuses(readTree(directory), 'SOURCE_INVALID', /"beside" is a symbolic link that leaves/);
  });

  it('with a link to nothing or in a circle is refused', async () => {
    const broken = await directoryWith({ gone: '->nothing' });
    await refuses(readTree(broken), 'SOURCE_INVALID', /"gone" is a symbolic link to nothing/);
    const circle = await directoryWith({ 'a/loop': '->..' });
    await refuses(readTree(circle), 'SOURCE_INVALID', /"a\/loop" .* directory above it/);
    const self = await directoryWith({ self: '->self' });
    await refuses(readTree(self), 'SOURCE_INVALID', /"self"/);
  });

  it('with an ignored link that leaves it is read', async () => {
    const directory = await directoryWith({ '.fnwayignore': 'out', out: '->/etc', a: '' });
    assert.deepEqual([...(await readTree(directory)).keys()], ['a']);
  });

  it('with a device behind a link is refused', async () => {
    const directory = await directoryWith({ null: '->/dev/null' });
    await refuses(readTree(directory), 'SOURCE_INVALID', /"null"/);
    await refuses(readTree('/dev/null'), 'SOURCE_INVALID', /not a directory or file/);
  });

  it('larger than the limits is refused', async () => {
    const directory = await directoryWith({ a: 'xx', b: 'xx' });
    const small = { unpackedBytesMax: 3 };
    await refuses(readTree(directory, { limits: small }), 'SOURCE_TOO_LARGE', /unpackedBytesMax/);
    const few = { filesMax: 1 };
    await refuses(readTree(directory, { limits: few }), 'SOURCE_TOO_LARGE', /filesMax/);
  });

  it('that does not exist is refused by its name', async () => {
    const missing = path.join(scratch, 'missing');
    await refuses(readTree(missing), 'SOURCE_INVALID', /missing does not exist/);
  });

  it('can be a single file', async () => {
    const directory = await directoryWith({ 'hello.py': 'x', '.env': 'named on purpose' });
    assert.deepEqual(textOf(await readTree(path.join(directory, 'hello.py'))), { 'hello.py': 'x' });
  });
});

describe('writing a tree', () => {
  it('gives the files, their modes and their directories', async () => {
    const directory = path.join(scratch, 'written');
    const tree = treeFromFiles({ 'a/b/run.sh': '#!/bin/sh', 'a/text': 'x', top: '' });
    await writeTree(tree, directory);
    assert.equal(await readFile(path.join(directory, 'a/text'), 'utf8'), 'x');
    assert.equal((await stat(path.join(directory, 'a/b/run.sh'))).mode & 0o777, 0o755);
    assert.equal((await stat(path.join(directory, 'a/text'))).mode & 0o777, 0o644);
    assert.equal(treeDigest(await readTree(directory)), treeDigest(tree));
  });

  it('refuses a directory that is not empty, and changes nothing', async () => {
    const directory = await directoryWith({ a: 'old' });
    await assert.rejects(writeTree(treeFromFiles({ a: 'new' }), directory), /empty directory/);
    assert.equal(await readFile(path.join(directory, 'a'), 'utf8'), 'old');
  });

  it('refuses a path that no tree may hold, and writes nothing', async () => {
    const directory = path.join(scratch, 'escape');
    const tree: Tree = new Map([['../escaped', { mode: 0o644, bytes: new Uint8Array() }]]);
    await assert.rejects(writeTree(tree, directory), /safe paths/);
    assert.deepEqual(await readdir(directory), []);
  });

  it('gives everything to the owner when root writes', {
    skip: process.getuid?.() !== 0,
  }, async () => {
    const directory = path.join(scratch, 'owned');
    const tree = treeFromFiles({ 'a/b': 'x', 'run.sh': '#!' });
    await writeTree(tree, directory, { owner: { uid: 300_001, gid: 300_002 } });
    for (const name of ['', 'a', 'a/b', 'run.sh']) {
      const { uid, gid } = await stat(path.join(directory, name));
      assert.deepEqual([name, uid, gid], [name, 300_001, 300_002]);
    }
    assert.equal((await stat(directory)).mode & 0o777, 0o700);
    assert.equal((await stat(path.join(directory, 'run.sh'))).mode & 0o777, 0o755);
  });
});

it('a path at its limits is allowed', () => {
  assert.equal(pathProblem('a'.repeat(pathLimits.segmentBytesMax)), undefined);
  assert.equal(pathProblem(`${'a/'.repeat(pathLimits.depthMax - 1)}b`), undefined);
  assert.equal(pathProblem('..a/b..'), undefined);
});
