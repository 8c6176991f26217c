/**
 * `fnway serve`: the gateway as a server. Prints one line with its address when it is ready.
 * SIGTERM and SIGINT let calls in flight finish and end it with 0; a second signal ends it at once.
 */
import type { Command } from 'commander';
import { createClient, type Fetch } from '../../client/client.ts';
import type { Config } from '../config.ts';
import { GatewayError, isGatewayError } from '../errors.ts';
import type { Gateway } from '../main.ts';
import { leaveAddress, leftAddress, takeAddress } from './access.ts';
import { type Context, givenNamespace } from './context.ts';
import { refusedByMachine } from './failure.ts';
import { applyProject, loadProject, type Project } from './project.ts';

/** Flags of a gateway as commander gives them; parseConfig knows what they mean. */
export type ServeOptions = Record<string, string | string[] | boolean | undefined>;

export function addServeCommand(program: Command, contextOf: (command: Command) => Context): void {
  addGatewayOptions(
    program.command('serve').description('start a gateway and serve until it is told to stop'),
  )
    .option('--apply <dir>', 'apply this directory’s fnway.yaml first')
    .option('--no-http', 'listen nowhere: for a project that has only schedules (FNWAY_HTTP)')
    .action((options, command) => {
      const context = contextOf(command);
      return serve(context, { options, namespace: givenNamespace(command, context.env) });
    });
}

/**
 * Those of parseConfig that people use; all others have environment variables
 * (docs/reference/config.md).
 */
export function addGatewayOptions(command: Command): Command {
  return command
    .option('--data <dir>', 'directory of all state (FNWAY_DATA, default .fnway)')
    .option('--host <host>', 'address to listen on (FNWAY_HOST, default 127.0.0.1)')
    .option('--port <port>', 'port, 0 takes a free one (FNWAY_PORT, default 8080)')
    .option('--runtimes <dirs...>', 'directories of more runtimes (FNWAY_RUNTIMES)')
    .option('--middleware <files...>', 'modules around every call (FNWAY_MIDDLEWARE)')
    .option('--log-level <level>', 'debug, info, warn, error or silent (FNWAY_LOG_LEVEL)')
    .option('--log-format <format>', 'json or text (FNWAY_LOG_FORMAT)');
}

export interface RunningGateway {
  gateway: Gateway;
  config: Config;
  /** Undefined where it listens nowhere. */
  url: string | undefined;
  /** Lets calls in flight finish. Use this one, which also takes back the address left. */
  stop(): Promise<void>;
}

/** Loads the gateway's code, which no other command needs, and starts it. */
export async function startGateway(
  flags: ServeOptions,
  env: Context['env'],
): Promise<RunningGateway> {
  const [{ createGateway }, { parseConfig }] = await Promise.all([
    import('../main.ts'),
    import('../config.ts'),
  ]);
  const config = parseConfig(asText(flags), env);
  const gateway = await createGateway(config).catch(error => explainStart(error, config));
  try {
    const { url } = await gateway.start().catch(error => explainStart(error, config));
    if (url !== undefined) await leaveAddress(config.dataDirectory, url);
    async function stop(): Promise<void> {
      // First, while the directory is still ours: what starts next in it leaves its own.
      takeAddress(config.dataDirectory);
      await gateway.stop();
    }
    return { gateway, config, url, stop };
  } catch (error) {
    await gateway.stop().catch(() => {});
    throw error;
  }
}

/** `--no-http` is false; what is not given is left to the environment. */
function asText({ http, ...flags }: ServeOptions): Record<string, string | string[] | undefined> {
  return {
    ...(flags as Record<string, string | string[]>),
    ...(http === false && { http: 'false' }),
  };
}

/** Names the gateway that has the data directory, where it has left its address; and what the machine refused. */
async function explainStart(error: unknown, { dataDirectory }: Config): Promise<never> {
  if (!isGatewayError(error)) throw refusedByMachine(error, 'DATA_DIRECTORY_UNUSABLE') ?? error;
  if (error.code !== 'DATA_DIRECTORY_LOCKED') throw error;
  const url = await leftAddress(dataDirectory);
  if (url === undefined) throw error;
  throw new GatewayError(error.code, `${error.message}. It serves at ${url}.`, {
    cause: error,
    remedy: 'Use that one (`fnway apply`), stop it, or use another --data directory.',
  });
}

/** Talks to the gateway in this process, without a socket. */
export function clientInProcess(running: RunningGateway, namespace: string | undefined) {
  const { gateway, url } = running;
  return createClient({
    url: url ?? 'http://localhost',
    token: gateway.adminToken,
    fetch: gateway.fetch as Fetch,
    ...(namespace !== undefined && { namespace }),
  });
}

/** A command that fails must leave nothing running: the gateway would outlive what is told of it. */
export async function stopOnError<T>(running: RunningGateway, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    await running.stop();
    throw error;
  }
}

/** Between the two times that one signal may come. */
const sameSignalMs = 200;

/**
 * Resolves after the first SIGTERM or SIGINT and a clean stop. A second one ends the process at
 * once, unless it is the same one, which came to the group and to the process.
 */
export async function untilSignal(context: Context, stop: () => Promise<void>): Promise<void> {
  await new Promise<void>(resolve => {
    let firstMs: number | undefined;
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      process.on(signal, () => {
        const nowMs = performance.now();
        firstMs ??= nowMs;
        if (firstMs === nowMs) resolve();
        else if (nowMs - firstMs > sameSignalMs) context.exit(1);
      });
    }
  });
  await stop();
}

async function serve(
  context: Context,
  given: { options: ServeOptions; namespace: string | undefined },
): Promise<void> {
  const { out, env } = context;
  const { apply, ...flags } = given.options;
  // Read first: a manifest with mistakes stops a gateway before it has changed anything.
  const project = typeof apply === 'string' ? await loadProject(apply) : undefined;
  const running = await startGateway(flags, env);
  const { url } = running;
  let isStopping = false;
  const stopped = untilSignal(context, () => {
    isStopping = true;
    return running.stop();
  });
  if (project !== undefined) {
    const namespace = given.namespace ?? project.manifest.namespace;
    await stopOnError(running, () => applyFirst(context, { running, project, namespace }));
  }
  // A gateway that listens nowhere has nothing else that keeps its process alive.
  const alive = setInterval(() => {}, 2 ** 30);
  // Who waits for this line must not take a gateway that goes for one that comes.
  if (isStopping) await stopped;
  else if (out.json) out.row({ url });
  else out.line(url === undefined ? 'fnway running without HTTP' : `fnway listening on ${url}`);
  await stopped;
  clearInterval(alive);
  context.exit(0);
}

/**
 * A function that does not build is told, and the others are served; its earlier version still
 * answers.
 */
async function applyFirst(
  { out }: Context,
  given: { running: RunningGateway; project: Project; namespace: string | undefined },
): Promise<void> {
  const { running, project, namespace } = given;
  const client = clientInProcess(running, namespace);
  await applyProject(client, project, { out, line: text => out.note(text) });
}
