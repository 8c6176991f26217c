/**
 * What each kind beside functions has on the command line, alike: to pause, to resume and to remove it; and `fnway buckets` and
 * `fnway notifications`, which have only that and a list.
 */
import type { Command } from 'commander';
import type { BucketDefinition, NotificationDefinition } from '../../client/api.ts';
import type { ResourceViews } from '../../client/client.ts';
import type { Context } from './context.ts';

type ContextOf = (command: Command) => Context;
type Verb = 'pause' | 'resume' | 'remove';
const done: Record<Verb, string> = { pause: 'paused', resume: 'resumed', remove: 'removed' };

/** One of them, with what it does to this kind. `as`: another word for it. */
export function addResourceCommand(
  parent: Command,
  contextOf: ContextOf,
  given: {
    kind: keyof ResourceViews;
    noun: string;
    verb: Verb;
    description: string;
    as?: string;
  },
): void {
  const { kind, noun, verb, description, as = verb } = given;
  parent
    .command(as)
    .description(description)
    .argument(`<${noun}>`, 'its name')
    .action(async (name: string, _options, command: Command) => {
      const context = contextOf(command);
      const view = await (await context.client()).resources(kind)[verb](name);
      const { out } = context;
      if (out.json) out.value(view ?? { name, removed: true });
      else out.line(`${name}  ${done[verb]}`);
    });
}

export function addBucketCommands(program: Command, contextOf: ContextOf): void {
  const buckets = program
    .command('buckets')
    .description('directories and stores that are watched: list, pause, resume, remove');
  buckets
    .command('list')
    .description('list the watched buckets of the namespace')
    .action((_options, command) =>
      list(contextOf(command), 'buckets', (definition: BucketDefinition) => [
        definition.function,
        definition.path ?? `${definition.s3!.bucket} at ${definition.s3!.endpoint}`,
        definition.events.join(', '),
      ]),
    );
  const words = { kind: 'buckets', noun: 'bucket' } as const;
  addResourceCommand(buckets, contextOf, {
    ...{ ...words, verb: 'pause', description: 'look at nothing until it is resumed' },
  });
  addResourceCommand(buckets, contextOf, {
    ...{ ...words, verb: 'resume', description: 'look again; what has changed meanwhile is seen' },
  });
  addResourceCommand(buckets, contextOf, {
    ...{ ...words, verb: 'remove', description: 'watch it no more; its objects stay' },
  });
}

export function addNotificationCommands(program: Command, contextOf: ContextOf): void {
  const notifications = program
    .command('notifications')
    .description('who is told of deploys and dead letters: list, pause, resume, remove');
  notifications
    .command('list')
    .description('list who is told in the namespace, and of what')
    .action((_options, command) =>
      list(contextOf(command), 'notifications', (definition: NotificationDefinition) => [
        definition.on.join(', '),
        definition.url ?? `the secret ${definition.secret}`,
        definition.format,
      ]),
    );
  const words = { kind: 'notifications', noun: 'notification' } as const;
  addResourceCommand(notifications, contextOf, {
    ...{ ...words, verb: 'pause', description: 'tell nothing until it is resumed' },
  });
  addResourceCommand(notifications, contextOf, {
    ...{ ...words, verb: 'resume', description: 'tell what happens from now on' },
  });
  addResourceCommand(notifications, contextOf, {
    ...{ ...words, verb: 'remove', description: 'tell nothing any more' },
  });
}

const columns = {
  buckets: ['NAME', 'CALLS', 'WATCHES', 'EVENTS'],
  notifications: ['NAME', 'OF', 'TO', 'AS'],
};

async function list<D>(
  context: Context,
  kind: keyof typeof columns,
  rowOf: (definition: D) => string[],
): Promise<void> {
  const { out } = context;
  const client = await context.client();
  const items = await Array.fromAsync(client.resources(kind).each({ limit: 1000 }));
  if (out.json) return out.value(items);
  if (items.length === 0) return out.note(`No ${kind} in the namespace ${client.namespace}.`);
  out.table([
    columns[kind],
    ...items.map(({ name, paused, definition }) => [
      paused ? `${name} (paused)` : name,
      ...rowOf(definition as D),
    ]),
  ]);
}
