/**
 * Source trees: the files of one version, in memory, and the rules every tree obeys wherever it
 * comes from (a directory, an upload, inline files). Not for archives (archive.ts) nor for building
 * (build.ts).
 * Invariant: a path in a Tree is relative, '/'-separated and cannot leave the directory it is
 * written to; no path is both a file and a directory; a tree holds plain files only, and keeps to
 * the limits.
 */
import { createHash } from 'node:crypto';
import type { Dirent, Stats } from 'node:fs';
import { chmod, chown, mkdir, open, readdir, readFile, realpath, stat } from 'node:fs/promises';
import path from 'node:path';
import ignore, { type Ignore } from 'ignore';
import { assert, GatewayError } from '../errors.ts';

export interface TreeFile {
  mode: 0o644 | 0o755;
  bytes: Uint8Array;
}

/**
 * Relative path with '/' between its segments → file. Made only by the functions below and
 * unpackTree.
 */
export type Tree = Map<string, TreeFile>;

export interface SourceLimits {
  /** Size of the gzipped archive. */
  archiveBytesMax: number;
  /** Contents together; of an archive: the tar inside the gzip, headers included. */
  unpackedBytesMax: number;
  /** Files; of an archive: its entries, directories included. */
  filesMax: number;
}

/** Limits of an upload; each is in docs/reference/limits.md and has a test. */
export const sourceLimits: Readonly<SourceLimits> = {
  archiveBytesMax: 64 * 1024 ** 2,
  unpackedBytesMax: 256 * 1024 ** 2,
  filesMax: 10_000,
};

/**
 * Limits of one path. Segments and paths are what Linux file systems and PATH_MAX allow, with room
 * to spare.
 */
export const pathLimits = { segmentBytesMax: 255, pathBytesMax: 1024, depthMax: 64 } as const;

/** The file of ignore patterns (gitignore syntax) at the top of a source directory. */
const ignoreFileName = '.fnwayignore';

/**
 * Never uploaded unless the ignore file brings it back (`!node_modules`). Dependencies are
 * installed by the build; `.env` files are left out because secrets do not belong in uploads.
 * Compiled output (`dist`) is kept: it may be the function.
 */
export const ignoredByDefault: readonly string[] = [
  'node_modules',
  '.git',
  '__pycache__',
  '*.pyc',
  '.venv',
  'venv',
  '.env',
  '.env.*',
  '.fnway',
  '.DS_Store',
  ignoreFileName,
];

/**
 * `sha256:` and the hex digest of the tree's modes, paths and contents; independent of the order of
 * the files.
 */
export function treeDigest(tree: ReadonlyMap<string, TreeFile>): string {
  const total = createHash('sha256');
  for (const name of sortedPaths(tree)) {
    const file = tree.get(name)!;
    const content = createHash('sha256').update(file.bytes).digest('hex');
    // A path holds no NUL, so two different trees never give the same lines.
    total.update(`${file.mode.toString(8)} ${name}\0${content}\n`);
  }
  return `sha256:${total.digest('hex')}`;
}

/** Files given as text, as in a deploy request. A file that starts with `#!` is executable. */
export function treeFromFiles(
  files: Readonly<Record<string, string>>,
  limits: Partial<SourceLimits> = {},
): Tree {
  const builder = new TreeBuilder(limits);
  for (const [name, text] of Object.entries(files)) {
    builder.addEntry(name);
    const bytes = new TextEncoder().encode(text);
    builder.countBytes(bytes.byteLength);
    // Text has no mode of its own; a script that names its interpreter is meant to be run.
    builder.addFile(name, { mode: text.startsWith('#!') ? 0o755 : 0o644, bytes });
  }
  return builder.finish();
}

/**
 * Reads a directory, or a single file as a tree of one entry under its base name. Leaves out what
 * the ignore file and the defaults name. A symbolic link is followed when its target lies inside
 * the directory.
 * Throws SOURCE_INVALID or SOURCE_TOO_LARGE, naming the place.
 */
export async function readTree(
  location: string,
  options: { limits?: Partial<SourceLimits> } = {},
): Promise<Tree> {
  const info = await stat(location).catch(error => {
    const reason =
      errnoOf(error) === 'ENOENT' ? 'does not exist' : `cannot be read (${error.code})`;
    throw new GatewayError('SOURCE_INVALID', `The source ${location} ${reason}.`, {
      cause: error,
      remedy: 'Name an existing directory or file that you can read.',
    });
  });
  const builder = new TreeBuilder(options.limits ?? {});
  if (info.isDirectory()) {
    const root = await realpath(location);
    const reader = { location, root, rules: await readIgnoreRules(location), builder };
    await readDirectory(reader, '', [root]);
  } else if (info.isFile()) {
    await readEntry(builder, { name: path.basename(location), file: location, info });
  } else {
    throw new GatewayError('SOURCE_INVALID', `The source ${location} is not a directory or file.`, {
      remedy: 'Name a directory or a plain file.',
    });
  }
  return builder.finish();
}

/**
 * Writes the tree to a directory that is empty or does not exist yet. With an owner (for a gateway
 * that runs as root) everything belongs to it at the end and the directory is closed to others.
 * Until then nothing does, so the owner's processes cannot redirect a write; the caller keeps it so
 * by not giving the directory away.
 */
export async function writeTree(
  tree: ReadonlyMap<string, TreeFile>,
  directory: string,
  options: { owner?: { uid: number; gid: number } } = {},
): Promise<void> {
  const { owner } = options;
  await mkdir(directory, { recursive: true });
  assert((await readdir(directory)).length === 0, 'a tree is written to an empty directory');
  const names = sortedPaths(tree);
  const folders = new Set<string>();
  for (const name of names) {
    assert(pathProblem(name) === undefined, `a tree holds only safe paths, not ${name}`);
    addFoldersOf(name, folders);
  }
  // Parents sort before their children.
  const sortedFolders = [...folders].sort();
  for (const folder of sortedFolders) await mkdir(path.join(directory, folder), 0o755);

  const queue = names.values();
  async function writeNext(): Promise<void> {
    for (const name of queue) await writeFile(path.join(directory, name), tree.get(name)!, owner);
  }
  // Eight at a time: the thread pool of libuv has four threads; more only holds descriptors.
  await Promise.all(Array.from({ length: 8 }, writeNext));
  if (owner === undefined) return;
  await chmod(directory, 0o700);
  for (const folder of [...sortedFolders.toReversed(), '']) {
    await chown(path.join(directory, folder), owner.uid, owner.gid);
  }
}

/**
 * Why a path may not be in a tree, as the end of a sentence that starts with the path; undefined
 * when it may.
 */
export function pathProblem(name: string): string | undefined {
  if (name === '') return 'is empty';
  if (!name.isWellFormed()) return 'is not valid Unicode';
  for (let at = 0; at < name.length; at++) {
    const code = name.charCodeAt(at);
    if (code < 32 || code === 127) return 'holds a control character';
  }
  if (name.includes('\\')) return 'holds a backslash; separate segments with /';
  if (name.startsWith('/') || /^[A-Za-z]:/.test(name)) return 'is absolute';
  if (Buffer.byteLength(name) > pathLimits.pathBytesMax) {
    return `is longer than ${pathLimits.pathBytesMax} bytes`;
  }
  const segments = name.split('/');
  if (segments.length > pathLimits.depthMax) {
    return `is deeper than ${pathLimits.depthMax} directories`;
  }
  for (const segment of segments) {
    if (segment === '') return 'has an empty segment';
    if (segment === '..') return 'leaves the upload (..)';
    if (segment === '.') return 'has a segment that is only a dot';
    if (Buffer.byteLength(segment) > pathLimits.segmentBytesMax) {
      return `has a segment longer than ${pathLimits.segmentBytesMax} bytes`;
    }
  }
  return undefined;
}

/** Collects the files of one tree and keeps the rules and the limits while it grows. */
export class TreeBuilder {
  readonly limits: Readonly<SourceLimits>;
  readonly #files: Tree = new Map();
  readonly #folders = new Set<string>();
  #entries = 0;
  #bytes = 0;

  constructor(limits: Partial<SourceLimits>) {
    this.limits = { ...sourceLimits, ...limits };
  }

  /** Checks the path of a file or directory and counts it, before its content is read. */
  addEntry(name: string): void {
    this.#entries += 1;
    if (this.#entries > this.limits.filesMax) {
      throw tooLarge(`has more than ${this.limits.filesMax} files (filesMax)`);
    }
    const problem = pathProblem(name);
    if (problem !== undefined) throw invalidSource(name, problem);
  }

  /** Counts bytes against `unpackedBytesMax`, before they are kept. */
  countBytes(count: number): void {
    this.#bytes += count;
    if (this.#bytes > this.limits.unpackedBytesMax) {
      const limit = this.limits.unpackedBytesMax;
      throw tooLarge(`is larger than ${limit} bytes unpacked (unpackedBytesMax)`);
    }
  }

  addFile(name: string, file: TreeFile): void {
    if (this.#files.has(name)) throw invalidSource(name, 'is there twice');
    this.#files.set(name, file);
  }

  addFolder(name: string): void {
    this.#folders.add(name);
  }

  finish(): Tree {
    for (const name of this.#files.keys()) addFoldersOf(name, this.#folders);
    for (const folder of this.#folders) {
      if (this.#files.has(folder)) throw invalidSource(folder, 'is both a file and a directory');
    }
    return this.#files;
  }
}

export function invalidSource(name: string, problem: string, cause?: unknown): GatewayError {
  const shown = name.length > 200 ? `${name.slice(0, 200)}…` : name;
  const detail = `In the source, ${JSON.stringify(shown)} ${problem}.`;
  return new GatewayError('SOURCE_INVALID', detail, cause === undefined ? {} : { cause });
}

export function tooLarge(problem: string): GatewayError {
  return new GatewayError('SOURCE_TOO_LARGE', `The source ${problem}.`);
}

/** Byte order, so that a digest and an archive are the same on every machine. */
export function sortedPaths(tree: ReadonlyMap<string, TreeFile>): string[] {
  return [...tree.keys()].sort();
}

/**
 * Adds the directories above a path; stops at the first that is known, whose parents are known too.
 */
function addFoldersOf(name: string, folders: Set<string>): void {
  for (let end = name.lastIndexOf('/'); end > 0; end = name.lastIndexOf('/', end - 1)) {
    const folder = name.slice(0, end);
    if (folders.has(folder)) return;
    folders.add(folder);
  }
}

interface DirectoryReader {
  location: string;
  root: string;
  rules: Ignore;
  builder: TreeBuilder;
}

async function readIgnoreRules(location: string): Promise<Ignore> {
  const rules = ignore().add([...ignoredByDefault]);
  try {
    rules.add(await readFile(path.join(location, ignoreFileName), 'utf8'));
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw invalidSource(ignoreFileName, 'cannot be read', error);
  }
  return rules;
}

/**
 * `above` are the real paths of the directories being read, so that a link to one of them is seen
 * as a cycle.
 */
async function readDirectory(
  reader: DirectoryReader,
  folder: string,
  above: readonly string[],
): Promise<void> {
  const entries = await readdir(path.join(reader.location, folder), { withFileTypes: true }).catch(
    error => {
      throw invalidSource(folder || '.', `cannot be read (${error.code})`, error);
    },
  );
  entries.sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const entry of entries) {
    const name = folder === '' ? entry.name : `${folder}/${entry.name}`;
    const file = path.join(reader.location, name);
    const { real, info } = await lookAt(reader, { name, file, entry });
    if (info === undefined) continue;
    if (info.isDirectory()) {
      if (above.includes(real)) {
        throw invalidSource(name, 'is a symbolic link to a directory above it');
      }
      await readDirectory(reader, name, [...above, real]);
    } else if (info.isFile()) {
      await readEntry(reader.builder, { name, file, info });
    } else {
      throw invalidSource(name, 'is not a plain file or directory');
    }
  }
}

/** What an entry is once links are followed; no `info` when it is ignored. */
async function lookAt(
  reader: DirectoryReader,
  { name, file, entry }: { name: string; file: string; entry: Dirent },
): Promise<{ real: string; info?: Stats }> {
  if (reader.rules.ignores(entry.isDirectory() ? `${name}/` : name)) return { real: file };
  try {
    const real = await realpath(file);
    if (entry.isSymbolicLink() && !isInside(reader.root, real)) {
      throw invalidSource(name, 'is a symbolic link that leaves the directory');
    }
    const info = await stat(real);
    // A pattern such as `data/` names directories only; a link to one is one.
    if (info.isDirectory() && reader.rules.ignores(`${name}/`)) return { real };
    return { real, info };
  } catch (error) {
    if (error instanceof GatewayError) throw error;
    const problem = entry.isSymbolicLink() ? 'is a symbolic link to nothing' : 'cannot be read';
    throw invalidSource(name, `${problem} (${errnoOf(error)})`, error);
  }
}

async function readEntry(
  builder: TreeBuilder,
  { name, file, info }: { name: string; file: string; info: Stats },
): Promise<void> {
  builder.addEntry(name);
  builder.countBytes(info.size);
  const bytes = await readFile(file).catch(error => {
    throw invalidSource(name, `cannot be read (${error.code})`, error);
  });
  builder.addFile(name, { mode: (info.mode & 0o100) === 0 ? 0o644 : 0o755, bytes });
}

async function writeFile(
  file: string,
  content: TreeFile,
  owner: { uid: number; gid: number } | undefined,
): Promise<void> {
  // 'wx' never follows a link that is already there.
  const handle = await open(file, 'wx', content.mode);
  try {
    await handle.writeFile(content.bytes);
    // The mode given to open is cut by the umask; an owner change drops nothing of it.
    await handle.chmod(content.mode);
    if (owner !== undefined) await handle.chown(owner.uid, owner.gid);
  } finally {
    await handle.close();
  }
}

function isInside(root: string, real: string): boolean {
  const relative = path.relative(root, real);
  return relative !== '..' && !relative.startsWith(`..${path.sep}`) && !path.isAbsolute(relative);
}

function errnoOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined;
}
