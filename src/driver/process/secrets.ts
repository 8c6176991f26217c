/** What an instance is given of its function's secrets: variables and files. Whatever is given is hidden from then on. */
import type { Masks } from '../../auth/masks.ts';
import { fileVariable, setSecretRemedy } from '../../domain/secret.ts';
import { GatewayError } from '../../errors.ts';
import type { Identity, Version } from '../../invoke/invoke.ts';
import { SecretFiles } from './secret-files.ts';

export interface GivenSecrets {
  /** Of its environment. */
  env: Record<string, string>;
  /** Of LOAD: for `context.secrets`. */
  load: { secrets?: Record<string, string>; secretFiles?: Record<string, string> };
}

export class InstanceSecrets {
  readonly #secretOf: (namespace: string, name: string) => string | undefined;
  readonly #masks: Masks;
  readonly #files: SecretFiles;
  /** Functions that have a secret as a file, by the secret. */
  readonly #users = new Map<string, Map<string, Identity | undefined>>();

  constructor(options: {
    secretOf(namespace: string, name: string): string | undefined;
    masks: Masks;
    mark: string;
  }) {
    this.#secretOf = options.secretOf;
    this.#masks = options.masks;
    this.#files = new SecretFiles(options.mark);
  }

  /** Throws SECRET_MISSING. */
  give(version: Version): GivenSecrets {
    const { secrets: uses } = version.spec;
    if (uses === undefined) return { env: {}, load: {} };
    const env: Record<string, string> = {};
    const secrets: Record<string, string> = {};
    const secretFiles: Record<string, string> = {};
    for (const { name, as } of uses) {
      const value = this.#valueOf(version, name);
      if (as === 'env') {
        env[name] = value;
        secrets[name] = value;
      } else {
        const { functionId, files } = version;
        const file = this.#files.write(functionId, name, value, files?.identity);
        this.#note(version, name);
        env[fileVariable(name)] = file;
        secretFiles[name] = file;
      }
    }
    return { env, load: { secrets, secretFiles } };
  }

  rotate(namespace: string, name: string): void {
    const value = this.#secretOf(namespace, name);
    const users = this.#users.get(`${namespace}/${name}`);
    if (users === undefined) return;
    if (value === undefined) {
      for (const functionId of users.keys()) this.#files.remove(functionId, name);
      return;
    }
    // Hidden from all before anybody has it.
    for (const functionId of users.keys()) this.#masks.add(functionId, value);
    const failed: Error[] = [];
    for (const [functionId, identity] of users) {
      try {
        this.#files.write(functionId, name, value, identity);
      } catch (error) {
        // Each has a directory of its own: what is wrong with one is not the others'.
        failed.push(error as Error);
      }
    }
    if (failed.length === 0) return;
    const detail = `${name} has its new value, but ${failed.length} of ${users.size} functions that have it as a file could not be given it: ${failed[0]!.message}`;
    throw new GatewayError('DATA_DIRECTORY_UNUSABLE', detail, { cause: failed[0] });
  }

  forget(functionId: string): void {
    for (const users of this.#users.values()) users.delete(functionId);
    this.#files.remove(functionId);
    this.#masks.remove(functionId);
  }

  close(): void {
    this.#files.close();
  }

  #valueOf({ functionId, namespace }: Version, name: string): string {
    const value = this.#secretOf(namespace, name);
    if (value === undefined) {
      const detail = `the namespace ${namespace} has no secret ${name}`;
      throw new GatewayError('SECRET_MISSING', detail, { remedy: setSecretRemedy(name) });
    }
    this.#masks.add(functionId, value);
    return value;
  }

  #note({ functionId, namespace, files }: Version, name: string): void {
    const key = `${namespace}/${name}`;
    const users = this.#users.get(key) ?? new Map();
    users.set(functionId, files?.identity);
    this.#users.set(key, users);
  }
}
