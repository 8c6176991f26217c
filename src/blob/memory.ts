/**
 * Blobs in memory: the executable specification of the port, and the blobs of tests. Keeps copies.
 */
import { assert } from '../errors.ts';
import { type BlobStore, isDigest } from './blob.ts';

export function createMemoryBlobs(): BlobStore {
  const blobs = new Map<string, Uint8Array>();
  const checked = (digest: string): string => {
    assert(isDigest(digest), 'a digest is ALGORITHM:HEX');
    return digest;
  };
  return {
    async put(digest, bytes) {
      if (!blobs.has(checked(digest))) blobs.set(digest, new Uint8Array(bytes));
    },
    async get(digest) {
      const bytes = blobs.get(checked(digest));
      return bytes && new Uint8Array(bytes);
    },
    has: async digest => blobs.has(checked(digest)),
    async remove(digest) {
      blobs.delete(checked(digest));
    },
    list: async () => [...blobs.keys()],
  };
}
