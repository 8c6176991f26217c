/**
 * What manifests declare beside functions, in memory and true to the store: topics, subscriptions, schedules and other
 * triggers. All kinds are put, listed and removed alike; what each of them does is for who listens to its changes.
 */
import type { Sealer } from '../auth/seal.ts';
import type { Clock } from '../clock.ts';
import { canonicalJson } from '../domain/function.ts';
import {
  type DefinitionOf,
  type Named,
  type ResourceKind,
  resourceRules,
} from '../domain/resource.ts';
import { GatewayError } from '../errors.ts';
import { newId } from '../ids.ts';
import type { ResourceRow, Store } from '../store/store.ts';
import { Turn } from './turn.ts';

export interface Resource<K extends ResourceKind = ResourceKind> {
  readonly row: ResourceRow & { kind: K };
  readonly definition: DefinitionOf<K>;
  /** Which project's apply made it. */
  readonly project: string | undefined;
}

export interface ResourceChange {
  /** Absent: it is new. */
  before?: Resource;
  /** Absent: it was removed. */
  after?: Resource;
}

/** Throws what is wrong with a definition beside those that exist already. */
export type Check = (resource: {
  kind: ResourceKind;
  namespace: string;
  name: string;
  definition: unknown;
}) => void;

export interface ResourcesOptions {
  store: Pick<Store, 'resources'>;
  sealer: Sealer;
  clock: Clock;
}

export class Resources {
  readonly #options: ResourcesOptions;
  readonly #byKey = new Map<string, Resource>();
  readonly #byId = new Map<string, Resource>();
  readonly #listeners: Array<(change: ResourceChange) => Promise<void> | void> = [];
  readonly #turn = new Turn();
  /** Set by whoever knows functions. */
  check: Check = () => {};

  constructor(options: ResourcesOptions) {
    this.#options = options;
  }

  async load(): Promise<void> {
    for (const row of await this.#options.store.resources.list()) this.#keep(this.#open(row));
  }

  /** What a listener resolves is waited for: until then the change is not answered. */
  onChange(listener: (change: ResourceChange) => Promise<void> | void | undefined): void {
    this.#listeners.push(listener);
  }

  get<K extends ResourceKind>(kind: K, namespace: string, name: string): Resource<K> | undefined {
    return this.#byKey.get(keyOf(kind, namespace, name)) as Resource<K> | undefined;
  }

  /** Throws RESOURCE_NOT_FOUND. */
  find<K extends ResourceKind>(kind: K, namespace: string, name: string): Resource<K> {
    const found = this.get(kind, namespace, name);
    if (found !== undefined) return found;
    const detail = `there is no ${kind} ${name} in the namespace ${namespace}`;
    throw new GatewayError('RESOURCE_NOT_FOUND', detail);
  }

  byId(id: string): Resource | undefined {
    return this.#byId.get(id);
  }

  *all<K extends ResourceKind>(kind: K): Iterable<Resource<K>> {
    for (const resource of this.#byId.values())
      if (resource.row.kind === kind) yield resource as Resource<K>;
  }

  /** In order of name. */
  list<K extends ResourceKind>(kind: K, namespace: string): Array<Resource<K>> {
    return [...this.all(kind)]
      .filter(({ row }) => row.namespace === namespace)
      .sort((a, b) => (a.row.name < b.row.name ? -1 : 1));
  }

  /** Throws RESOURCE_EXISTS when it is another project's, and what `check` throws. */
  put<K extends ResourceKind>(
    kind: K,
    { namespace, name }: { namespace: string; name: string },
    given: { definition: DefinitionOf<K>; project: string | undefined },
  ): Promise<{ resource: Resource<K>; outcome: 'created' | 'updated' | 'unchanged' }> {
    return this.#turn.take(async () => {
      const before = this.get(kind, namespace, name);
      refuseTakeover(before, given.project);
      const { definition } = given;
      const project = given.project ?? before?.project;
      this.check({ kind, namespace, name, definition });
      const text = canonicalJson({ definition, project });
      if (before !== undefined && text === canonicalJson(specOf(before)))
        return { resource: before, outcome: 'unchanged' };
      const { beginsAnew } = resourceRules[kind];
      const nowMs = this.#options.clock.now();
      const isAnew = before === undefined || beginsAnew(before.definition, definition);
      const resource = await this.#store(before, {
        ...{ id: before?.row.id ?? newId(resourceRules[kind].idPrefix, nowMs), kind },
        ...{ namespace, name, sealedSpec: this.#options.sealer.seal(text) },
        isPaused: before?.row.isPaused ?? false,
        sinceMs: isAnew ? nowMs : before.row.sinceMs,
        ...{ createdMs: before?.row.createdMs ?? nowMs, updatedMs: nowMs },
      });
      return { resource, outcome: before === undefined ? 'created' : 'updated' };
    });
  }

  /** What happens while it is paused is none of its business later. */
  setPaused<K extends ResourceKind>(
    kind: K,
    { namespace, name }: { namespace: string; name: string },
    isPaused: boolean,
  ): Promise<Resource<K>> {
    return this.#turn.take(async () => {
      const before = this.find(kind, namespace, name);
      const { notPaused } = resourceRules[kind];
      if (notPaused !== undefined) throw new GatewayError('DEFINITION_INVALID', notPaused);
      if (before.row.isPaused === isPaused) return before;
      const nowMs = this.#options.clock.now();
      const { revision: _, ...row } = before.row;
      const sinceMs = isPaused ? row.sinceMs : nowMs;
      return this.#store(before, { ...row, isPaused, sinceMs, updatedMs: nowMs });
    });
  }

  /** Throws RESOURCE_NOT_FOUND and RESOURCE_IN_USE. */
  remove(kind: ResourceKind, namespace: string, name: string): Promise<void> {
    return this.#turn.take(async () => {
      const before = this.find(kind, namespace, name);
      this.#refuseInUse(before);
      await this.#options.store.resources.remove(before.row.id);
      this.#byKey.delete(keyOf(kind, namespace, name));
      this.#byId.delete(before.row.id);
      await this.#tell({ before });
    });
  }

  /** Those that name another: it must not go before them. */
  usersOf(kind: Named, namespace: string, name: string): Resource[] {
    return [...this.#byId.values()].filter(
      ({ row, definition }) =>
        row.namespace === namespace &&
        resourceRules[row.kind]
          .names(definition as never)
          .some(other => other.kind === kind && other.name === name),
    );
  }

  /**
   * Removes a function or a secret, unless a resource names it: none is put meanwhile. Throws RESOURCE_IN_USE, and what `remove`
   * throws.
   */
  removeNamed(
    { kind, namespace, name }: { kind: Named; namespace: string; name: string },
    remove: () => Promise<void>,
  ): Promise<void> {
    return this.#turn.take(async () => {
      refuseUsers(`${kind} ${name}`, this.usersOf(kind, namespace, name));
      return remove();
    });
  }

  #refuseInUse({ row: { kind, namespace, name } }: Resource): void {
    refuseUsers(`${kind} ${name}`, this.usersOf(kind, namespace, name));
  }

  async #store<K extends ResourceKind>(
    before: Resource<K> | undefined,
    row: Omit<ResourceRow, 'revision'>,
  ): Promise<Resource<K>> {
    const expected = before === undefined ? {} : { revision: before.row.revision };
    const stored = await this.#options.store.resources.put(row, expected);
    if (stored === 'conflict')
      throw new GatewayError('REVISION_CONFLICT', `${row.kind} ${row.name} was changed meanwhile`);
    const after = this.#open(stored) as Resource<K>;
    this.#keep(after);
    await this.#tell({ ...(before !== undefined && { before }), after });
    return after;
  }

  #open(row: ResourceRow): Resource {
    const spec = JSON.parse(this.#options.sealer.openText(row.sealedSpec));
    return { row, definition: spec.definition, project: spec.project };
  }

  #keep(resource: Resource): void {
    const { id, kind, namespace, name } = resource.row;
    this.#byKey.set(keyOf(kind, namespace, name), resource);
    this.#byId.set(id, resource);
  }

  async #tell(change: ResourceChange): Promise<void> {
    await Promise.all(this.#listeners.map(listener => listener(change)));
  }
}

/** Throws RESOURCE_IN_USE where there are any. */
function refuseUsers(what: string, users: readonly Resource[]): void {
  if (users.length === 0) return;
  const some = users.slice(0, 5).map(({ row }) => `${row.kind} ${row.name}`);
  const more = users.length > some.length ? ` and ${users.length - some.length} more` : '';
  const detail = `${what} is used by ${some.join(', ')}${more}`;
  throw new GatewayError('RESOURCE_IN_USE', detail);
}

function specOf({ definition, project }: Resource) {
  return { definition, project };
}

function refuseTakeover(before: Resource | undefined, project: string | undefined): void {
  const owner = before?.project;
  if (before === undefined || owner === undefined || owner === project || project === undefined)
    return;
  const { kind, name } = before.row;
  const detail = `${kind} ${name} belongs to project ${owner}, and this is ${project}`;
  throw new GatewayError('RESOURCE_EXISTS', detail);
}

function keyOf(kind: ResourceKind, namespace: string, name: string): string {
  return `${kind} ${namespace} ${name}`;
}
