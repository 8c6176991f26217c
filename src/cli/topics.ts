/** `fnway topics`: publishing, following, pulling, going back in time; and what is dead of them. */
import { type Command, InvalidArgumentError } from 'commander';
import type {
  DeadLetterGroup,
  MessageView,
  PublishedMessage,
  SubscriptionDefinition,
  SubscriptionView,
} from '../../client/api.ts';
import { GatewayError } from '../errors.ts';
import type { Context } from './context.ts';
import { integer } from './functions.ts';
import { attemptLine } from './invocations.ts';
import { printable } from './output.ts';
import { addResourceCommand } from './resource-commands.ts';

type ContextOf = (command: Command) => Context;

export function addTopicCommands(program: Command, contextOf: ContextOf): void {
  const topics = program
    .command('topics')
    .description('messages and who gets them: publish, tail, pull, seek, pause, dead-letters');
  topics
    .command('list')
    .description('list the topics of the namespace, with their subscriptions')
    .action((_options, command) => list(contextOf(command)));
  topics
    .command('subscriptions')
    .description('list the subscriptions of the namespace, or of a topic')
    .argument('[topic]', 'only of this one')
    .action((topic, _options, command) => subscriptions(contextOf(command), topic));
  topics
    .command('publish')
    .description('publish a message, and print its id')
    .argument('<topic>', 'its name')
    .option('-d, --data <text>', 'what it carries')
    .option('-f, --file <path>', 'file that it carries; `-` is standard input')
    .option('-a, --attribute <k=v...>', 'attributes, by which subscriptions filter', collect, {})
    .option('--key <text>', 'messages of one key are delivered one at a time, in order')
    .action((topic, options, command) => publish(contextOf(command), topic, options));
  topics
    .command('tail')
    .description('show messages as they are published')
    .argument('<topic>', 'its name')
    .action((topic, _options, command) => tail(contextOf(command), topic));
  addResourceCommand(topics, contextOf, {
    ...{ kind: 'topics', noun: 'topic', verb: 'remove' },
    description: 'remove a topic that no subscription names',
  });
  addSubscriptionCommands(topics, contextOf);
  addDeadLetterCommands(topics, contextOf);
}

function addSubscriptionCommands(topics: Command, contextOf: ContextOf): void {
  topics
    .command('pull')
    .description('take messages of a subscription that is pulled, print and acknowledge them')
    .argument('<subscription>', 'its name')
    .option('--max <n>', 'at most so many', integer, 10)
    .option('--wait <duration>', 'wait so long for the first: 30s')
    .option('--keep', 'give them back instead of acknowledging them; it counts as a try of each')
    .action((name, options, command) => pull(contextOf(command), name, options));
  topics
    .command('seek')
    .description('deliver what was published since a time once more, and nothing older')
    .argument('<subscription>', 'its name')
    .argument('<time>', '1h for an hour ago, or 2026-01-31T12:00:00Z')
    .action((name, time, _options, command) => seek(contextOf(command), name, time));
  topics
    .command('pause')
    .description('hold what a subscription delivers, until it is resumed')
    .argument('<subscription>', 'its name')
    .action((name, _options, command) => setPaused(contextOf(command), name, true));
  topics
    .command('resume')
    .description('deliver what has waited, and what comes')
    .argument('<subscription>', 'its name')
    .action((name, _options, command) => setPaused(contextOf(command), name, false));
  addResourceCommand(topics, contextOf, {
    ...{ kind: 'subscriptions', noun: 'subscription', verb: 'remove', as: 'unsubscribe' },
    description: 'remove a subscription, and what waits for it',
  });
}

function addDeadLetterCommands(topics: Command, contextOf: ContextOf): void {
  const dead = topics
    .command('dead-letters')
    .description('what could not be delivered or done: list, show, redrive, purge');
  const chosen = (command: Command) =>
    command
      .option('--subscription <name>', 'only of this one')
      .option('--function <name>', 'only calls of this function')
      .option('--cause <text>', 'only with this cause, as `list` tells it');
  chosen(dead.command('list'))
    .description(
      'count them by cause; list them when a subscription, a function or a cause is given',
    )
    .option('--limit <n>', 'how many', integer, 50)
    .action((options, command) => listDead(contextOf(command), options));
  dead
    .command('show')
    .description('show one: its message and each of its tries')
    .argument('<id>', 'inv_…')
    .action((id, _options, command) => showDead(contextOf(command), id));
  chosen(dead.command('redrive'))
    .description('accept them once more')
    .argument('[ids...]', 'inv_…')
    .option('--all', 'all of the namespace')
    .option('--version <n>', 'with this version of their function', integer)
    .option('--dry-run', 'show which, and do nothing')
    .action((ids, options, command) => redrive(contextOf(command), ids, options));
  chosen(dead.command('purge'))
    .description('forget them')
    .argument('[ids...]', 'inv_…')
    .option('--all', 'all of the namespace')
    .action((ids, options, command) => purge(contextOf(command), ids, options));
}

function collect(text: string, before: Record<string, string>): Record<string, string> {
  const at = text.indexOf('=');
  if (at < 1) throw new InvalidArgumentError('Write KEY=VALUE.');
  return { ...before, [text.slice(0, at)]: text.slice(at + 1) };
}

async function list(context: Context): Promise<void> {
  const { out } = context;
  const client = await context.client();
  const [items, all] = await Promise.all([
    Array.fromAsync(client.resources('topics').each({ limit: 1000 })),
    Array.fromAsync(client.resources('subscriptions').each({ limit: 1000 })),
  ]);
  if (out.json) return out.value(items);
  if (items.length === 0) return out.note(`No topics in the namespace ${client.namespace}.`);
  out.table([
    ['NAME', 'RETENTION', 'SUBSCRIPTIONS'],
    ...items.map(({ name, definition }) => {
      const own = all.filter(({ definition: { topic } }) => topic === name);
      const names = own.map(subscription => subscription.name);
      return [name, definition.retention ?? '', names.join(' ')];
    }),
  ]);
}

async function subscriptions(context: Context, topic: string | undefined): Promise<void> {
  const { out } = context;
  const client = await context.client();
  const all = await Array.fromAsync(client.resources('subscriptions').each({ limit: 1000 }));
  const items = all.filter(({ definition }) => topic === undefined || definition.topic === topic);
  if (out.json) return out.value(items);
  if (items.length === 0) return out.note('There are none.');
  out.table([
    ['NAME', 'TOPIC', 'TO', 'WAITING', 'RUNNING', 'DEAD LETTERS TO'],
    ...items.map(({ name, definition, waiting, running, paused }) => [
      ...[paused ? `${name} (paused)` : name, definition.topic, targetText(definition)],
      ...[String(waiting), String(running), definition.deadLetter ?? ''],
    ]),
  ]);
}

function targetText({ function: name, push }: SubscriptionDefinition): string {
  return name ?? push?.url ?? 'pull';
}

async function publish(
  context: Context,
  topic: string,
  options: { data?: string; file?: string; attribute: Record<string, string>; key?: string },
): Promise<void> {
  const { out } = context;
  const { data, file, attribute: attributes, key: orderingKey } = options;
  if (data !== undefined && file !== undefined)
    throw new GatewayError('COMMAND_INVALID', 'Give --data or --file, not both.');
  const bytes =
    file === undefined
      ? data === undefined
        ? undefined
        : Buffer.from(data)
      : await readInput(file);
  const message: PublishedMessage = {
    ...(bytes !== undefined && { data: bytes.toString('base64') }),
    ...{ attributes },
    ...(orderingKey !== undefined && { orderingKey }),
  };
  const answer = await (await context.client()).publish(topic, [message]);
  if (out.json) out.value(answer);
  else for (const id of answer.messageIds) out.line(id);
}

async function readInput(file: string): Promise<Buffer> {
  const { buffer } = await import('node:stream/consumers');
  if (file === '-') return buffer(process.stdin);
  const { readFile } = await import('node:fs/promises');
  return readFile(file).catch(error => {
    throw new GatewayError('COMMAND_INVALID', `${file} cannot be read (${error.code}).`);
  });
}

async function tail(context: Context, topic: string): Promise<void> {
  const client = await context.client();
  for await (const message of client.tail(topic)) printMessage(context, message);
}

function printMessage({ out }: Context, message: MessageView, attempt?: number): void {
  if (out.json)
    return out.row({ ...message, ...(attempt !== undefined && { deliveryAttempt: attempt }) });
  const { colors } = out;
  const { messageId, publishTime, attributes, orderingKey, data } = message;
  const pairs = Object.entries(attributes).map(([key, value]) => `${key}=${value}`);
  const key = orderingKey === undefined ? [] : [`key ${orderingKey}`];
  const delivery = attempt === undefined ? [] : [`delivery ${attempt}`];
  out.line(
    colors.dim(printable([messageId, publishTime, ...key, ...delivery, ...pairs].join('  '))),
  );
  if (data !== '') out.line(printable(Buffer.from(data, 'base64').toString()));
}

async function pull(
  context: Context,
  name: string,
  { max, wait, keep }: { max: number; wait?: string; keep?: boolean },
): Promise<void> {
  const { out } = context;
  const client = await context.client();
  const { receivedMessages } = await out.during('waiting for messages', () =>
    client.pull(name, { maxMessages: max, ...(wait !== undefined && { wait }) }),
  );
  for (const { message, deliveryAttempt } of receivedMessages)
    printMessage(context, message, deliveryAttempt);
  if (receivedMessages.length === 0)
    return out.note('No message waits, or those that do wait for their next try.');
  const ackIds = receivedMessages.map(({ ackId }) => ackId);
  // Printed first: what nobody has seen comes again.
  if (keep) await client.nack(name, ackIds);
  else await client.ack(name, ackIds);
}

async function setPaused(context: Context, name: string, isPaused: boolean): Promise<void> {
  const { out } = context;
  const routes = (await context.client()).resources('subscriptions');
  const view: SubscriptionView = await (isPaused ? routes.pause(name) : routes.resume(name));
  if (out.json) return out.value(view);
  const done = isPaused ? 'paused' : 'resumed';
  out.line(`${name}  ${done}  ${view.waiting} waiting, ${view.running} running`);
}

async function seek(context: Context, name: string, time: string): Promise<void> {
  const { out } = context;
  const moved = await (await context.client()).seek(name, time);
  if (out.json) return out.value(moved);
  out.line(`${name}  ${moved.added} to deliver, ${moved.dropped} dropped`);
  if (moved.added === 0) out.note('A topic without `retention` keeps nothing to deliver again.');
}

interface Choice {
  subscription?: string;
  function?: string;
  cause?: string;
  all?: boolean;
}

/** Without what was not said. */
function choiceOf(
  { subscription, function: name, cause, all }: Choice,
  ids: readonly string[] = [],
) {
  return {
    ...(subscription !== undefined && { subscription }),
    ...(name !== undefined && { function: name }),
    ...(cause !== undefined && { cause }),
    ...(all && { all: true as const }),
    ...(ids.length > 0 && { ids }),
  };
}

/** All of them is not what somebody means who says nothing. */
function someOf<T extends object>(choice: T): T {
  if (Object.keys(choice).length > 0) return choice;
  const detail = 'Which? Give ids, --subscription, --function, --cause or --all.';
  throw new GatewayError('COMMAND_INVALID', detail, {
    remedy: '`fnway topics dead-letters list` shows what is dead, by cause.',
  });
}

async function listDead(context: Context, options: Choice & { limit: number }): Promise<void> {
  const { out } = context;
  const client = await context.client();
  const { limit, ...choice } = options;
  const which = choiceOf(choice);
  if (Object.keys(which).length > 0) {
    const { all: _, ids: __, ...query } = { all: undefined, ids: undefined, ...which };
    const { items } = await client.listDeadLetters({ ...query, limit: Math.min(limit, 1000) });
    if (out.json) return out.value(items);
    if (items.length === 0) return out.note('Nothing is dead that is like this.');
    out.table([
      ['ID', 'OF', 'DIED', 'TRIES', 'CAUSE', 'LAST SAID'],
      ...items.map(letter => [
        ...[
          letter.id,
          ownerText(letter),
          letter.endedAt,
          String(letter.attempts.length),
          letter.cause,
        ],
        printable((letter.attempts.at(-1)?.failure?.message ?? '').split('\n')[0]!.slice(0, 80)),
      ]),
    ]);
    return;
  }
  const { items } = await client.listDeadCauses();
  if (out.json) return out.value(items);
  if (items.length === 0) return out.note('Nothing is dead.');
  out.table([
    ['OF', 'CAUSE', 'COUNT', 'FIRST', 'LAST'],
    ...items.map(group => [
      ...[ownerText(group), group.cause, String(group.count), group.firstAt, group.lastAt],
    ]),
  ]);
}

function ownerText({
  kind,
  subscription,
  function: name,
  notification,
}: Pick<DeadLetterGroup, 'kind' | 'subscription' | 'function' | 'notification'>): string {
  if (subscription !== undefined) return `subscription ${subscription}`;
  return notification === undefined ? `${kind} of ${name}` : `notification ${notification}`;
}

async function showDead(context: Context, id: string): Promise<void> {
  const { out } = context;
  const letter = await (await context.client()).getDeadLetter(id);
  if (out.json) return out.value(letter);
  const { colors } = out;
  out.line(colors.bold(letter.id));
  const rows: Array<[string, string | undefined]> = [
    ['of', ownerText(letter)],
    ['accepted', letter.acceptedAt],
    ['died', letter.endedAt],
    ['cause', letter.cause],
    ['redriven', letter.redriven],
  ];
  for (const [key, value] of rows)
    if (value !== undefined) out.line(`  ${colors.dim(key.padEnd(9))} ${value}`);
  for (const attempt of letter.attempts) out.line(`  ${attemptLine(attempt)}`);
  if (letter.message !== undefined) printMessage(context, letter.message);
}

async function redrive(
  context: Context,
  ids: readonly string[],
  options: Choice & { version?: number; dryRun?: boolean },
): Promise<void> {
  const { out } = context;
  const client = await context.client();
  const { version, dryRun, ...choice } = options;
  const chosen = someOf(choiceOf(choice, ids));
  const result = await out.during('accepting them once more', () =>
    client.redriveDeadLetters({
      ...chosen,
      ...(version !== undefined && { version }),
      ...(dryRun && { dryRun: true }),
    }),
  );
  if (result.left.length > 0) context.fail(1);
  if (out.json) return out.value(result);
  for (const { id, as } of result.redriven) out.line(as === '' ? id : `${id}  as ${as}`);
  for (const { id, reason } of result.left) out.note(`${id}  left: ${reason}`);
  const done = dryRun ? 'would be accepted once more' : 'accepted once more';
  out.note(`${result.redriven.length} ${done}, ${result.left.length} left`);
}

async function purge(context: Context, ids: readonly string[], options: Choice): Promise<void> {
  const { out } = context;
  const chosen = someOf(choiceOf(options, ids));
  const answer = await (await context.client()).purgeDeadLetters(chosen);
  if (out.json) out.value(answer);
  else out.line(`${answer.purged} forgotten`);
}
