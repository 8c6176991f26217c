/**
 * The part of `fnway up` that follows what is saved: a changed source is deployed by the same code as `apply`, only the
 * function that it belongs to; a changed manifest as a whole. Nothing is deployed, or told, twice. Loaded by `up` alone:
 * what it needs is heavy.
 */
import path from 'node:path';
import type { Client } from '../../client/client.ts';
import type { Problem } from '../../client/errors.ts';
import { canonicalJson } from '../domain/function.ts';
import { applyActions, asApplied, type Outcome, putDesired, refusalOf } from './apply.ts';
import type { Context } from './context.ts';
import { exitCodeOf, exitCodes, problemOf } from './failure.ts';
import { curlLine } from './functions.ts';
import { type LoadedManifest, manifestName } from './manifest.ts';
import { limited } from './parallel.ts';
import { durationText, loadProject, type Project, planProject } from './project.ts';
import { type Desired, readSource } from './sources.ts';
import { withoutCalls } from './traffic.ts';
import { type Changes, type Watched, watchProject } from './watch.ts';

/** What was tried last, so that nothing is deployed, or told, twice. */
interface Tried {
  /** Name → why it is not touched: it belongs to another project, or the gateway cannot run it. */
  readonly refused: Map<string, string>;
  /** Name → the definition whose outcome stands: it was deployed, or its author must change it. */
  readonly definitions: Map<string, string>;
  /** Those that cannot be as they are, `fnway.yaml` itself included. */
  readonly broken: Set<string>;
}

function remember(tried: Tried, desired: Desired, problem: Problem | undefined): void {
  const { name } = desired;
  if (problem === undefined) tried.broken.delete(name);
  else tried.broken.add(name);
  // What the gateway or the network could not do is tried again when anything is saved.
  const isOurs = problem !== undefined && exitCodeOf(problem) === exitCodes.platform;
  if (isOurs) tried.definitions.delete(name);
  else tried.definitions.set(name, textOf(desired));
}

function textOf({ spec, settings }: Desired): string {
  return canonicalJson({ spec, settings });
}

/** Returns what ends the watching. */
export async function followChanges(
  context: Context,
  first: { directory: string; client: Client; project: Project; outcomes: readonly Outcome[] },
): Promise<() => Promise<void>> {
  const { out } = context;
  const { client } = first;
  let { manifest } = first.project;
  const tried: Tried = { definitions: new Map(), broken: new Set(), refused: new Map() };
  for (const desired of first.project.desired) {
    const outcome = first.outcomes.find(({ name }) => name === desired.name);
    remember(tried, desired, outcome?.problem);
    if (outcome?.result === 'refused') tried.refused.set(desired.name, outcome.problem!.detail);
  }

  async function onManifest(): Promise<void> {
    const project = await loadProject(first.directory);
    const before = manifest;
    if (project.manifest.namespace !== before.namespace)
      told(context, 'The namespace is another now: restart `fnway up` to deploy to it.');
    manifest = project.manifest;
    watcher.update(watchedOf(manifest));
    const changes = await reapply(context, client, { project, tried });
    for (const name of before.functions.keys()) {
      if (manifest.functions.has(name)) continue;
      tried.definitions.delete(name);
      tried.broken.delete(name);
      tried.refused.delete(name);
      if (manifest.project !== undefined) continue;
      told(context, `${name} is declared no more, and stays. Remove it: fnway remove ${name}`);
    }
    if (tried.broken.delete(manifestName) && changes === 0)
      told(context, `${manifestName} is right again; nothing has changed`);
  }

  let lastProblem = '';
  async function onChange(changes: Changes): Promise<void> {
    try {
      if (changes.manifest) await onManifest();
      else {
        await limited([...changes.functions], name =>
          redeploy(context, client, { manifest, name, tried }),
        );
      }
      lastProblem = '';
    } catch (error) {
      tried.broken.add(manifestName);
      const problem = problemOf(error);
      // An editor saves in several steps: one mistake is told once.
      if (problem.detail === lastProblem) return;
      lastProblem = problem.detail;
      if (!out.json) out.line(`${timeText(context)} ${out.colors.red('✗')} ${manifestName}`);
      out.problem(problem);
    }
  }

  const watcher = await watchProject(watchedOf(manifest), {
    onChange,
    onError: error =>
      out.note(
        `Not everything is watched: ${error.message}. Restart \`fnway up\` after mending it.`,
      ),
  });
  if (!out.json) {
    const watched = path.relative('', path.dirname(path.resolve(manifest.file))) || '.';
    out.line(out.colors.dim(`Watching ${watched}; press Ctrl+C to stop.`));
  }
  return () => watcher.close();
}

function watchedOf(manifest: LoadedManifest): Watched {
  const sources = new Map<string, string[]>();
  for (const { name, path: source, schemaPaths } of manifest.functions.values()) {
    for (const written of [source, schemaPaths.in, schemaPaths.out]) {
      if (written === undefined) continue;
      const absolute = path.resolve(manifest.directory, written);
      sources.set(absolute, [...(sources.get(absolute) ?? []), name]);
    }
  }
  return { manifest: path.resolve(manifest.file), sources };
}

/** After a change of the manifest: what apply does, telling only what is different now. Gives how many were. */
async function reapply(
  context: Context,
  client: Client,
  { project, tried }: { project: Project; tried: Tried },
): Promise<number> {
  const { out } = context;
  const planned = await planProject(client, project);
  const actions = planned.actions.filter(action => {
    if (action.kind !== 'refused') tried.refused.delete(action.name);
    if (action.kind === 'unchanged') return false;
    if (action.kind === 'remove') return true;
    if (action.kind === 'refused') return tried.refused.get(action.name) !== refusalOf(action);
    if ('resource' in action) return true;
    const isAsBefore = tried.definitions.get(action.name) === textOf(action.desired);
    return !(isAsBefore && tried.broken.has(action.name));
  });
  const desiredOf = new Map(project.desired.map(desired => [desired.name, desired]));
  const outcomes = await applyActions(client, actions, {
    out,
    report(outcome) {
      printReload(context, outcome);
      const desired = desiredOf.get(outcome.name);
      if (desired !== undefined) remember(tried, desired, outcome.problem);
      if (outcome.result === 'refused') tried.refused.set(outcome.name, outcome.problem!.detail);
    },
  });
  if (!out.json) {
    for (const { result, function: view } of outcomes)
      if (result === 'created' && view !== undefined) out.line(`  ${await curlLine(client, view)}`);
  }
  return actions.length;
}

/** Deploys one function if it is another than the one that was tried last. */
async function redeploy(
  context: Context,
  client: Client,
  project: { manifest: LoadedManifest; name: string; tried: Tried },
): Promise<void> {
  const { manifest, name, tried } = project;
  const startedMs = performance.now();
  const entry = manifest.functions.get(name);
  // What a plan refuses is not ours to touch, whatever its source.
  if (entry === undefined || tried.refused.has(name)) return;
  const took = () => Math.round(performance.now() - startedMs);
  let desired: Desired | undefined;
  try {
    desired = await readSource(manifest, entry);
    if (tried.definitions.get(name) === textOf(desired)) {
      // Its source could not be read, and is what it was again.
      if (!tried.broken.has(sourceOf(name))) return;
      tried.broken.delete(sourceOf(name));
      return told(context, `${name} is as it was`);
    }
    const wanted = desired;
    const { outcome, ...rest } = await context.out.during(`building ${name}`, () =>
      putDesired(client, asApplied(wanted)),
    );
    remember(tried, desired, undefined);
    printReload(context, { name, result: outcome, durationMs: took(), ...rest });
  } catch (error) {
    const problem = problemOf(error);
    if (desired === undefined) {
      if (tried.broken.has(sourceOf(name))) return;
      tried.broken.add(sourceOf(name));
    } else remember(tried, desired, problem);
    printReload(context, { name, result: 'failed', durationMs: took(), problem });
  }
}

/** In `broken`: files that cannot be read, as opposed to a function that does not work. */
function sourceOf(name: string): string {
  return `${name}: source`;
}

function timeText({ out }: Context): string {
  return out.colors.dim(new Date().toTimeString().slice(0, 8));
}

function told(context: Context, text: string): void {
  if (!context.out.json) context.out.line(`${timeText(context)} ${text}`);
}

/** `10:45:03 hello version 3 84 ms`, or what is wrong with it. */
function printReload(context: Context, outcome: Outcome): void {
  const { out } = context;
  if (out.json) {
    out.row(outcome);
    return;
  }
  const { colors } = out;
  const { name, result, version, durationMs, problem } = outcome;
  const time = timeText(context);
  if (problem !== undefined) {
    // A failed build's own text begins with the name.
    const detail = problem.detail.startsWith(`${name} `)
      ? problem.detail
      : `${name} ${problem.detail}`;
    out.line(`${time} ${colors.red('✗')} ${detail}`);
    out.line(colors.dim(`           → ${problem.remedy}`));
    return;
  }
  // A leftover that stays is no news until the next apply that succeeds.
  if (result === 'kept') return;
  const made = version === undefined ? result : `version ${version}`;
  const idle = withoutCalls(outcome.function);
  out.line(
    `${time} ${colors.green(`✓ ${name}`)} ${made} ${colors.dim(durationText(durationMs))}${idle === undefined ? '' : colors.yellow(` ${idle}`)}`,
  );
}
