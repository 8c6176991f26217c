/** `fnway plan`, `apply` and `destroy`: a directory with a manifest, against a gateway. */
import type { Command } from 'commander';
import type { FunctionView } from '../../client/api.ts';
import type { Client } from '../../client/client.ts';
import { GatewayError } from '../errors.ts';
import type { Outcome } from './apply.ts';
import type { Context, GlobalOptions } from './context.ts';
import { exitCodes } from './failure.ts';
import type { LoadedManifest } from './manifest.ts';
import type { Output } from './output.ts';
import type { Action, FieldChange } from './plan.ts';
import type { CurrentResources, ResourceAction } from './plan-resources.ts';
import type { Desired } from './sources.ts';
import { withoutCalls } from './traffic.ts';

type ContextOf = (command: Command) => Context;

export function addProjectCommands(program: Command, contextOf: ContextOf): void {
  program
    .command('plan')
    .description('show what apply would change')
    .argument('[dir]', 'directory of fnway.yaml', '.')
    .option('--exit-code', `end with ${exitCodes.changes} when something would change`)
    .action((directory, options, command) =>
      plan(contextOf(command), directory, { flags: flagsOf(command), ...options }),
    );
  program
    .command('apply')
    .description('make the gateway have what fnway.yaml says')
    .argument('[dir]', 'directory of fnway.yaml', '.')
    .option('--dry-run', 'show what would change, and change nothing')
    .action((directory, { dryRun }, command) =>
      dryRun
        ? plan(contextOf(command), directory, { flags: flagsOf(command) })
        : apply(contextOf(command), directory),
    );
  program
    .command('destroy')
    .description('remove the functions of fnway.yaml from the gateway')
    .argument('[dir]', 'directory of fnway.yaml', '.')
    .option('-y, --yes', 'do not ask')
    .option('--dry-run', 'show what would be removed, and remove nothing')
    .action((directory, options, command) => destroy(contextOf(command), directory, options));
}

export interface Project {
  manifest: LoadedManifest;
  desired: Desired[];
}

/**
 * Throws MANIFEST_INVALID, SOURCE_INVALID and SOURCE_TOO_LARGE, before anything is changed
 * anywhere.
 */
export async function loadProject(directory: string): Promise<Project> {
  const [{ loadManifest }, { readSources }] = await Promise.all([
    import('./manifest.ts'),
    import('./sources.ts'),
  ]);
  const manifest = await loadManifest(directory);
  return { manifest, desired: await readSources(manifest) };
}

/** Also those that the manifest does not declare and, without a project, nobody can say whether it once did. */
export async function planProject(
  client: Client,
  { manifest, desired }: Project,
): Promise<{ actions: Array<Action | ResourceAction>; undeclared: string[] }> {
  const { planFunctions } = await import('./plan.ts');
  const { planResources, undeclaredIn } = await import('./plan-resources.ts');
  const [current, { items }, resources] = await Promise.all([
    allFunctions(client),
    client.listRuntimes(),
    allResources(client),
  ]);
  const { project } = manifest;
  const actions = [
    ...planFunctions({ project, functions: desired }, current, items),
    ...planResources(manifest, resources),
  ];
  const undeclared = [
    ...current
      .filter(view => view.project === undefined && !manifest.functions.has(view.name))
      .map(view => view.name),
    ...undeclaredIn(manifest.resources, resources),
  ];
  return { actions, undeclared: project === undefined ? undeclared : [] };
}

/** Plans and applies; prints a line for each function, and the problems of those that failed. */
export async function applyProject(
  client: Client,
  project: Project,
  options: { out: Output; line: (text: string) => void },
): Promise<Outcome[]> {
  const { out, line } = options;
  const { applyActions } = await import('./apply.ts');
  const { actions } = await planProject(client, project);
  const width = Math.max(0, ...actions.map(action => action.name.length));
  return applyActions(client, actions, {
    out,
    report(outcome) {
      if (!out.json) line(outcomeLine(outcome, { width, out }));
      if (outcome.problem !== undefined) out.problem(outcome.problem);
    },
  });
}

/** What says which gateway and which namespace, as it was given; never the token. */
function flagsOf(command: Command): string {
  const { url, namespace } = command.optsWithGlobals<GlobalOptions>();
  return `${url ? ` --url ${url}` : ''}${namespace ? ` -n ${namespace}` : ''}`;
}

async function plan(
  context: Context,
  directory: string,
  { flags, exitCode }: { flags: string; exitCode?: boolean },
): Promise<void> {
  const { out } = context;
  const project = await loadProject(directory);
  const client = await context.client({ fromManifest: project.manifest.namespace });
  const { actions, undeclared } = await out.during('comparing', () => planProject(client, project));
  const idle = actions.every(action => action.kind === 'unchanged' || action.kind === 'refused');
  if (actions.some(action => action.kind === 'refused')) context.fail(exitCodes.usage);
  else if (exitCode && !idle) context.fail(exitCodes.changes);
  if (out.json) {
    out.value(actions.map(asJson));
    return;
  }
  for (const action of actions) printAction(out, action);
  out.line(
    summary(
      actions.map(action => action.kind),
      'nothing is declared',
    ),
  );
  if (undeclared.length > 0) {
    const some = undeclared.slice(0, 10).join(', ') + (undeclared.length > 10 ? ', …' : '');
    out.line(out.colors.dim(`Not declared here, and kept: ${some}`));
  }
  if (!idle) out.line(out.colors.dim(`Make it so: fnway apply ${directory}${flags}`));
}

async function apply(context: Context, directory: string): Promise<void> {
  const { out } = context;
  const project = await loadProject(directory);
  const client = await context.client({ fromManifest: project.manifest.namespace });
  const outcomes = await applyProject(client, project, { out, line: text => out.line(text) });
  const { exitCodeOfAll } = await import('./apply.ts');
  context.fail(exitCodeOfAll(outcomes));
  if (out.json) out.value(outcomes);
  else
    out.line(
      summary(
        outcomes.map(outcome => outcome.result),
        'nothing is declared',
      ),
    );
}

async function destroy(
  context: Context,
  directory: string,
  options: { yes?: boolean; dryRun?: boolean },
): Promise<void> {
  const { out } = context;
  if (!options.dryRun) checkAnswerable(context, options);
  const { loadManifest } = await import('./manifest.ts');
  const manifest = await loadManifest(directory);
  const client = await context.client({ fromManifest: manifest.namespace });
  const { project } = manifest;
  const current = await allFunctions(client);
  // A project is removed whole, leftovers included. Without one: what is declared, unless a project
  // owns it.
  const owned = current.filter(view =>
    project === undefined
      ? view.project === undefined && manifest.functions.has(view.name)
      : view.project === project,
  );
  const actions = [
    ...(await removedResources(client, manifest)),
    ...owned.map(({ name }) => ({ kind: 'remove' as const, name, reason: 'destroyed' })),
  ];
  if (options.dryRun) {
    if (out.json) return out.value(actions.map(asJson));
    for (const action of actions) printAction(out, action);
    return out.line(
      summary(
        actions.map(action => action.kind),
        'nothing to remove',
      ),
    );
  }
  if (actions.length > 0 && !options.yes) {
    const names = actions.map(({ name }) => name).join(', ');
    const answer = await ask(`Remove ${names} from ${client.url}? [y/N] `);
    if (answer !== 'yes') {
      out.note('Nothing was removed.');
      context.fail(answer === 'no' ? exitCodes.declined : exitCodes.interrupted);
      return;
    }
  }
  const { applyActions, exitCodeOfAll } = await import('./apply.ts');
  const outcomes = await applyActions(client, actions, {
    out,
    report(outcome) {
      if (!out.json) out.line(outcomeLine(outcome, { width: 0, out }));
      if (outcome.problem !== undefined) out.problem(outcome.problem);
    },
  });
  context.fail(exitCodeOfAll(outcomes));
  if (out.json) out.value(outcomes);
  else
    out.line(
      summary(
        outcomes.map(outcome => outcome.result),
        'nothing to remove',
      ),
    );
}

/** Refused before anything is asked of the gateway: a script fails the first time that it runs. */
function checkAnswerable({ out }: Context, { yes }: { yes?: boolean }): void {
  if (yes || (!out.json && process.stdin.isTTY && process.stderr.isTTY)) return;
  const detail = 'Destroy asks before it removes functions, and nobody can answer here.';
  throw new GatewayError('COMMAND_INVALID', detail, { remedy: 'Add --yes to remove them.' });
}

/** The end of the input, Ctrl-D, is a no. */
async function ask(question: string): Promise<'yes' | 'no' | 'interrupted'> {
  const { createInterface } = await import('node:readline');
  const reader = createInterface({ input: process.stdin, output: process.stderr });
  const answer = await new Promise<string | null | undefined>(resolve => {
    reader.question(question, resolve);
    reader.once('SIGINT', () => resolve(null));
    reader.once('close', () => resolve(undefined));
  });
  reader.close();
  if (typeof answer === 'string') return /^y(?:es)?$/i.test(answer.trim()) ? 'yes' : 'no';
  // The cursor still stands behind the question.
  process.stderr.write('\n');
  return answer === null ? 'interrupted' : 'no';
}

/** Those of the project; without one, those that are declared and belong to no other. */
async function removedResources(
  client: Client,
  { project, resources }: LoadedManifest,
): Promise<ResourceAction[]> {
  const { ownedBy, removal, targetOf } = await import('./plan-resources.ts');
  const current = await allResources(client);
  if (project !== undefined)
    return ownedBy(project, current).map(target => removal(target, 'destroyed'));
  return resources
    .filter(({ kind, name }) =>
      current.get(kind)?.some(view => view.name === name && view.project === undefined),
    )
    .reverse()
    .map(({ kind, name }) => removal(targetOf(kind, name), 'destroyed'));
}

async function allResources(client: Client): Promise<CurrentResources> {
  const { resourceKinds, resourceRules } = await import('../domain/resource.ts');
  const listed = resourceKinds.map(async kind => {
    const { plural } = resourceRules[kind];
    return [kind, await Array.fromAsync(client.resources(plural).each({ limit: 1000 }))] as const;
  });
  return new Map(await Promise.all(listed));
}

async function allFunctions(client: Client): Promise<FunctionView[]> {
  return Array.fromAsync(client.eachFunction({ limit: 1000 }));
}

const marks = {
  create: '+',
  update: '~',
  unchanged: '=',
  remove: '-',
  refused: '✗',
} as const satisfies Record<Action['kind'], string>;

function printAction(out: Output, action: Action | ResourceAction): void {
  const { colors } = out;
  const paint = {
    create: colors.green,
    update: colors.yellow,
    unchanged: colors.dim,
    remove: colors.red,
    refused: colors.red,
  }[action.kind];
  const reason = 'reason' in action && action.reason ? `: ${action.reason}` : '';
  out.line(paint(`${marks[action.kind]} ${action.name}  ${action.kind}${reason}`));
  if (action.kind !== 'update') return;
  for (const change of action.changes) out.line(`    ${changeText(change)}`);
  const makesVersion = action.changes.some(change => change.part === 'version');
  if (action.changes.length > 0 && !('resource' in action)) {
    out.line(colors.dim(makesVersion ? '    a new version' : '    settings only; no new version'));
  }
}

function changeText({ field, before, after }: FieldChange): string {
  if (before === undefined && after === undefined) return `${field} changed`;
  return `${field}: ${before ?? '(none)'} → ${after ?? '(none)'}`;
}

/** Without the files of the sources. */
function asJson(action: Action | ResourceAction): unknown {
  const { name, kind } = action;
  return {
    name,
    kind,
    ...('resource' in action && { resource: action.resource }),
    ...('changes' in action && { changes: action.changes }),
    ...('drifted' in action && { drifted: true }),
    ...('reason' in action && action.reason !== undefined && { reason: action.reason }),
  };
}

function outcomeLine(outcome: Outcome, { width, out }: { width: number; out: Output }): string {
  const { colors } = out;
  const [mark, paint] = {
    created: ['+', colors.green],
    updated: ['~', colors.yellow],
    unchanged: ['=', colors.dim],
    removed: ['-', colors.red],
    failed: ['✗', colors.red],
    refused: ['✗', colors.red],
    kept: ['=', colors.dim],
  }[outcome.result] as [string, (text: string) => string];
  const version = outcome.version === undefined ? '' : ` version ${outcome.version}`;
  const why = outcome.result === 'kept' ? ' because others failed' : '';
  const time = outcome.durationMs < 10 ? '' : colors.dim(` ${durationText(outcome.durationMs)}`);
  const text = `${mark} ${outcome.name.padEnd(width)}  ${outcome.result}${version}${why}`;
  const idle = withoutCalls(outcome.function);
  return paint(text) + time + (idle === undefined ? '' : colors.yellow(` ${idle}`));
}

export function durationText(ms: number): string {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** `2 created, 1 unchanged`. */
function summary(kinds: readonly string[], none: string): string {
  const counts = new Map<string, number>();
  for (const kind of kinds) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  const past: Record<string, string> = {
    create: 'to create',
    update: 'to update',
    remove: 'to remove',
  };
  const parts = [...counts].map(([kind, count]) => `${count} ${past[kind] ?? kind}`);
  return parts.length === 0 ? none : parts.join(', ');
}
