/**
 * Secrets as files: 0600, of the function's own user, in memory where the machine has a file system for that. A new value
 * takes the place of the old one at once, also for instances that run. Gone when the gateway stops, or at the next start.
 */
import {
  chmodSync,
  closeSync,
  existsSync,
  fchownSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Identity } from '../../invoke/invoke.ts';

const memoryDirectory = '/dev/shm';

export class SecretFiles {
  readonly #prefix: string;
  readonly #parent: string;
  #directory: string | undefined;

  /** `mark`: the gateway's own. Removes what a killed one has left. */
  constructor(mark: string) {
    this.#parent = existsSync(memoryDirectory) ? memoryDirectory : tmpdir();
    this.#prefix = `fnway-secrets-${mark}-`;
    for (const name of readdirSync(this.#parent))
      if (name.startsWith(this.#prefix)) this.#remove(join(this.#parent, name));
  }

  /** Writes a value; gives the path, which stays the same. */
  write(functionId: string, name: string, value: string, identity: Identity | undefined): string {
    const directory = join(this.#own(), functionId);
    // The gateway's own: the function passes through, but cannot put anything in the place of a name.
    mkdirSync(directory, { recursive: true, mode: identity === undefined ? 0o700 : 0o711 });
    const file = join(directory, name);
    // A name that no secret can have; moved, so that nobody reads a part.
    const part = join(directory, `.${name}`);
    rmSync(part, { force: true });
    const descriptor = openSync(part, 'wx', 0o600);
    try {
      if (identity !== undefined) fchownSync(descriptor, identity.uid, identity.gid);
      writeFileSync(descriptor, value);
    } finally {
      closeSync(descriptor);
    }
    renameSync(part, file);
    return file;
  }

  /** All of a function's, or one. */
  remove(functionId: string, name = ''): void {
    if (this.#directory !== undefined) this.#remove(join(this.#directory, functionId, name));
  }

  close(): void {
    if (this.#directory !== undefined) this.#remove(this.#directory);
    this.#directory = undefined;
  }

  #own(): string {
    if (this.#directory === undefined) {
      this.#directory = mkdtempSync(join(this.#parent, this.#prefix));
      // Functions' users pass through, each to its own.
      chmodSync(this.#directory, 0o711);
    }
    return this.#directory;
  }

  #remove(directory: string): void {
    rmSync(directory, { recursive: true, force: true });
  }
}
