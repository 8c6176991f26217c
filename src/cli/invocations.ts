/** `fnway invocations list`, `show` and `replay`: what became of calls, and calling again. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import type {
  AttemptView,
  BodyView,
  InvocationFailure,
  InvocationView,
  OutputLineView,
} from '../../client/api.ts';
import type { Client } from '../../client/client.ts';
import { parseDuration } from '../domain/units.ts';
import type { Context } from './context.ts';
import { integer, withoutUndefined } from './functions.ts';
import { logLine } from './logs.ts';
import { printable } from './output.ts';

type ContextOf = (command: Command) => Context;

interface ListOptions {
  function?: string;
  version?: number;
  status?: string;
  state?: InvocationView['state'];
  kind?: 'input' | 'function' | 'system';
  origin?: InvocationView['origin'];
  since?: string;
  until?: string;
  prefix?: string;
  limit: number;
}

export function addInvocationCommands(program: Command, contextOf: ContextOf): void {
  const invocations = program
    .command('invocations')
    .description('what became of calls: list, show, result, cancel, redrive, replay');
  invocations
    .command('list')
    .description('list the newest calls')
    .argument('[name]', 'only of this function')
    .option('--version <n>', 'only of this version', integer)
    .option('--status <status>', 'only with this status: 502, 5xx')
    .addOption(
      new Option('--state <state>', 'only those that ended so').choices([
        ...['succeeded', 'failed', 'cancelled', 'queued', 'running', 'dead'],
      ]),
    )
    .addOption(
      new Option(
        '--kind <kind>',
        'only failures of the caller, the function, the platform',
      ).choices(['input', 'function', 'system']),
    )
    .addOption(
      new Option('--origin <origin>', 'only those from there').choices([
        ...['http', 'replay', 'async', 'schedule', 'subscription', 'webhook', 'bucket'],
      ]),
    )
    .option('--since <time>', 'only what began later: 1h, or 2026-01-31T12:00:00Z')
    .option('--until <time>', 'only what began earlier')
    .option('--prefix <text>', 'only ids that start so')
    .option('--limit <n>', 'how many', integer, 50)
    .action((name, options, command) =>
      list(contextOf(command), { ...options, ...(name !== undefined && { function: name }) }),
    );
  invocations
    .command('show')
    .description('show a call: its record, its failure, its lines')
    .argument('<id>', 'inv_…, as X-Call-Id has it')
    .action((id, _options, command) => show(contextOf(command), id));
  invocations
    .command('result')
    .description('print what an async call came to')
    .argument('<id>', 'inv_…, as the 202 had it')
    .option('--wait <duration>', 'wait so long for its end: 30s', waitText)
    .action((id, { wait }, command) => result(contextOf(command), id, wait));
  invocations
    .command('cancel')
    .description('end an async call that waits or runs')
    .argument('<id>', 'inv_…')
    .action((id, _options, command) => cancel(contextOf(command), id));
  invocations
    .command('redrive')
    .description('accept an async call that has failed, died or was cancelled once more')
    .argument('<id>', 'inv_…')
    .option('--version <n>', 'with this version instead of the active one', integer)
    .action((id, options, command) => redrive(contextOf(command), id, options));
  invocations
    .command('replay')
    .description('call again with what was kept, and show the difference')
    .argument('<id>', 'inv_…, of a function with `record: bodies`')
    .option('--version <n>', 'against this version instead of the active one', integer)
    .option('--local <dir>', 'against the code in this directory, on this machine')
    .action((id, options, command) => replay(contextOf(command), id, options));
}

async function list(context: Context, options: ListOptions): Promise<void> {
  const { out } = context;
  const client = await context.client();
  const { limit, ...filter } = withoutUndefined(options);
  const items: InvocationView[] = [];
  let cursor: string | undefined;
  do {
    const page = await out.during('searching', () =>
      client.listInvocations({
        ...filter,
        limit: Math.min(1000, limit - items.length),
        ...(cursor !== undefined && { cursor }),
      }),
    );
    items.push(...page.items);
    cursor = page.next;
  } while (cursor !== undefined && items.length < limit);
  if (out.json) return out.value(items);
  if (items.length === 0) {
    const deliveries = '`fnway topics dead-letters list` has deliveries and callbacks too.';
    return out.note(`No call is like that.${filter.state === 'dead' ? ` ${deliveries}` : ''}`);
  }
  out.table([
    ['ID', 'STARTED', 'FUNCTION', 'VERSION', 'STATUS', 'MS', 'CALL', 'FAILURE'],
    ...items.map(item => [
      item.id,
      item.startedAt,
      item.function,
      item.version === undefined ? '' : `v${item.version}`,
      item.status === undefined ? item.state : String(item.status),
      item.durationMs?.toFixed(1) ?? '',
      shortened(`${item.method} ${item.path}`, 40),
      item.failure === undefined ? '' : shortened(failureLine(item.failure), 80),
    ]),
  ]);
}

function failureLine({ kind, code, reason, type, message }: InvocationFailure): string {
  const name = type === undefined || type === 'Error' ? '' : `${type}: `;
  return `${kind} ${reason ?? code}: ${name}${message.split('\n')[0]}`;
}

export function attemptLine(attempt: AttemptView): string {
  const { number, startedAt, durationMs, status, version, failure, givenBack } = attempt;
  const what = failure === undefined ? '' : `  ${shortened(failureLine(failure), 80)}`;
  const by = version === undefined ? '' : `  v${version}`;
  const back = givenBack ? '  given back' : '';
  return `try ${number}     ${startedAt}${by}  ${status}  ${durationMs} ms${back}${what}`;
}

function shortened(text: string, charsMax: number): string {
  return printable(text.length > charsMax ? `${text.slice(0, charsMax - 1)}…` : text);
}

async function show(context: Context, id: string): Promise<void> {
  const { out } = context;
  const client = await context.client();
  const view = await client.getInvocation(id);
  // A function that has been removed has no log any more.
  const lines = await client.readLogs(view.function, { call: id, lines: 10_000 }).catch(() => []);
  if (out.json) return out.value({ ...view, lines });
  const { colors } = out;
  const { failure } = view;
  const version = view.version === undefined ? '' : ` v${view.version}`;
  const rows: Array<[string, string | undefined]> = [
    ['function', `${view.namespace}/${view.function}${version}`],
    ['call', `${view.method} ${view.path}`],
    ['state', view.status === undefined ? view.state : `${view.state}, status ${view.status}`],
    [view.origin === 'async' ? 'accepted' : 'started', view.startedAt],
    ['due', view.dueAt],
    ['took', view.durationMs === undefined ? undefined : `${view.durationMs} ms`],
    ['origin', `${view.origin}, by ${view.caller}`],
    ['attempt', String(view.attempt)],
    ['instance', view.instance],
    ['label', view.label],
    ['repeats', view.parent],
    ['failure', failure && failureLine(failure)],
    ['at', failure?.file && `${failure.file}${failure.line ? `:${failure.line}` : ''}`],
    ['stack', failure?.stack],
  ];
  out.line(colors.bold(view.id));
  for (const [key, value] of rows) {
    if (value === undefined) continue;
    const text = printable(value.trimEnd()).replaceAll('\n', `\n${' '.repeat(12)}`);
    out.line(`  ${colors.dim(key.padEnd(9))} ${text}`);
  }
  for (const attempt of view.attempts ?? []) out.line(`  ${attemptLine(attempt)}`);
  if (lines.length > 0) out.line(colors.dim('  lines'));
  for (const line of lines) out.line(`    ${logLine(context, line)}`);
}

async function result(context: Context, id: string, wait = '0ms'): Promise<void> {
  const { printResult } = await import('./invoke.ts');
  await printResult(context, await context.client(), id, parseDuration(wait)!);
}

function waitText(text: string): string {
  if (parseDuration(text) !== undefined) return text;
  throw new InvalidArgumentError('Write a duration: 30s, 5m.');
}

async function cancel(context: Context, id: string): Promise<void> {
  const { out } = context;
  const view = await (await context.client()).cancelInvocation(id);
  if (out.json) return out.value(view);
  if (view.state === 'cancelled') return out.line(`${id}  cancelled`);
  out.line(`${id}  is told; it is ${view.state} until its handler returns`);
}

async function redrive(context: Context, id: string, options: { version?: number }): Promise<void> {
  const { out } = context;
  const accepted = await (await context.client()).redriveInvocation(id, withoutUndefined(options));
  if (out.json) out.value(accepted);
  else out.line(accepted.id);
}

export interface Answer extends BodyView {
  status: number;
  failure?: InvocationView['failure'];
}

async function replay(
  context: Context,
  id: string,
  options: { version?: number; local?: string },
): Promise<void> {
  const { out } = context;
  const client = await context.client();
  const [{ reply }, { failure }] = await Promise.all([
    client.getBodies(id),
    client.getInvocation(id),
  ]);
  const before: Answer = { ...reply, failure };
  const { where, answer, newId, lines } = await out.during('calling again', () =>
    again(context, client, id, options),
  );
  const differences = compare(before, answer);
  if (out.json) {
    const same = differences.length === 0;
    return out.value({ id, replayed: newId, where, same, before, after: answer });
  }
  out.line(`${id} again, on ${where}${newId === undefined ? '' : `: ${newId}`}`);
  if (differences.length === 0) out.line(`${out.colors.green('✓')} the same answer`);
  for (const line of differences) {
    const color = line.startsWith('+')
      ? out.colors.green
      : line.startsWith('-')
        ? out.colors.red
        : out.colors.dim;
    out.line(color(printable(line)));
  }
  // Of this machine: nobody can ask for them later.
  if (lines !== undefined && lines.length > 0) out.line(out.colors.dim('lines'));
  for (const line of lines ?? []) out.line(`  ${logLine(context, line)}`);
}

async function again(
  context: Context,
  client: Client,
  id: string,
  { version, local }: { version?: number; local?: string },
): Promise<{ where: string; answer: Answer; newId?: string; lines?: OutputLineView[] }> {
  if (local !== undefined) {
    const { replayLocally } = await import('./replay.ts');
    const where = `the code in ${local}`;
    return { where, ...(await replayLocally(context, client, id, local)) };
  }
  const view = await client.replayInvocation(id, withoutUndefined({ version }));
  const { failure } = await client.getInvocation(view.id);
  return {
    where: `version ${view.version}`,
    answer: { ...view.reply, failure },
    newId: view.id,
  };
}

/** Set anew with every answer, or of its connection: they tell nothing about the function. */
const changing = new Set([
  ...['date', 'x-call-id', 'traceparent', 'content-length'],
  ...['connection', 'keep-alive', 'transfer-encoding'],
]);

/** Lines with - for what was and + for what is; none when the answers are the same. */
export function compare(before: Answer, after: Answer): string[] {
  const lines: string[] = [];
  const differ = (was: string | undefined, is: string | undefined) => {
    if (was === is) return;
    if (was !== undefined) lines.push(`- ${was}`);
    if (is !== undefined) lines.push(`+ ${is}`);
  };
  differ(`status ${before.status}`, `status ${after.status}`);
  differ(
    before.failure && `failure ${failureLine(before.failure)}`,
    after.failure && `failure ${failureLine(after.failure)}`,
  );
  const [had, has] = [headersOf(before), headersOf(after)];
  for (const name of new Set([...had.keys(), ...has.keys()])) {
    const text = (value: string | undefined) => value && `${name}: ${value}`;
    differ(text(had.get(name)), text(has.get(name)));
  }
  lines.push(...lineDifference(bodyText(before), bodyText(after)));
  return lines;
}

function headersOf({ headers }: BodyView): Map<string, string> {
  const found = new Map<string, string>();
  for (const [name, value] of headers) {
    const key = name.toLowerCase();
    if (changing.has(key)) continue;
    found.set(key, found.has(key) ? `${found.get(key)}, ${value}` : value);
  }
  return found;
}

function bodyText({ body, base64 }: BodyView): string[] {
  if (body === undefined) return [`base64 ${base64}`];
  try {
    return JSON.stringify(JSON.parse(body), undefined, 2).split('\n');
  } catch {
    return body.split('\n');
  }
}

/** What is alike at both ends is left out. */
function lineDifference(before: string[], after: string[]): string[] {
  let start = 0;
  while (start < before.length && start < after.length && before[start] === after[start]) start++;
  let [endBefore, endAfter] = [before.length, after.length];
  while (endBefore > start && endAfter > start && before[endBefore - 1] === after[endAfter - 1]) {
    endBefore--;
    endAfter--;
  }
  return [
    ...before.slice(start, endBefore).map(line => `- ${line}`),
    ...after.slice(start, endAfter).map(line => `+ ${line}`),
  ];
}
