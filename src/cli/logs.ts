/** `fnway logs`: what a function's calls and instances write. */
import type { Command } from 'commander';
import type { OutputLineView } from '../../client/api.ts';
import { GatewayError } from '../errors.ts';
import type { Context } from './context.ts';
import { integer } from './functions.ts';
import { printable } from './output.ts';

interface LogsOptions {
  follow?: boolean;
  lines?: number;
  call?: string;
  instance?: string;
  version?: number;
  since?: string;
}

const linesDefault = 100;
/** What one answer can have: where a call or a time is named, all of it is wanted. */
const linesMost = 10_000;

export function addLogsCommand(program: Command, contextOf: (command: Command) => Context): void {
  program
    .command('logs')
    .description('show what a function’s calls and instances print')
    .argument('<name>', 'name of the function')
    .option('-f, --follow', 'go on with new lines as they come')
    .option(
      '--lines <n>',
      `how many of the newest lines (${linesDefault}, or all there are)`,
      integer,
    )
    .option('--call <id>', 'only what this invocation wrote')
    .option('--instance <id>', 'only what this instance wrote')
    .option('--version <n>', 'only what this version wrote', integer)
    .option('--since <time>', 'only what is newer: 1h, or 2026-01-31T12:00:00Z')
    .action((name, options, command) => logs(contextOf(command), name, options));
}

async function logs(context: Context, name: string, options: LogsOptions): Promise<void> {
  const { out } = context;
  const { follow, ...filter } = options;
  const isNarrow = (filter.call ?? filter.since) !== undefined;
  const query = { lines: isNarrow ? linesMost : linesDefault, ...filter };
  if (!follow) {
    const client = await context.client();
    const entries = await client.readLogs(name, query);
    if (out.json) return out.value(entries);
    for (const entry of entries) out.line(logLine(context, entry));
    if (entries.length === 0) out.note(nothing(name, filter));
    else if (isNarrow && entries.length === query.lines)
      out.note(`These are the newest ${query.lines} lines; there may be more.`);
    return;
  }
  const { patientFetch } = await import('./patient-fetch.ts');
  const client = await context.client({ fetch: await patientFetch() });
  for await (const entry of client.followLogs(name, query)) {
    if (out.json) out.row(entry);
    else out.line(logLine(context, entry));
  }
  // It ends by itself only when there is nothing to follow any more: asking once more tells why.
  await client.getFunction(name);
  throw new GatewayError('GATEWAY_STOPPING', `The log of ${name} ended.`, {
    remedy: 'The gateway stops, or has been started again. Follow again.',
  });
}

function nothing(name: string, filter: Omit<LogsOptions, 'follow'>): string {
  const isFiltered = Object.keys(filter).some(key => key !== 'lines');
  return isFiltered ? `${name} has written nothing like that.` : `${name} has written nothing.`;
}

/** Time, version, whose it is, and the message; fields of a line of JSON behind it. */
export function logLine({ out }: Context, entry: OutputLineView): string {
  const { colors } = out;
  // The end of an id tells one from another; the whole is in --json and in `invocations show`.
  const whose = (entry.call ?? entry.instance).slice(-6);
  const kind = entry.call === undefined ? 'instance' : 'call';
  const head = `${entry.time.slice(11, 23)} v${entry.version} ${kind} ${whose}`;
  const fields = Object.entries(entry.fields ?? {}).map(
    ([key, value]) => ` ${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
  );
  const plain = printable(entry.message);
  const text =
    entry.severity === 'error' || entry.severity === 'critical'
      ? colors.red(plain)
      : entry.severity === 'warning'
        ? colors.yellow(plain)
        : plain;
  return `${colors.dim(head)} ${text}${colors.dim(printable(fields.join('')))}`;
}
