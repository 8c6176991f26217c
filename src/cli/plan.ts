/**
 * What must change on a gateway so that it has what a manifest says. Pure: it compares normal
 * forms, defaults filled in, so that a setting left out equals the same setting spelled out.
 * apply.ts carries the actions out. Invariant: only a function of the manifest's own project is
 * removed, and a function of another is never touched.
 */
import type { FunctionView, RuntimeView, VersionView } from '../../client/api.ts';
import type { ErrorCode } from '../../client/errors.ts';
import { canonicalJson, operationParts, type VersionSpec } from '../domain/function.ts';
import { retryViewOf } from '../domain/retry.ts';
import { findRuntime } from '../domain/runtime.ts';
import { suggest } from '../domain/suggest.ts';
import { formatDuration, formatSize, parseDuration, parseSize } from '../domain/units.ts';
import { retryText } from './retry.ts';
import type { Desired } from './sources.ts';

export interface FieldChange {
  /** `timeout`, `instances.max`, `env.GREETING`. */
  field: string;
  /** Left out where the value may be private (env) or is too long to show (scripts). */
  before?: string;
  after?: string;
  /** A change of a version field makes a new version; one of settings takes effect at once. */
  part: 'version' | 'settings';
}

export type Action =
  | { kind: 'create'; name: string; desired: Desired }
  | {
      kind: 'update';
      name: string;
      desired: Desired;
      changes: FieldChange[];
      reason?: string;
      /** Somebody has changed it on the server since it was applied. */
      drifted?: boolean;
    }
  | { kind: 'unchanged'; name: string; desired: Desired; current: FunctionView }
  | { kind: 'remove'; name: string; reason: string }
  | { kind: 'refused'; name: string; reason: string; code: ErrorCode };

/**
 * One action for each function, in the order of the manifest, removals last. `runtimes` are those of the gateway, where
 * they are known.
 */
export function planFunctions(
  manifest: { project?: string; functions: readonly Desired[] },
  current: readonly FunctionView[],
  runtimes?: readonly KnownRuntime[],
): Action[] {
  const byName = new Map(current.map(view => [view.name, view]));
  const wanted = new Set(manifest.functions.map(desired => desired.name));
  const actions = manifest.functions.map(given => {
    const desired = runtimes === undefined ? given : withRuntimeName(given, runtimes);
    return (
      unrunnable(desired, runtimes) ?? planOne(manifest.project, desired, byName.get(desired.name))
    );
  });
  const { project } = manifest;
  // Without a project nobody knows what an earlier manifest has left behind.
  if (project === undefined) return actions;
  for (const view of current) {
    if (view.project !== project || wanted.has(view.name)) continue;
    const reason = `project ${project} no longer has it`;
    actions.push({ kind: 'remove', name: view.name, reason });
  }
  return actions;
}

type KnownRuntime = Pick<RuntimeView, 'name' | 'aliases'>;

/** The gateway keeps a runtime's own name, whatever alias the manifest has. */
function withRuntimeName(desired: Desired, runtimes: readonly KnownRuntime[]): Desired {
  const { runtime: wanted } = desired.spec;
  const runtime = wanted === undefined ? undefined : findRuntime(runtimes, wanted);
  if (runtime === undefined) return desired;
  return { ...desired, spec: { ...desired.spec, runtime: runtime.name } };
}

/** What the gateway would refuse; told by the plan, not only when it is carried out. */
function unrunnable(
  { name, spec }: Desired,
  runtimes: readonly KnownRuntime[] | undefined,
): Action | undefined {
  if (spec.kind === 'image') {
    const reason = 'the gateway has no container driver, so it cannot run images';
    return { kind: 'refused', name, reason, code: 'DRIVER_NOT_CONFIGURED' };
  }
  const { runtime } = spec;
  const names = runtimes?.map(({ name }) => name);
  if (runtime === undefined || names === undefined || names.includes(runtime)) return;
  const near = suggest(runtime, names);
  const hint = near === undefined ? `it has ${names.join(', ')}` : `did you mean ${near}?`;
  const reason = `the gateway has no runtime ${runtime}; ${hint}`;
  return { kind: 'refused', name, reason, code: 'RUNTIME_NOT_FOUND' };
}

function planOne(
  project: string | undefined,
  desired: Desired,
  current: FunctionView | undefined,
): Action {
  const { name } = desired;
  if (current === undefined) return { kind: 'create', name, desired };
  if (current.project !== undefined && current.project !== project) {
    const mine = project === undefined ? 'this manifest has no project' : `this is ${project}`;
    const reason = `it belongs to project ${current.project}, and ${mine}`;
    return { kind: 'refused', name, reason, code: 'FUNCTION_EXISTS' };
  }
  const changes = [
    ...changesOf(
      flatVersion(specOf(current.latestVersion)),
      flatVersion(desired.spec),
      'version' as const,
    ),
    ...changesOf(flatSettings(current), flatSettings(viewOf(desired)), 'settings' as const),
  ];
  if (changes.length > 0) {
    const drifted = current.drifted === true;
    const reason = 'changed on the server since it was applied';
    return { kind: 'update', name, desired, changes, ...(drifted && { drifted, reason }) };
  }
  if (current.latestVersion.state === 'failed') {
    const reason = `version ${current.latestVersion.number} failed; built again`;
    return { kind: 'update', name, desired, changes, reason };
  }
  const { number, state } = current.latestVersion;
  if (state === 'ready' && current.activeVersion !== number && current.traffic === undefined) {
    const reason = `version ${number} does not answer, another one was chosen; built again`;
    return { kind: 'update', name, desired, changes, reason };
  }
  return { kind: 'unchanged', name, desired, current };
}

/** Field → text. Two versions are the same when these are. */
type Flat = Map<string, string>;

/** A view tells units as people write them: `60s` and `1m` are the same. */
function specOf(view: VersionView): VersionSpec {
  const [entry, handler] = (view.entry ?? '').split(':');
  return {
    kind: view.kind,
    ...(view.runtime !== undefined && { runtime: view.runtime }),
    ...(view.source !== undefined && { source: view.source }),
    ...(view.script !== undefined && { script: view.script }),
    ...(view.url !== undefined && { url: view.url }),
    ...(entry && { entry }),
    ...(handler && { handler }),
    env: view.env,
    ...(view.schema !== undefined && { schema: view.schema }),
    ...(view.secrets !== undefined && { secrets: view.secrets as VersionSpec['secrets'] & {} }),
    buildEnv: view.buildEnv,
    timeoutMs: parseDuration(view.timeout) ?? Number.NaN,
    memoryBytes: parseSize(view.memory) ?? Number.NaN,
    stream: view.stream,
    allowScripts: view.allowScripts,
    ...(view.convention !== undefined && { convention: view.convention }),
    ...operationParts(view),
    ...(view.signature !== undefined && { signature: view.signature }),
  };
}

function flatVersion(spec: VersionSpec): Flat {
  const { env, buildEnv, timeoutMs, memoryBytes, entry, handler, ...rest } = spec;
  const flat: Flat = new Map();
  for (const [field, value] of Object.entries(rest)) {
    if (value !== undefined)
      flat.set(field, typeof value === 'string' ? value : canonicalJson(value));
  }
  flat.set('entry', handler === undefined ? (entry ?? '') : `${entry ?? ''}:${handler}`);
  flat.set('timeout', formatDuration(timeoutMs));
  flat.set('memory', formatSize(memoryBytes));
  addRecord(flat, 'env', env);
  addRecord(flat, 'buildEnv', buildEnv);
  return flat;
}

type SettingsView = Pick<
  FunctionView,
  | 'auth'
  | 'record'
  | 'retry'
  | 'queue'
  | 'concurrency'
  | 'instances'
  | 'labels'
  | 'description'
  | 'project'
>;

function viewOf({ settings }: Desired): SettingsView {
  const { min, max, idleMs } = settings.instances;
  const { record = 'calls', retry, ...same } = settings;
  return {
    ...same,
    record,
    ...(retry !== undefined && { retry: retryViewOf(retry) }),
    instances: { min, max, idle: formatDuration(idleMs) },
  };
}

function flatSettings(view: SettingsView): Flat {
  const { min, max, idle } = view.instances;
  const idleMs = parseDuration(idle);
  const flat: Flat = new Map([
    ['auth', view.auth],
    ['record', view.record],
    ['retry', view.retry === undefined ? '' : retryText(view.retry)],
    ['queue.concurrency', String(view.queue?.concurrency ?? '')],
    ['queue.waiting', String(view.queue?.waiting ?? '')],
    ['concurrency', String(view.concurrency ?? '')],
    ['instances.min', String(min)],
    ['instances.max', String(max)],
    ['instances.idle', idleMs === undefined ? idle : formatDuration(idleMs)],
    ['description', view.description],
    ['project', view.project ?? ''],
  ]);
  addRecord(flat, 'labels', view.labels);
  return flat;
}

function addRecord(flat: Flat, field: string, record: Readonly<Record<string, string>>): void {
  for (const [key, value] of Object.entries(record)) flat.set(`${field}.${key}`, value);
}

function changesOf(before: Flat, after: Flat, part: FieldChange['part']): FieldChange[] {
  const changes: FieldChange[] = [];
  for (const field of new Set([...before.keys(), ...after.keys()])) {
    const [from, to] = [before.get(field), after.get(field)];
    if ((from ?? '') === (to ?? '') && before.has(field) === after.has(field)) continue;
    const change: FieldChange = { field, part };
    // Values of env may be secrets: a plan ends up in logs of build servers.
    if (!/^(?:env|buildEnv)\.|^(?:script|source)$/.test(field)) {
      if (from) change.before = from;
      if (to) change.after = to;
    }
    changes.push(change);
  }
  return changes;
}
