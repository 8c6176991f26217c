/**
 * The blob port: large bytes under a name that is their content's digest, so a put is idempotent and a blob
 * never changes. Implementations: file.ts, memory.ts. Suite: contract.ts.
 */
export interface BlobStore {
  /**
   * Stores the bytes under `digest` durably: once this resolves, they survive a power cut. Idempotent.
   * The digest names the content for the caller; that it does is not checked here.
   */
  put(digest: string, bytes: Uint8Array): Promise<void>;
  /** The bytes, or undefined when there are none under this digest. */
  get(digest: string): Promise<Uint8Array | undefined>;
  has(digest: string): Promise<boolean>;
  /** Idempotent. */
  remove(digest: string): Promise<void>;
  list(): Promise<string[]>;
}

/** `ALGORITHM:HEX`. Every method asserts it, since a digest becomes a file name or a key. */
export function isDigest(text: string): boolean {
  return /^[a-z0-9]+:[0-9a-f]{4,128}$/.test(text);
}
