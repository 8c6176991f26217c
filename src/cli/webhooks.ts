/** `fnway webhooks`: what others post to, and which function it calls. */
import type { Command } from 'commander';
import type { Context } from './context.ts';

export function addWebhookCommands(
  program: Command,
  contextOf: (command: Command) => Context,
): void {
  const webhooks = program
    .command('webhooks')
    .description('addresses that others post to: list, pause, resume');
  webhooks
    .command('list')
    .description('list the webhooks of the namespace, with their addresses')
    .action((_options, command) => list(contextOf(command)));
  for (const [verb, description] of [
    ['pause', 'refuse what is posted until it is resumed; senders try again later'],
    ['resume', 'take what is posted again'],
  ] as const)
    webhooks
      .command(verb)
      .description(description)
      .argument('<webhook>', 'its name')
      .action((name, _options, command) => setPaused(contextOf(command), name, verb));
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

async function setPaused(context: Context, name: string, verb: 'pause' | 'resume'): Promise<void> {
  const { out } = context;
  const view = await (await context.client()).resources('webhooks')[verb](name);
  if (out.json) out.value(view);
  else out.line(`${name}  ${verb}d`);
}
