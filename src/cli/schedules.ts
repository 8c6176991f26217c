/** `fnway schedules`: what calls functions by the clock: list, history, run, pause, resume and remove. */
import type { Command } from 'commander';
import type { ScheduleDefinition, ScheduleView } from '../../client/api.ts';
import type { Context } from './context.ts';
import { integer } from './functions.ts';
import { addResourceCommand } from './resource-commands.ts';

type ContextOf = (command: Command) => Context;

export function addScheduleCommands(program: Command, contextOf: ContextOf): void {
  const schedules = program
    .command('schedules')
    .description('what calls functions by the clock: list, history, run, pause, resume, remove');
  schedules
    .command('list')
    .description(
      'list the schedules of the namespace, with the next time; with --json, the next five',
    )
    .action((_options, command) => list(contextOf(command)));
  schedules
    .command('history')
    .description('show what became of the last slots, newest first')
    .argument('<schedule>', 'its name')
    .option('--limit <n>', 'how many', integer, 20)
    .action((name, { limit }, command) => history(contextOf(command), name, limit));
  schedules
    .command('run')
    .description('call the function of a schedule at once, as a slot would')
    .argument('<schedule>', 'its name')
    .action((name, _options, command) => run(contextOf(command), name));
  schedules
    .command('pause')
    .description('let its slots pass until it is resumed')
    .argument('<schedule>', 'its name')
    .action((name, _options, command) => setPaused(contextOf(command), name, true));
  schedules
    .command('resume')
    .description('go on with the next slot')
    .argument('<schedule>', 'its name')
    .action((name, _options, command) => setPaused(contextOf(command), name, false));
  const remove = { verb: 'remove', description: 'call its function no more' } as const;
  addResourceCommand(schedules, contextOf, { kind: 'schedules', noun: 'schedule', ...remove });
}

async function list(context: Context): Promise<void> {
  const { out } = context;
  const client = await context.client();
  const items = await Array.fromAsync(client.resources('schedules').each({ limit: 1000 }));
  if (out.json) return out.value(items);
  if (items.length === 0) return out.note(`No schedules in the namespace ${client.namespace}.`);
  out.table([
    ['NAME', 'FUNCTION', 'WHEN', 'NEXT'],
    ...items.map(({ name, definition, paused, next }) => [
      ...[name, definition.function, whenText(definition)],
      paused ? 'paused' : (next[0] ?? 'never'),
    ]),
  ]);
}

/** As the manifest says it. */
export function whenText({ cron, timezone, start, every }: ScheduleDefinition): string {
  if (cron !== undefined) return timezone === 'UTC' ? cron : `${cron} ${timezone}`;
  return start === undefined ? `every ${every}` : `every ${every} from ${start}`;
}

async function history(context: Context, name: string, limit: number): Promise<void> {
  const { out } = context;
  const client = await context.client();
  const { items } = await client.listSlots(name, { limit });
  if (out.json) return out.value(items);
  if (items.length === 0) return out.note(`No slot of ${name} has come yet.`);
  out.table([
    ['SLOT', 'OUTCOME', 'INVOCATION'],
    ...items.map(({ at, outcome, invocation }) => [at, outcome, invocation ?? '']),
  ]);
}

async function run(context: Context, name: string): Promise<void> {
  const { out } = context;
  const accepted = await (await context.client()).runSchedule(name);
  if (out.json) out.value(accepted);
  else out.line(accepted.id);
}

async function setPaused(context: Context, name: string, isPaused: boolean): Promise<void> {
  const { out } = context;
  const routes = (await context.client()).resources('schedules');
  const view: ScheduleView = await (isPaused ? routes.pause(name) : routes.resume(name));
  if (out.json) return out.value(view);
  const next = view.next[0] === undefined ? '' : `  next ${view.next[0]}`;
  out.line(`${name}  ${isPaused ? 'paused' : `resumed${next}`}`);
}
