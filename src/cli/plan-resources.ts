/**
 * What must change beside functions: topics, subscriptions, schedules and other triggers, all alike. Pure: both sides have
 * every default in them, so that two definitions that mean the same are the same text.
 */
import type { ResourceView } from '../../client/api.ts';
import type { ErrorCode } from '../../client/errors.ts';
import { canonicalJson } from '../domain/function.ts';
import { type ResourceKind, resourceKinds } from '../domain/resource.ts';
import type { ManifestResource } from './manifest.ts';
import type { FieldChange } from './plan.ts';

interface Target {
  resource: ResourceKind;
  /** As it is told: `schedule nightly`. */
  name: string;
  /** Its own. */
  key: string;
}

export type ResourceAction = Target &
  (
    | { kind: 'create'; definition: object }
    | { kind: 'update'; definition: object; changes: FieldChange[] }
    | { kind: 'unchanged' }
    | { kind: 'remove'; reason: string }
    | { kind: 'refused'; reason: string; code: ErrorCode }
  );

export type CurrentResources = ReadonlyMap<ResourceKind, readonly ResourceView[]>;

/** One action for each resource, in the order in which they are made; removals last, the other way round. */
export function planResources(
  manifest: { project?: string; resources: readonly ManifestResource[] },
  current: CurrentResources,
): ResourceAction[] {
  const { project, resources } = manifest;
  const actions = resources.map(resource =>
    planOne(project, resource, current.get(resource.kind) ?? []),
  );
  if (project === undefined) return actions;
  const isWanted = new Set(actions.map(({ name }) => name));
  const leftovers = ownedBy(project, current)
    .filter(({ name }) => !isWanted.has(name))
    .map(target => removal(target, `project ${project} no longer has it`));
  return [...actions, ...leftovers];
}

/** Those that a project has applied, in the order in which they can be removed. */
export function ownedBy(project: string, current: CurrentResources): Target[] {
  return [...resourceKinds]
    .reverse()
    .flatMap(kind =>
      (current.get(kind) ?? [])
        .filter(view => view.project === project)
        .map(view => targetOf(kind, view.name)),
    );
}

/** Those of no project that a manifest does not have, as they are told. */
export function undeclaredIn(
  declared: readonly ManifestResource[],
  current: CurrentResources,
): string[] {
  const isDeclared = new Set(declared.map(({ kind, name }) => targetOf(kind, name).name));
  return [...current].flatMap(([kind, views]) =>
    views
      .filter(view => view.project === undefined)
      .map(view => targetOf(kind, view.name).name)
      .filter(name => !isDeclared.has(name)),
  );
}

export function targetOf(resource: ResourceKind, key: string): Target {
  return { resource, key, name: `${resource} ${key}` };
}

export function removal(target: Target, reason: string): ResourceAction {
  return { ...target, kind: 'remove', reason };
}

function planOne(
  project: string | undefined,
  { kind, name, definition }: ManifestResource,
  current: readonly ResourceView[],
): ResourceAction {
  const target = targetOf(kind, name);
  const wanted = { ...definition, ...(project !== undefined && { project }) };
  const view = current.find(other => other.name === name);
  if (view === undefined) return { ...target, kind: 'create', definition: wanted };
  if (view.project !== undefined && view.project !== project) {
    const mine = project === undefined ? 'this manifest has no project' : `this is ${project}`;
    const reason = `it belongs to project ${view.project}, and ${mine}`;
    return { ...target, kind: 'refused', reason, code: 'RESOURCE_EXISTS' };
  }
  const changes = changesOf(
    {
      ...(view.definition as object),
      ...(view.project !== undefined && { project: view.project }),
    },
    wanted,
  );
  if (changes.length === 0) return { ...target, kind: 'unchanged' };
  return { ...target, kind: 'update', definition: wanted, changes };
}

function changesOf(before: object, after: object): FieldChange[] {
  const [had, has] = [flat(before), flat(after)];
  return [...new Set([...had.keys(), ...has.keys()])]
    .filter(field => had.get(field) !== has.get(field))
    .map(field => {
      // What a function is sent may be private, and a plan ends up in logs of build servers.
      const isTold = !['body', 'push', 'url'].includes(field);
      const [from, to] = isTold ? [had.get(field), has.get(field)] : [];
      return {
        ...{ field, part: 'settings' as const },
        ...(from !== undefined && { before: from }),
        ...(to !== undefined && { after: to }),
      };
    });
}

function flat(definition: object): Map<string, string> {
  return new Map(
    Object.entries(definition)
      .filter(([, value]) => value !== undefined)
      .map(([field, value]) => [field, typeof value === 'string' ? value : canonicalJson(value)]),
  );
}
