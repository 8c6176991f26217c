/**
 * Makes one program of a function written in Go and of `instance/`. Runs as the function's user in the version's directory,
 * with a HOME that is thrown away afterwards; all it leaves is `.fnway/go/function`. Also fills the cache of the standard
 * library that builds start from (`--fill`).
 *
 * The user's files stay as they are: what has to be different is laid over them (`go build -overlay`). The main package lies
 * in the user's module, so that requirements, replacements and vendored packages are the user's own.
 *
 * What is wrong is told on standard output, as `file:line:column: message`, with file relative to the version's directory.
 */
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { symlink } from 'node:fs/promises';
import { homedir } from 'node:os';
import { basename, dirname, join, posix, relative } from 'node:path';
import { parseArgs } from 'node:util';

const own = import.meta.dirname;
/** In the user's module, and never on disk: the name must be no folder of the user's. */
const mainFolder = 'fnway_instance';
/** What a module is called that has no go.mod, as in OpenFaaS' templates: folders of it are imported by this name. */
const defaultModule = 'handler/function';
/** Packages whose types a contract has, and in which module they are. */
const contractPackages = {
  'github.com/openfaas/templates-sdk/go-http': 'github.com/openfaas/templates-sdk',
  'github.com/openfaas-incubator/go-function-sdk': 'github.com/openfaas-incubator/go-function-sdk',
};
/** What functions commonly import; all of it takes half a minute to compile. */
const commonPackages =
  'archive/zip bufio compress/gzip context crypto/ecdsa database/sql encoding/base64 encoding/binary encoding/csv ' +
  'encoding/gob encoding/hex encoding/json encoding/xml expvar flag html/template io/ioutil log math/big math/rand mime/multipart ' +
  'net/http/httptest net/http/httputil net/mail net/smtp os/exec os/signal regexp runtime/debug sort text/tabwriter ' +
  'text/template time/tzdata';

const { values: given } = parseArgs({
  options: {
    go: { type: 'string' },
    entry: { type: 'string' },
    handler: { type: 'string', default: 'Handle' },
    cache: { type: 'string' },
    fill: { type: 'string' },
  },
});

// No C compiler is needed, and what runs needs no library of the machine.
const settings = { CGO_ENABLED: '0', GOTOOLCHAIN: 'local', ...process.env };
Object.assign(settings, { GO111MODULE: 'on', GOWORK: 'off' });

if (given.fill !== undefined) process.exit(fillCache(given.fill));
process.exit(await buildFunction());

/** Compiles the standard library into a cache that all may read. Fast when it is there already. */
function fillCache(cache) {
  process.umask(0o022);
  mkdirSync(cache, { recursive: true });
  const env = { ...settings, GOCACHE: cache, HOME: cache };
  const place = { cwd: cache, env, stdio: ['ignore', 'inherit', 'inherit'] };
  return spawnSync(given.go, ['build', ...commonPackages.split(' ')], place).status ?? 1;
}

async function buildFunction() {
  const work = mkdtempSync(join(homedir(), 'fnway-go-'));
  const source = readSource();
  if (source.problem !== undefined) return tell(source.problem);
  await startFromCache(given.cache);
  const overlay = overlayOf(source, work);
  const modFlags = moduleFlags(source, work, overlay);
  writeFileSync(join(work, 'overlay.json'), JSON.stringify({ Replace: overlay }));
  const output = join(process.cwd(), '.fnway/go');
  mkdirSync(output, { recursive: true });
  // Without symbols for a debugger: a stack's files and lines are not among them.
  const flags = ['-buildvcs=false', '-ldflags=-s -w', `-overlay=${join(work, 'overlay.json')}`];
  const args = [...flags, ...modFlags, '-o', join(output, 'function'), `./${mainFolder}`];
  const built = spawnSync(given.go, ['build', ...args], {
    cwd: source.root,
    env: settings,
    encoding: 'utf8',
    maxBuffer: 2 ** 26,
  });
  rmSync(work, { recursive: true, force: true });
  if (built.status === 0) {
    process.stdout.write(built.stderr);
    return 0;
  }
  return tell(readable(built.stderr || String(built.error ?? built.signal), { source, work }));
}

function tell(text) {
  process.stdout.write(`${text.trimEnd()}\n`);
  return 1;
}

/** Where the entry lies, in which module, and as which package. */
function readSource() {
  const folder = join(process.cwd(), dirname(given.entry));
  let root = folder;
  while (root !== process.cwd() && !existsSync(join(root, 'go.mod'))) root = dirname(root);
  const goMod = existsSync(join(root, 'go.mod'))
    ? readFileSync(join(root, 'go.mod'), 'utf8')
    : undefined;
  const module =
    goMod === undefined ? defaultModule : /^\s*module\s+"?([^\s"]+)"?/m.exec(goMod)?.[1];
  const names = readdirSync(folder).filter(name => name.endsWith('.go'));
  const files = names.map(name => ({
    name,
    path: join(folder, name),
    text: readFileSync(join(folder, name), 'utf8'),
  }));
  if (module === undefined)
    return { problem: `${inVersion(join(root, 'go.mod'))}: no module line` };
  if (!/^[A-Z]\w*$/.test(given.handler)) {
    const name = given.handler[0].toUpperCase() + given.handler.slice(1);
    return {
      problem: `${given.entry}: the handler ${given.handler} is not exported; Go exports names that begin with a capital letter, such as ${name}`,
    };
  }
  const inModule = relative(root, folder);
  return { root, files, goMod, importPath: posix.join(module, inModule), module };
}

function inVersion(path) {
  return relative(process.cwd(), path);
}

/** Compiled packages of the standard library are linked into this build's own cache: it may add to it, and change none. */
async function startFromCache(cache) {
  // Who names a cache in `buildEnv` has one.
  if (cache === undefined || !existsSync(cache) || settings.GOCACHE) return;
  settings.GOCACHE = join(homedir(), '.cache/go-build');
  const folders = readdirSync(cache).filter(name => /^[0-9a-f]{2}$/.test(name));
  await Promise.all(
    folders.map(folder => linkAll(join(cache, folder), join(settings.GOCACHE, folder))),
  );
}

async function linkAll(from, to) {
  mkdirSync(to, { recursive: true });
  await Promise.all(readdirSync(from).map(name => symlink(join(from, name), join(to, name))));
}

/** Files of the main package, and the user's where their package clause says `main`, which nobody could import. */
function overlayOf(source, work) {
  const overlay = {};
  const add = (path, name, text) => {
    const file = join(work, name);
    writeFileSync(file, text);
    overlay[path] = file;
  };
  const inMain = name => join(source.root, mainFolder, name);
  for (const name of readdirSync(join(own, 'instance')))
    overlay[inMain(name)] = join(own, 'instance', name);
  add(inMain('function.go'), 'function.go', exportingFile(source));
  for (const [i, path] of importedContracts(source).entries()) {
    const text = readFileSync(join(own, 'adapters/openfaas.go'), 'utf8');
    const adapted = text.replace(/"github\.com\/openfaas\/[^"]+"/, JSON.stringify(path));
    add(inMain(`contract_${i}.go`), `contract_${i}.go`, adapted);
  }
  for (const { name, path, text } of source.files) {
    const at = packageClauseEnd(text);
    if (name.endsWith('_test.go')) {
      // As if it were not there: it would have to be renamed as well.
      overlay[path] = '';
      continue;
    }
    if (!/\bmain$/.test(text.slice(0, at))) continue;
    // The compiler, and the stacks of panics, then say where it is written, and not where it was read.
    const renamed = `${text.slice(0, at - 4)}function${text.slice(at)}`;
    add(path, `user_${name}`, `//line ${path}:1:1\n${renamed}`);
  }
  return overlay;
}

function exportingFile({ importPath, files }) {
  const declared = new RegExp(`^(?:func|var)[ \\t]+${given.handler}\\b`, 'm');
  const at = files.map(({ text }) => declared.exec(text)?.index ?? -1);
  const index = at.findIndex(offset => offset >= 0);
  const place = index < 0 ? undefined : files[index];
  const file = place === undefined ? given.entry : inVersion(place.path);
  const line = place === undefined ? 0 : place.text.slice(0, at[index]).split('\n').length;
  const text = JSON.stringify;
  return `package main

import function ${text(importPath)}

func init() {
	exported = function.${given.handler}
	exportedName, exportedFile, exportedLine = ${text(given.handler)}, ${text(file)}, ${line}
}
`;
}

/** Behind the name in the package clause: comments may come before it, and no string. */
function packageClauseEnd(text) {
  return /^(?:\s|\/\/[^\n]*|\/\*[\s\S]*?\*\/|\uFEFF)*package\s+\w+/.exec(text)?.[0].length ?? 0;
}

function importedContracts({ files }) {
  return Object.keys(contractPackages).filter(path =>
    files.some(({ text }) => text.includes(`"${path}"`)),
  );
}

/**
 * A go.mod of our own, so that nothing is written beside the user's: the user's, or one as if `go mod init` had been run;
 * packages of contracts come from here, unless the user replaces them already. Vendored packages are taken as they are.
 */
function moduleFlags(source, work, overlay) {
  const { root, goMod } = source;
  if (goMod !== undefined && existsSync(join(root, 'vendor/modules.txt'))) return ['-mod=vendor'];
  let text = goMod ?? `module ${defaultModule}\n\ngo ${languageVersion()}\n`;
  for (const path of importedContracts(source)) {
    const module = contractPackages[path];
    const name = module.replaceAll('.', '\\.');
    if (new RegExp(`${name}(?:\\s+v\\S+)?\\s+=>`).test(text)) continue;
    if (!new RegExp(`${name}\\s+v`).test(text)) text += `\nrequire ${module} v0.0.0\n`;
    text += `\nreplace ${module} => ${contractModule(path, work)}\n`;
  }
  writeFileSync(join(work, 'go.mod'), text);
  if (existsSync(join(root, 'go.sum')))
    writeFileSync(join(work, 'go.sum'), readFileSync(join(root, 'go.sum')));
  // One must be there, though it is not read.
  if (goMod === undefined) overlay[join(root, 'go.mod')] = join(work, 'go.mod');
  // Whoever throws HOME away must be able to.
  return [`-modfile=${join(work, 'go.mod')}`, '-mod=mod', '-modcacherw'];
}

/** Of a function that does not say: that of the compiler. */
function languageVersion() {
  const { stdout } = spawnSync(given.go, ['env', 'GOVERSION'], { env: settings, encoding: 'utf8' });
  return /go(1\.\d+)/.exec(stdout)?.[1] ?? '1.18';
}

/** The older package of the same types is a module by itself, of another name. */
function contractModule(path, work) {
  if (path === 'github.com/openfaas/templates-sdk/go-http') return join(own, 'openfaas');
  const folder = join(work, 'contract');
  mkdirSync(folder);
  writeFileSync(join(folder, 'go.mod'), `module ${path}\n\ngo 1.18\n`);
  const text = readFileSync(join(own, 'openfaas/go-http/handler.go'));
  writeFileSync(join(folder, 'handler.go'), text);
  return folder;
}

/** What the compiler says, in the words of somebody who sees only the version's directory. */
function readable(text, { source, work }) {
  const above = inVersion(source.root);
  const ourGoMod = new RegExp(`[^\\s:]*${basename(work)}/go\\.mod`, 'g');
  const lines = text
    .split('\n')
    .filter(line => !/^# |^go: (?:downloading|finding|added) /.test(line));
  // The file that names the handler; compilers differ in how they call its package.
  const naming = `${basename(work)}/function.go:`;
  const missing = lines.find(line => line.includes(naming) && line.includes(' undefined: '));
  if (missing !== undefined) return handlerMissing(source);
  return lines
    .map(line =>
      line
        .replace(ourGoMod, join(above, 'go.mod'))
        .replaceAll(`${process.cwd()}/`, '')
        .replace(/^(?:\.\/)?([^\s:]+\.go:\d+)/, (_, place) =>
          existsSync(join(process.cwd(), place.replace(/:\d+$/, ''))) ? place : join(above, place),
        ),
    )
    .join('\n');
}

function handlerMissing({ files }) {
  const names = files.flatMap(({ text }) =>
    [...text.matchAll(/^func[ \t]+([A-Z]\w*)[ \t]*\(/gm)].map(([, name]) => name),
  );
  const has =
    names.length === 0 ? 'It exports no function.' : `It exports ${names.slice(0, 20).join(', ')}.`;
  return `${given.entry}: there is no ${given.handler}. ${has} Name one: entry: ${given.entry}:NAME`;
}
