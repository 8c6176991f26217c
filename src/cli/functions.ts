/** `fnway deploy`, `list`, `describe` and `remove`: single functions on a gateway. */
import path from 'node:path';
import { type Command, InvalidArgumentError, Option } from 'commander';
import type {
  FunctionDefinition,
  FunctionView,
  Signature,
  VersionFailure,
  VersionView,
} from '../../client/api.ts';
import { type Client, isApiError } from '../../client/client.ts';
import { GatewayError } from '../errors.ts';
import { type Context, checkName } from './context.ts';
import { placeOf } from './failure.ts';
import { printable } from './output.ts';
import { durationText } from './project.ts';
import { retryText } from './retry.ts';
import { trafficText, withoutCalls } from './traffic.ts';

type ContextOf = (command: Command) => Context;

export function addFunctionCommands(program: Command, contextOf: ContextOf): void {
  addDeploy(program, contextOf);
  program
    .command('list')
    .description('list the functions of the namespace')
    .option('--label <key=value>', 'only those with this label (repeat for several)', collect)
    .addOption(
      new Option('--state <state>', 'only those in this state').choices([
        'building',
        'ready',
        'failed',
      ]),
    )
    .option('--prefix <text>', 'only names that start so')
    .action((options, command) => list(contextOf(command), options));
  program
    .command('describe')
    .description('show a function: versions, settings, endpoint, instances')
    .argument('<name>', 'name of the function')
    .action((name, _options, command) => describe(contextOf(command), name));
  program
    .command('remove')
    .description('remove a function and all its versions')
    .argument('<name>', 'name of the function')
    .action((name, _options, command) => remove(contextOf(command), name));
}

interface DeployOptions {
  runtime?: string;
  source?: string;
  script?: string;
  http?: string;
  image?: string;
  entry?: string;
  env?: string[];
  secret?: string[];
  buildEnv?: string[];
  label?: string[];
  timeout?: string;
  memory?: string;
  concurrency?: number;
  min?: number;
  max?: number;
  idle?: string;
  auth?: 'token' | 'none';
  record?: 'calls' | 'bodies';
  stream?: boolean;
  allowScripts?: boolean;
  signature?: Signature;
  description?: string;
}

function addDeploy(program: Command, contextOf: ContextOf): void {
  program
    .command('deploy')
    .description('create or change one function without a manifest')
    .argument('<name>', 'name of the function')
    .option('--runtime <name>', 'runtime of the source: node, python, go, shell, …')
    .option('--source <path>', 'directory or file to upload')
    .option('--script <text>', 'inline shell, instead of a source')
    .option('--http <url>', 'address of a server that already runs, instead of a source')
    .option('--image <name>', 'container image, instead of a source')
    .option('--entry <file[:handler]>', 'where in the source the function is')
    .option('--env <key=value>', 'environment of the function (repeat for several)', collect)
    .option(
      '--secret <name[:file]>',
      'a secret of the namespace, as a variable or a file (repeat)',
      collect,
    )
    .option('--build-env <key=value>', 'environment of its build (repeat)', collect)
    .option('--timeout <duration>', 'longest call: 500ms, 30s, 2m')
    .option('--memory <size>', 'most memory of an instance: 256Mi, 1Gi')
    .option('--concurrency <n>', 'calls at once in one instance', integer)
    .option('--min <n>', 'instances kept ready', integer)
    .option('--max <n>', 'most instances', integer)
    .option('--idle <duration>', 'an instance without calls ends after this')
    .addOption(new Option('--auth <kind>', 'who may call it').choices(['token', 'none']))
    .addOption(
      new Option('--record <what>', 'what is kept of each call').choices(['calls', 'bodies']),
    )
    .option('--stream', 'stream replies that are buffered otherwise')
    .option('--allow-scripts', 'let packages run their install scripts')
    .addOption(
      new Option(
        '--signature <type>',
        'how a function of the functions framework is called',
      ).choices(['http', 'event', 'cloudevent', 'typed']),
    )
    .option('--label <key=value>', 'label (repeat for several)', collect)
    .option('--description <text>', 'what it is for')
    .action((name, options, command) => deploy(contextOf(command), name, options));
}

async function deploy(context: Context, name: string, options: DeployOptions): Promise<void> {
  const { out } = context;
  const startedMs = performance.now();
  const [{ putDesired }] = await Promise.all([import('./apply.ts'), checkName(name)]);
  const client = await context.client();
  const definition = definitionOf(options);
  // A manifest's function stays its project's: the next apply finds it and brings it back in line.
  const project = (await currentOf(client, name))?.project;
  if (project !== undefined) definition.project = project;
  const uploaded = options.source === undefined ? undefined : await readUpload(options.source);
  if (uploaded !== undefined) {
    definition.source = { digest: uploaded.digest };
    const entry = await uploaded.entryOf(definition.entry);
    if (entry !== undefined) definition.entry = entry;
  }
  const put = await out.during(`building ${name}`, () =>
    putDesired(client, { name, definition, tree: uploaded?.tree }),
  );
  if (out.json) {
    out.value(put);
    return;
  }
  const version = put.version === undefined ? '' : ` version ${put.version}`;
  const idle = withoutCalls(put.function);
  const time = durationText(performance.now() - startedMs);
  out.line(`${out.colors.green(`✓ ${name}  ${put.outcome}${version}`)} ${out.colors.dim(time)}`);
  if (idle !== undefined) out.note(`Version ${put.function.latestVersion.number} ${idle}.`);
  out.line(`  ${await curlLine(client, put.function)}`);
}

/** A directory or a file, as it is uploaded. */
export async function readUpload(source: string) {
  const [{ readTree, treeDigest }, { entryOf }] = await Promise.all([
    import('../build/source.ts'),
    import('./sources.ts'),
  ]);
  const location = path.resolve(source);
  const tree = await readTree(location);
  const withEntry = (entry: string | undefined) => entryOf(location, entry);
  return { tree, digest: treeDigest(tree), entryOf: withEntry };
}

function definitionOf(options: DeployOptions): FunctionDefinition {
  const { runtime, script, image, entry, timeout, memory, concurrency, auth, record } = options;
  const { stream, allowScripts, signature, description, http, min, max, idle } = options;
  const instances = withoutUndefined({ min, max, idle });
  return withoutUndefined<FunctionDefinition>({
    runtime,
    script,
    image,
    entry,
    timeout,
    memory,
    concurrency,
    auth,
    record,
    stream,
    allowScripts,
    signature,
    description,
    http: http === undefined ? undefined : { url: http },
    instances: Object.keys(instances).length === 0 ? undefined : instances,
    env: pairs(options.env, '--env'),
    secrets: options.secret?.map(secretUse),
    buildEnv: pairs(options.buildEnv, '--build-env'),
    labels: pairs(options.label, '--label'),
  });
}

async function currentOf(client: Client, name: string): Promise<FunctionView | undefined> {
  try {
    return await client.getFunction(name);
  } catch (error) {
    if (isApiError(error) && error.code === 'FUNCTION_NOT_FOUND') return undefined;
    throw error;
  }
}

async function list(
  context: Context,
  options: { label?: string[]; state?: FunctionView['state']; prefix?: string },
): Promise<void> {
  const { out } = context;
  const client = await context.client();
  const { label, state, prefix } = options;
  const filter = withoutUndefined({ labels: label, state, prefix, limit: 1000 });
  const functions = await out.during('listing', () => Array.fromAsync(client.eachFunction(filter)));
  if (out.json) {
    out.value(functions);
    return;
  }
  if (functions.length === 0) {
    const isFiltered = Object.values(options).some(value => value !== undefined);
    const place = `the namespace ${client.namespace}`;
    if (isFiltered) out.note(`No function in ${place} is like that.`);
    else out.note(`No functions in ${place}. Start one: fnway new node hello`);
    return;
  }
  out.table([
    ['NAME', 'KIND', 'VERSION', 'STATE', 'AUTH', 'PROJECT', 'ENDPOINT'],
    ...functions.map(view => [
      view.name,
      view.latestVersion.runtime ?? view.latestVersion.kind,
      versionText(view),
      view.state,
      view.auth,
      view.project ?? '-',
      view.endpoint,
    ]),
  ]);
}

/** Those that answer, and the newest where that is none of them. */
function versionText(view: FunctionView): string {
  const { activeVersion, traffic, latestVersion } = view;
  const answering = traffic === undefined ? [activeVersion ?? 'none'] : Object.keys(traffic.shares);
  const text = answering.join('+');
  return answering.map(Number).includes(latestVersion.number)
    ? text
    : `${text} (newest ${latestVersion.number})`;
}

async function describe(context: Context, name: string): Promise<void> {
  const { out } = context;
  const client = await context.client();
  const view = await client.getFunction(name);
  const { items: versions } = await client.listVersions(name);
  const latest = await client.getVersion(name, view.latestVersion.number);
  if (out.json) {
    out.value({ ...view, latestVersion: latest, versions });
    return;
  }
  const { colors } = out;
  const { instances, running } = view;
  const rows: [string, string | undefined][] = [
    ['state', view.state],
    ['answers', trafficText(view)],
    ['project', view.project],
    ['description', view.description || undefined],
    ...contentRows(latest),
    ['timeout', latest.timeout],
    ['memory', latest.memory],
    ['retry', view.retry && retryText(view.retry)],
    ['queue', queueText(view)],
    ['concurrency', await concurrencyText(client, view)],
    ['instances', `${instances.min} to ${instances.max}, ended when idle for ${instances.idle}`],
    [
      'running',
      running && `${running.ready} ready, ${running.busy} busy, ${running.starting} starting`,
    ],
    ['labels', recordText(view.labels)],
    ['auth', view.auth],
    ['record', view.record],
    ['call', await curlLine(client, view)],
  ];
  out.line(colors.bold(`${view.namespace}/${view.name}`));
  for (const [key, value] of rows) {
    if (value !== undefined)
      out.line(
        `  ${colors.dim(key.padEnd(12))} ${printable(value.trimEnd()).replaceAll('\n', '\n               ')}`,
      );
  }
  out.line(colors.dim('  versions'));
  for (const version of versions) {
    const failure = version.failure === undefined ? '' : `  ${failureText(version.failure)}`;
    out.line(`    v${version.number}  ${version.state}  ${version.createdAt}${failure}`);
  }
  if (latest.state === 'failed' && latest.buildLog) {
    out.line(colors.dim(`  build log of v${latest.number}`));
    for (const line of latest.buildLog.trimEnd().split('\n')) out.line(`    | ${printable(line)}`);
  }
}

/** What makes the version. */
function contentRows(version: VersionView): Array<[string, string | undefined]> {
  const { secrets, args, argKeys, allowExitCodes, result, schema } = version;
  return [
    ['kind', version.kind],
    ['runtime', version.runtime],
    ['entry', version.entry],
    ['script', version.script],
    ['url', version.url],
    ['source', version.source],
    ['env', recordText(version.env)],
    [
      'secrets',
      secrets?.map(({ name, as }) => `${name}${as === 'file' ? ' as a file' : ''}`).join(', '),
    ],
    ['args', args && JSON.stringify(args)],
    ['arg keys', argKeys?.join(', ')],
    ['exit codes', allowExitCodes && `allowed: ${[allowExitCodes].flat().join(', ')}`],
    ['result', result && JSON.stringify(result)],
    ['convention', version.convention],
    ['signature', version.signature],
    [
      'schema',
      schema &&
        Object.keys(schema)
          .map(key => `schema.${key}`)
          .join(', '),
    ],
    ['build env', recordText(version.buildEnv)],
  ];
}

async function concurrencyText(client: Client, view: FunctionView): Promise<string | undefined> {
  if (view.concurrency !== undefined) return String(view.concurrency);
  const { kind, runtime = kind === 'script' ? 'shell' : undefined } = view.latestVersion;
  if (runtime === undefined) return undefined;
  const { items } = await client.listRuntimes();
  const found = items.find(item => item.name === runtime);
  return found && `${found.concurrency}, as the runtime says`;
}

/** `handler.ts:3:5: Unexpected ";"`, the first line of it. */
function failureText({ message, ...place }: VersionFailure): string {
  const [text = ''] = message.split('\n');
  const at = placeOf(place);
  return printable(at === '' || text.startsWith(at) ? text : `${at}: ${text}`);
}

function queueText({ queue }: FunctionView): string | undefined {
  const parts = [
    queue?.concurrency !== undefined && `${queue.concurrency} at once`,
    queue?.waiting !== undefined && `at most ${queue.waiting} waiting`,
  ].filter(part => part !== false);
  return parts.length === 0 ? undefined : parts.join(', ');
}

function recordText(record: Readonly<Record<string, string>>): string | undefined {
  const pairs = Object.entries(record).map(([key, value]) => `${key}=${value}`);
  return pairs.length === 0 ? undefined : pairs.join('\n');
}

async function remove(context: Context, name: string): Promise<void> {
  const { out } = context;
  const client = await context.client();
  await out.during(`removing ${name}`, () => client.removeFunction(name));
  if (out.json) out.value({ removed: name });
  else out.line(`- ${name}  removed`);
}

/**
 * A line that answers when it is pasted into a shell, with the function's own token where it needs
 * one.
 */
export async function curlLine(client: Client, view: FunctionView): Promise<string> {
  const address = `${client.url}${view.endpoint}`;
  if (view.auth === 'none') return `curl ${address}`;
  const { token } = await client.getToken(view.name);
  return `curl -H "Authorization: Bearer ${token}" ${address}`;
}

function collect(value: string, before: string[] = []): string[] {
  return [...before, value];
}

export function integer(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError('Give a whole number.');
  return Number(text);
}

/** `API_KEY`, or `CERT:file`. */
function secretUse(text: string): { name: string; as: 'env' | 'file' } {
  const [name = '', as = 'env'] = text.split(':');
  if (as === 'env' || as === 'file') return { name, as };
  const detail = `--secret is given ${JSON.stringify(text)}.`;
  throw new GatewayError('COMMAND_INVALID', detail, {
    remedy: 'Write --secret NAME or NAME:file.',
  });
}

/** `K=V` texts as an object; undefined when there are none. */
function pairs(
  texts: readonly string[] | undefined,
  flag: string,
): Record<string, string> | undefined {
  if (texts === undefined) return undefined;
  return Object.fromEntries(
    texts.map(text => {
      const at = text.indexOf('=');
      if (at > 0) return [text.slice(0, at), text.slice(at + 1)];
      const detail = `${flag} is given ${JSON.stringify(text)}, which has no name and value.`;
      throw new GatewayError('COMMAND_INVALID', detail, { remedy: `Write ${flag} NAME=VALUE.` });
    }),
  );
}

export function withoutUndefined<T extends object>(value: T): T {
  return Object.fromEntries(Object.entries(value).filter(([, item]) => item !== undefined)) as T;
}
