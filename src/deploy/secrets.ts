/**
 * The secrets of all namespaces: named values that are sealed at rest and opened when an instance needs them. Values go
 * nowhere but to functions that ask for them; nobody can read one back.
 */
import type { Sealer } from '../auth/seal.ts';
import type { Clock } from '../clock.ts';
import { GatewayError } from '../errors.ts';
import type { SecretRow, Store } from '../store/store.ts';

export interface SecretInfo {
  name: string;
  updatedMs: number;
}

export interface SecretsOptions {
  store: Store;
  sealer: Sealer;
  clock: Clock;
}

export class Secrets {
  readonly #options: SecretsOptions;
  readonly #rows = new Map<string, SecretRow>();
  #onChange: (namespace: string, name: string) => void = () => {};

  constructor(options: SecretsOptions) {
    this.#options = options;
  }

  async load(): Promise<void> {
    for (const row of await this.#options.store.secrets.list())
      this.#rows.set(keyOf(row.namespace, row.name), row);
  }

  /** Who is told of every new value, and that there is none any more, after it is stored. */
  set onChange(fn: (namespace: string, name: string) => void) {
    this.#onChange = fn;
  }

  async put(namespace: string, name: string, value: string): Promise<'created' | 'updated'> {
    const { store, sealer, clock } = this.#options;
    const row = { namespace, name, sealedValue: sealer.seal(value), updatedMs: clock.now() };
    const outcome = await store.secrets.put(row);
    this.#rows.set(keyOf(namespace, name), row);
    this.#onChange(namespace, name);
    return outcome;
  }

  /** Throws SECRET_NOT_FOUND. */
  async remove(namespace: string, name: string): Promise<void> {
    const isGone = await this.#options.store.secrets.remove(namespace, name);
    this.#rows.delete(keyOf(namespace, name));
    if (!isGone)
      throw new GatewayError(
        'SECRET_NOT_FOUND',
        `there is no secret ${name} in the namespace ${namespace}`,
      );
    this.#onChange(namespace, name);
  }

  /** In order of name. */
  list(namespace: string): SecretInfo[] {
    return [...this.#rows.values()]
      .filter(row => row.namespace === namespace)
      .map(({ name, updatedMs }) => ({ name, updatedMs }))
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  has(namespace: string, name: string): boolean {
    return this.#rows.has(keyOf(namespace, name));
  }

  /** Undefined when there is none. */
  valueOf(namespace: string, name: string): string | undefined {
    const row = this.#rows.get(keyOf(namespace, name));
    return row === undefined ? undefined : this.#options.sealer.openText(row.sealedValue);
  }
}

function keyOf(namespace: string, name: string): string {
  return `${namespace}/${name}`;
}
