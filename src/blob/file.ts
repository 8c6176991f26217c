/**
 * Blobs as files: `ab/cd/sha256-abcd…` below a directory, the two levels so that no directory grows
 * large. A blob is either whole and under its name, or not there: bytes go to `tmp/`, are synced,
 * and are renamed. One process at a time uses a directory, since opening sweeps what earlier ones
 * left in `tmp/`. For the owner only: directories 0700, files 0600, whatever the umask.
 */
import { chmodSync, closeSync, fsyncSync, mkdirSync, openSync, rmSync } from 'node:fs';
import { mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { assert, GatewayError } from '../errors.ts';
import { type BlobStore, isDigest } from './blob.ts';

/** Opens the directory, making it where needed. Throws DATA_DIRECTORY_UNUSABLE when that fails. */
export function openFileBlobs(directory: string): BlobStore {
  const tmp = path.join(directory, 'tmp');
  try {
    rmSync(tmp, { recursive: true, force: true });
    for (const made of [directory, tmp]) {
      mkdirSync(made, { recursive: true, mode: 0o700 });
      chmodSync(made, 0o700);
    }
    const parent = openSync(path.dirname(directory), 'r');
    fsyncSync(parent);
    closeSync(parent);
  } catch (error) {
    throw unusable(directory, error);
  }
  return new FileBlobStore(directory, tmp);
}

class FileBlobStore implements BlobStore {
  readonly #directory: string;
  readonly #tmp: string;
  /** Names temporary files; unique, since the directory has one user and was swept. */
  #writes = 0;

  constructor(directory: string, tmp: string) {
    this.#directory = directory;
    this.#tmp = tmp;
  }

  async put(digest: string, bytes: Uint8Array): Promise<void> {
    const file = this.#pathOf(digest);
    const leaf = path.dirname(file);
    await this.#guard(async () => {
      if (!(await exists(file))) await this.#write(file, bytes);
      // Also for a blob that was there: its writer may not have come as far as this, or was killed.
      for (const made of [leaf, path.dirname(leaf), this.#directory]) await syncDirectory(made);
    });
  }

  async get(digest: string): Promise<Uint8Array | undefined> {
    const file = this.#pathOf(digest);
    return this.#guard(async () => {
      try {
        return await readFile(file);
      } catch (error) {
        if (isMissing(error)) return undefined;
        throw error;
      }
    });
  }

  async has(digest: string): Promise<boolean> {
    const file = this.#pathOf(digest);
    return this.#guard(() => exists(file));
  }

  /**
   * Not synced: a blob that comes back after a power cut is one more unused one, to be found again.
   */
  async remove(digest: string): Promise<void> {
    const file = this.#pathOf(digest);
    await this.#guard(() => rm(file, { force: true }));
  }

  async list(): Promise<string[]> {
    return this.#guard(async () => {
      const digests: string[] = [];
      for (const first of await listDirectories(this.#directory)) {
        for (const second of await listDirectories(first)) {
          const names = await readdir(second);
          digests.push(...names.map(toDigest).filter(isDigest));
        }
      }
      return digests;
    });
  }

  /** A write that fails, as on a full disk, leaves no file. */
  async #write(file: string, bytes: Uint8Array): Promise<void> {
    const temporary = path.join(this.#tmp, String(this.#writes++));
    try {
      // Copied, because the caller may change the bytes while they are written.
      await writeDurably(temporary, new Uint8Array(bytes));
      await mkdir(path.dirname(file), { recursive: true, mode: 0o700 });
      await rename(temporary, file);
    } catch (error) {
      await rm(temporary, { force: true });
      throw error;
    }
  }

  async #guard<T>(body: () => Promise<T>): Promise<T> {
    try {
      return await body();
    } catch (error) {
      throw unusable(this.#directory, error);
    }
  }

  #pathOf(digest: string): string {
    assert(isDigest(digest), 'a digest is ALGORITHM:HEX');
    const hex = digest.slice(digest.indexOf(':') + 1);
    const [first, second] = [hex.slice(0, 2), hex.slice(2, 4)];
    return path.join(this.#directory, first, second, digest.replace(':', '-'));
  }
}

function toDigest(name: string): string {
  return name.replace('-', ':');
}

async function exists(file: string): Promise<boolean> {
  try {
    return (await stat(file)).isFile();
  } catch (error) {
    if (isMissing(error)) return false;
    throw error;
  }
}

async function writeDurably(file: string, bytes: Uint8Array): Promise<void> {
  const handle = await open(file, 'wx', 0o600);
  try {
    await handle.chmod(0o600);
    await handle.writeFile(bytes);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Makes the names in the directory durable: syncing a file does not. */
async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** The fan-out directories; `tmp` and what others put there are not. */
async function listDirectories(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { withFileTypes: true });
  return entries
    .filter(entry => entry.isDirectory() && /^[0-9a-f]{2}$/.test(entry.name))
    .map(entry => path.join(directory, entry.name));
}

function isMissing(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === 'ENOENT';
}

function unusable(directory: string, cause: unknown): GatewayError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new GatewayError('DATA_DIRECTORY_UNUSABLE', `${directory}: ${why}.`, { cause });
}
