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
import { curlLine } from './functions.ts';
import { applyProject, loadProject } from './project.ts';
import {
  addGatewayOptions,
  clientInProcess,
  type RunningGateway,
  type ServeOptions,
  startGateway,
  stopOnError,
  untilSignal,
} from './serve.ts';

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
  let isStopping = false;
  const stopped = untilSignal(context, async () => {
    isStopping = true;
    if (!out.json) out.note('Stopping…');
    await close();
    await running.stop();
  });
  const client = clientInProcess(running, given.namespace ?? project.manifest.namespace);
  if (!out.json) out.line(heading(context, running));
  await stopOnError(running, async () => {
    const outcomes = await applyProject(client, project, { out, line: text => out.line(text) });
    if (isStopping) return;
    await printEndpoints(context, client, outcomes);
    if (watch === false || isStopping) return;
    const { followChanges } = await import('./reload.ts');
    close = await followChanges(context, {
      directory: given.directory,
      client,
      project,
      outcomes,
    });
  });
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
