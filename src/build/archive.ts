/**
 * Source trees as gzipped tar, the form in which they travel. Reads untrusted bytes: every rule of
 * a tree (source.ts) is checked before anything is kept, and the limits hold while the archive
 * streams, so a bomb costs at most `unpackedBytesMax` of memory. Touches no file system, so a
 * refused archive has changed nothing.
 */
import { createGunzip, createGzip } from 'node:zlib';
import { type Extract, extract, type Header, pack } from 'tar-stream';
import { assert, GatewayError, isGatewayError } from '../errors.ts';
import {
  invalidSource,
  type SourceLimits,
  sortedPaths,
  type Tree,
  TreeBuilder,
  type TreeFile,
  tooLarge,
} from './source.ts';

/** The same bytes for the same tree: sorted, no times, no owners. */
export async function packTree(tree: ReadonlyMap<string, TreeFile>): Promise<Uint8Array> {
  const archive = pack();
  const gzip = createGzip();
  archive.on('error', error => gzip.destroy(error));
  archive.pipe(gzip);
  const collected = collect(gzip);
  for (const name of sortedPaths(tree)) {
    const { mode, bytes } = tree.get(name)!;
    const header = { name, mode, mtime: new Date(0), uid: 0, gid: 0, type: 'file' as const };
    // One entry at a time: tar-stream opens waiting entries recursively.
    await new Promise<void>((resolve, reject) => {
      const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      archive.entry(header, buffer, error => (error ? reject(error) : resolve()));
    });
  }
  archive.finalize();
  return collected;
}

/** Throws SOURCE_INVALID or SOURCE_TOO_LARGE. */
export async function unpackTree(
  bytes: Uint8Array,
  limits: Partial<SourceLimits> = {},
): Promise<Tree> {
  const builder = new TreeBuilder(limits);
  const { archiveBytesMax } = builder.limits;
  if (bytes.byteLength > archiveBytesMax) {
    throw tooLarge(`archive is larger than ${archiveBytesMax} bytes (archiveBytesMax)`);
  }
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) {
    throw new GatewayError('SOURCE_INVALID', 'The source archive is not gzipped.');
  }
  const archive = extract();
  const fed = feed(bytes, archive, builder);
  try {
    for await (const entry of archive) await takeEntry(entry, builder);
  } catch (error) {
    throw await reasonOf(error, fed);
  }
  const failure = await fed;
  if (failure !== undefined) throw asSourceError(failure);
  return builder.finish();
}

type Entry = Extract extends AsyncIterable<infer E> ? E : never;

/**
 * Unzips into the tar reader, no faster than it reads. Resolves with what stopped it, if anything
 * did.
 */
async function feed(bytes: Uint8Array, archive: Extract, builder: TreeBuilder): Promise<unknown> {
  const gunzip = createGunzip({ chunkSize: 65_536 });
  const closed = new Promise<void>(resolve => archive.once('close', resolve));
  gunzip.end(bytes);
  try {
    for await (const chunk of gunzip) {
      // The tar is counted, not the files, so that headers without end are a bomb too.
      builder.countBytes(chunk.byteLength);
      if (archive.destroyed) return undefined;
      if (!archive.write(chunk)) {
        await Promise.race([new Promise<void>(resolve => archive.once('drain', resolve)), closed]);
      }
    }
    archive.end(undefined);
    return undefined;
  } catch (error) {
    archive.destroy(error as Error);
    return error;
  }
}

async function takeEntry(entry: Entry, builder: TreeBuilder): Promise<void> {
  const { header } = entry;
  const name = nameOf(header);
  // tar-stream gives null for a size it cannot read, and such an entry never ends.
  if (!Number.isSafeInteger(header.size)) throw invalidSource(name, 'has a size that is no number');
  if (header.type === 'directory') {
    entry.resume();
    if (name === topDirectory) return;
    builder.addEntry(name);
    builder.addFolder(name);
    return;
  }
  builder.addEntry(name);
  const content = await collect(entry);
  assert(content.byteLength === header.size, 'a tar entry has the size its header names');
  builder.addFile(name, {
    mode: (header.mode & 0o100) === 0 ? 0o644 : 0o755,
    bytes: content,
  });
}

/** What is left of `./`, the first entry of `tar -C directory .`. */
const topDirectory = '';

/** The path of a file or directory, without the leading `./` and trailing `/` that tar adds. */
function nameOf(header: Header): string {
  if (header.type !== 'file' && header.type !== 'directory') {
    const kind = header.type ?? 'thing of unknown type';
    throw invalidSource(header.name, `is a ${kind}, not a plain file`);
  }
  const name = header.name.replace(/^(?:\.\/)+/, '');
  if (header.type === 'file') return name;
  const folder = name.endsWith('/') ? name.slice(0, -1) : name;
  return folder === '.' ? topDirectory : folder;
}

async function collect(stream: AsyncIterable<unknown>): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of stream) chunks.push(chunk as Uint8Array);
  const joined = Buffer.concat(chunks);
  return new Uint8Array(joined.buffer, joined.byteOffset, joined.byteLength);
}

/** What broke the feed says more than the reader's "the stream was destroyed". */
async function reasonOf(error: unknown, fed: Promise<unknown>): Promise<GatewayError> {
  if (isGatewayError(error)) return error;
  return asSourceError((await fed) ?? error);
}

function asSourceError(error: unknown): GatewayError {
  if (isGatewayError(error)) return error;
  const detail = `The source archive is damaged or cut off: ${(error as Error).message}.`;
  return new GatewayError('SOURCE_INVALID', detail, { cause: error });
}
