/**
 * The sources of functions: trees of files, kept as blobs under the digest of their content. A source belongs to the
 * versions that name it; one that belongs to none any more is removed with the last of them.
 */
import type { BlobStore } from '../blob/blob.ts';
import { packTree, unpackTree } from '../build/archive.ts';
import { type Tree, treeDigest, treeFromFiles } from '../build/source.ts';
import type { Definition } from '../domain/function.ts';
import { GatewayError } from '../errors.ts';
import { Turn } from './turn.ts';

export class Sources {
  readonly #blobs: BlobStore;
  /** One at a time looks whether a source is there and takes it, or whether it is used and removes it. */
  readonly #turn = new Turn();

  constructor(blobs: BlobStore) {
    this.#blobs = blobs;
  }

  /**
   * Stores an uploaded archive; resolves with its digest. Everything about it is checked before anything is kept. One
   * at a time: a small archive may hold a tree of the largest size, and that is in memory meanwhile.
   */
  putArchive(archive: Uint8Array): Promise<string> {
    return this.#turn.take(async () => this.#put(await unpackTree(archive)));
  }

  has(digest: string): Promise<boolean> {
    return this.#blobs.has(digest);
  }

  async get(digest: string): Promise<Tree | undefined> {
    const archive = await this.#blobs.get(digest);
    return archive === undefined ? undefined : unpackTree(archive);
  }

  /**
   * Gives `own` the digest of a definition's source, undefined where it has none. No source is removed before `own`
   * has stored who it belongs to. SOURCE_NOT_FOUND when it names one that was not uploaded.
   */
  take<T>(definition: Definition, own: (digest: string | undefined) => Promise<T>): Promise<T> {
    if (definition.source === undefined) return own(undefined);
    return this.#turn.take(async () => own(await this.#digestOf(definition)));
  }

  /** Removes those of the digests that `used`, asked when it is their turn, does not name. */
  sweep(digests: Iterable<string>, used: () => Promise<ReadonlySet<string>>): Promise<void> {
    return this.#turn.take(async () => {
      const inUse = await used();
      for (const digest of digests) if (!inUse.has(digest)) await this.#blobs.remove(digest);
    });
  }

  /** Removes what no version names: uploads that nobody deployed, and what a gateway that was killed left. */
  sweepUnused(used: () => Promise<ReadonlySet<string>>): Promise<void> {
    return this.#turn.take(async () => {
      const kept = await this.#blobs.list();
      const inUse = await used();
      for (const digest of kept) if (!inUse.has(digest)) await this.#blobs.remove(digest);
    });
  }

  async #digestOf({ source }: Definition): Promise<string | undefined> {
    if (source === undefined) return undefined;
    if ('files' in source) return this.#put(treeFromFiles(source.files));
    if (await this.#blobs.has(source.digest)) return source.digest;
    throw new GatewayError('SOURCE_NOT_FOUND', `no source ${source.digest} has been uploaded`);
  }

  async #put(tree: Tree): Promise<string> {
    const digest = treeDigest(tree);
    if (!(await this.#blobs.has(digest))) await this.#blobs.put(digest, await packTree(tree));
    return digest;
  }
}
