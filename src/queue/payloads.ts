/**
 * What jobs carry: a head as JSON and a body as it is, sealed together; in the row, or a blob where it is long. A blob is
 * one job's, and is durable before the row that names it.
 */
import { createHash } from 'node:crypto';
import type { Sealer } from '../auth/seal.ts';
import type { BlobStore } from '../blob/blob.ts';

/** Of a body in the row; longer ones are blobs. */
export const inlineBytesMax = 65_536;

export type Kept = { sealed: Uint8Array } | { blob: string };

/** Where a job has it. */
export function asInput(kept: Kept): { sealedInput: Uint8Array } | { inputBlob: string } {
  return 'blob' in kept ? { inputBlob: kept.blob } : { sealedInput: kept.sealed };
}

const lengthBytes = 4;

export class Payloads {
  readonly #sealer: Sealer;
  readonly #blobs: BlobStore;

  constructor(options: { sealer: Sealer; blobs: BlobStore }) {
    this.#sealer = options.sealer;
    this.#blobs = options.blobs;
  }

  async keep(head: object, body: Uint8Array): Promise<Kept> {
    const text = JSON.stringify(head);
    const headEnd = lengthBytes + Buffer.byteLength(text);
    const plain = Buffer.allocUnsafe(headEnd + body.length);
    plain.writeUInt32LE(headEnd - lengthBytes, 0);
    plain.write(text, lengthBytes);
    plain.set(body, headEnd);
    const sealed = this.seal(plain);
    if (body.length <= inlineBytesMax) return { sealed };
    const blob = `sha256:${createHash('sha256').update(sealed).digest('hex')}`;
    await this.#blobs.put(blob, sealed);
    return { blob };
  }

  /** Throws DATA_DIRECTORY_UNUSABLE when it is damaged or gone. */
  async open<T>(kept: {
    sealed?: Uint8Array | undefined;
    blob?: string | undefined;
  }): Promise<{ head: T; body: Uint8Array } | undefined> {
    const sealed = kept.sealed ?? (kept.blob && (await this.#blobs.get(kept.blob)));
    if (!sealed) return undefined;
    const plain = this.#sealer.open(sealed);
    const headEnd = lengthBytes + plain.readUInt32LE(0);
    return {
      head: JSON.parse(plain.toString('utf8', lengthBytes, headEnd)) as T,
      body: plain.subarray(headEnd),
    };
  }

  seal(plain: Uint8Array | string): Uint8Array {
    return this.#sealer.seal(plain);
  }

  readonly openText = (sealed: Uint8Array): string => this.#sealer.openText(sealed);

  async remove(blobs: Iterable<string | undefined>): Promise<void> {
    for (const blob of blobs) if (blob !== undefined) await this.#blobs.remove(blob);
  }

  /** Removes blobs that nobody names: of jobs that were not accepted, or whose end the gateway did not see. */
  async removeAllBut(named: ReadonlySet<string>): Promise<void> {
    const all = await this.#blobs.list();
    await this.remove(all.filter(blob => !named.has(blob)));
  }
}
