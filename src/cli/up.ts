/**
 * `fnway up`: a gateway for development. Starts it, applies the manifest, prints how to call each
 * function, then watches: a saved file is deployed by the same code as `apply`, only the function
 * that it belongs to.
 */
import path from 'node:path';
import type { Command } from 'commander';
import type { Client } from '../../client/client.ts';
import type { Outcome } from './apply.ts';
import { type Context, givenNamespace } from './context.ts';
import { problemOf } from './failure.ts';
import { curlLine } from './functions.ts';
import type { LoadedManifest } from './manifest.ts';
import { applyProject, durationText, loadProject, type Project } from './project.ts';
import {
  addGatewayOptions,
  clientInProcess,
  type RunningGateway,
  type ServeOptions,
  startGateway,
  untilSignal,
} from './serve.ts';
import type { Changes, Watched } from './watch.ts';

export function addUpCommand(program: Command, contextOf: (command: Command) => Context): void {
  addGatewayOptions(
    program
      .command('up')
      .description('start a gateway here, apply fnway.yaml, and deploy what you save')
      .argument('[dir]', 'directory of fnway.yaml', '.'),
  )
    .option('--no-watch', 'do not deploy what is saved')
    .action((directory, options, command) => {
      const context = contextOf(command);
      return up(context, { directory, options, namespace: givenNamespace(command, context.env) });
    });
}

async function up(
  context: Context,
  given: {
    directory: string;
    options: ServeOptions & { watch?: unknown };
    namespace: string | undefined;
  },
): Promise<void> {
  const { out, env } = context;
  const { watch, ...flags } = given.options as ServeOptions & { watch?: boolean };
  const project = await loadProject(given.directory);
  const running = await out.during('starting', () =>
    startGateway({ ...quietLog(env), ...flags }, env),
  );
  let close = async () => {};
  const stopped = untilSignal(context, async () => {
    if (!out.json) out.note('Stopping…');
    await close();
    await running.stop();
  });
  const client = clientInProcess(running, given.namespace ?? project.manifest.namespace);
  if (!out.json) out.line(heading(context, running));
  const outcomes = await applyProject(client, project, { out, line: text => out.line(text) });
  await printEndpoints(context, client, outcomes);
  if (watch !== false) close = await watchFor(context, client, project);
  await stopped;
  context.exit(0);
}

/** The log of a gateway would drown what `up` prints; warnings come through. */
function quietLog(env: Context['env']): ServeOptions {
  return {
    ...(!env.FNWAY_LOG_LEVEL && { logLevel: 'warn' }),
    ...(!env.FNWAY_LOG_FORMAT && { logFormat: 'text' }),
  };
}

function heading({ out }: Context, { url, config }: RunningGateway): string {
  const { colors } = out;
  const relative = path.relative('', config.dataDirectory);
  const data = relative.startsWith('..') ? config.dataDirectory : relative || '.';
  return `${colors.bold('fnway')} ${url} ${colors.dim(`(data in ${data})`)}`;
}

async function printEndpoints(
  { out }: Context,
  client: Client,
  outcomes: readonly Outcome[],
): Promise<void> {
  const endpoints = [];
  for (const { name, result } of outcomes) {
    if (result === 'removed' || result === 'refused') continue;
    // Read anew: a function whose newest version failed may still answer with an earlier one.
    const view = await client.getFunction(name).catch(() => undefined);
    if (view?.activeVersion === undefined) continue;
    endpoints.push({ name, url: client.url + view.endpoint, curl: await curlLine(client, view) });
  }
  endpoints.sort((a, b) => (a.name < b.name ? -1 : 1));
  if (out.json) {
    out.row({ url: client.url, functions: endpoints });
    return;
  }
  out.line();
  for (const { curl } of endpoints) out.line(`  ${curl}`);
  out.line();
}

/** Returns what ends the watching. */
async function watchFor(
  context: Context,
  client: Client,
  first: Project,
): Promise<() => Promise<void>> {
  const { out } = context;
  const { watchProject } = await import('./watch.ts');
  let { manifest } = first;
  const digests = new Map(first.desired.map(desired => [desired.name, desired.spec.source]));

  async function onChange(changes: Changes): Promise<void> {
    try {
      if (changes.manifest) {
        const project = await loadProject(manifest.file);
        manifest = project.manifest;
        for (const { name, spec } of project.desired) digests.set(name, spec.source);
        watcher.update(watchedOf(manifest));
        await reapply(context, client, project);
        return;
      }
      const { limited } = await import('./parallel.ts');
      await limited([...changes.functions], name =>
        redeploy(context, client, { manifest, name, digests }),
      );
    } catch (error) {
      out.problem(problemOf(error));
    }
  }

  const watcher = await watchProject(watchedOf(manifest), onChange);
  if (!out.json) {
    const watched = path.relative('', path.dirname(path.resolve(manifest.file))) || '.';
    out.line(out.colors.dim(`Watching ${watched}; press Ctrl+C to stop.`));
  }
  return () => watcher.close();
}

function watchedOf(manifest: LoadedManifest): Watched {
  const sources = new Map<string, string[]>();
  for (const { name, path: source } of manifest.functions.values()) {
    if (source === undefined) continue;
    const absolute = path.resolve(manifest.directory, source);
    sources.set(absolute, [...(sources.get(absolute) ?? []), name]);
  }
  return { manifest: path.resolve(manifest.file), sources };
}

/** After a change of the manifest: what apply does, telling only what is different now. */
async function reapply(context: Context, client: Client, project: Project): Promise<void> {
  const { out } = context;
  const { planProject } = await import('./project.ts');
  const { applyActions } = await import('./apply.ts');
  const actions = await planProject(client, project);
  await applyActions(
    client,
    actions.filter(action => action.kind !== 'unchanged'),
    { out, report: outcome => printReload(context, outcome) },
  );
}

/** Deploys one function if its source is another than the one that was deployed last. */
async function redeploy(
  context: Context,
  client: Client,
  project: { manifest: LoadedManifest; name: string; digests: Map<string, string | undefined> },
): Promise<void> {
  const { manifest, name, digests } = project;
  const startedMs = performance.now();
  const entry = manifest.functions.get(name);
  if (entry === undefined) return;
  const [{ readSource }, { putDesired }] = await Promise.all([
    import('./sources.ts'),
    import('./apply.ts'),
  ]);
  const took = () => Math.round(performance.now() - startedMs);
  try {
    const desired = await readSource(manifest, entry);
    if (digests.get(name) === desired.spec.source) return;
    digests.set(name, desired.spec.source);
    const work = () => putDesired(client, desired);
    const { outcome, ...rest } = await context.out.during(`building ${name}`, work);
    printReload(context, { name, result: outcome, durationMs: took(), ...rest });
  } catch (error) {
    const problem = problemOf(error);
    printReload(context, { name, result: 'failed', durationMs: took(), problem });
  }
}

/** `10:45:03 hello version 3 84 ms`, or what is wrong with it. */
function printReload({ out }: Context, outcome: Outcome): void {
  if (out.json) {
    out.row(outcome);
    return;
  }
  const { colors } = out;
  const { name, result, version, durationMs, problem } = outcome;
  const time = colors.dim(new Date().toTimeString().slice(0, 8));
  if (problem !== undefined) {
    // A failed build's own text begins with the name.
    const detail = problem.detail.startsWith(`${name} `)
      ? problem.detail
      : `${name} ${problem.detail}`;
    out.line(`${time} ${colors.red('✗')} ${detail}`);
    return;
  }
  // A leftover that stays is no news until the next apply that succeeds.
  if (result === 'kept') return;
  const made = version === undefined ? result : `version ${version}`;
  out.line(`${time} ${colors.green(`✓ ${name}`)} ${made} ${colors.dim(durationText(durationMs))}`);
}
