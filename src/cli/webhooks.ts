/** `fnway webhooks`: what others post to, and which function it calls. */
import type { Command } from 'commander';
import type { Context } from './context.ts';
import { addResourceCommand } from './resource-commands.ts';

export function addWebhookCommands(
  program: Command,
  contextOf: (command: Command) => Context,
): void {
  const webhooks = program
    .command('webhooks')
    .description('addresses that others post to: list, pause, resume, remove');
  webhooks
    .command('list')
    .description('list the webhooks of the namespace, with their addresses')
    .action((_options, command) => list(contextOf(command)));
  for (const [verb, description] of [
    ['pause', 'refuse what is posted until it is resumed; senders try again later'],
    ['resume', 'take what is posted again'],
    ['remove', 'take nothing any more'],
  ] as const)
    addResourceCommand(webhooks, contextOf, {
      ...{ kind: 'webhooks', noun: 'webhook', verb, description },
    });
}

async function list(context: Context): Promise<void> {
  const { out } = context;
  const client = await context.client();
  const items = await Array.fromAsync(client.resources('webhooks').each({ limit: 1000 }));
  if (out.json) return out.value(items);
  if (items.length === 0) return out.note(`No webhooks in the namespace ${client.namespace}.`);
  out.table([
    ['NAME', 'CALLS', 'VERIFIED BY', 'ADDRESS'],
    ...items.map(({ name, definition, paused, path }) => [
      ...[
        paused ? `${name} (paused)` : name,
        definition.function ?? `bucket ${definition.bucket}`,
        definition.verify.kind,
      ],
      `${client.url}${path}`,
    ]),
  ]);
}
