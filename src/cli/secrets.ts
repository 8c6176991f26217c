/** `fnway secrets set`, `list` and `remove`. Values come from standard input or a prompt, never from the command line. */
import { createInterface } from 'node:readline';
import { Writable } from 'node:stream';
import { text } from 'node:stream/consumers';
import type { Command } from 'commander';
import { GatewayError } from '../errors.ts';
import type { Context } from './context.ts';

export function addSecretCommands(
  program: Command,
  contextOf: (command: Command) => Context,
): void {
  const secrets = program
    .command('secrets')
    .description('values that functions are given and nobody can read back');
  secrets
    .command('set')
    .description('set a secret; its value comes from standard input, or is asked for')
    .argument('<secret>', 'name, as a variable is called')
    .action((name, _options, command) => set(contextOf(command), name));
  secrets
    .command('list')
    .description('list the names of the secrets of the namespace')
    .action((_options, command) => list(contextOf(command)));
  secrets
    .command('remove')
    .description('remove a secret; calls of functions that need it are refused')
    .argument('<secret>', 'its name')
    .action((name, _options, command) => remove(contextOf(command), name));
}

async function set(context: Context, name: string): Promise<void> {
  const { out } = context;
  const { secretNameSchema } = await import('../domain/secret.ts');
  const checked = secretNameSchema.safeParse(name);
  if (!checked.success) {
    const detail = `${JSON.stringify(name)} is not a name of a secret.`;
    const remedy = `Choose another: ${checked.error.issues[0]!.message}.`;
    throw new GatewayError('COMMAND_INVALID', detail, { remedy });
  }
  const value = await readValue(name);
  if (value === '') {
    const remedy = `Give it on standard input: \`printf %s "$VALUE" | fnway secrets set ${name}\`.`;
    throw new GatewayError('COMMAND_INVALID', 'The value is empty.', { remedy });
  }
  const client = await context.client();
  const view = await client.putSecret(name, value);
  if (out.json) return out.value(view);
  out.line(`${out.colors.green('✓')} ${name}  set`);
  const { maskedCharsMin } = await import('../domain/secret.ts');
  if (value.trim().length < maskedCharsMin)
    out.note(`It is shorter than ${maskedCharsMin} characters, so it is not hidden in logs.`);
}

/** Without the end of the line that `echo` and editors put behind it. */
async function readValue(name: string): Promise<string> {
  const given = process.stdin.isTTY ? await ask(name) : await text(process.stdin);
  return given.replace(/\r?\n$/, '');
}

/** What is typed is not shown. */
function ask(name: string): Promise<string> {
  process.stderr.write(`value of ${name}: `);
  const silent = new Writable({ write: (_chunk, _encoding, done) => done() });
  const prompt = createInterface({ input: process.stdin, output: silent, terminal: true });
  return new Promise((resolve, reject) => {
    let isAnswered = false;
    prompt.question('', answer => {
      isAnswered = true;
      process.stderr.write('\n');
      prompt.close();
      resolve(answer);
    });
    prompt.once('close', () => {
      if (!isAnswered) reject(new GatewayError('COMMAND_INVALID', 'No value was given.'));
    });
  });
}

async function list(context: Context): Promise<void> {
  const { out } = context;
  const client = await context.client();
  const { items } = await client.listSecrets();
  if (out.json) return out.value(items);
  if (items.length === 0) return out.note(`No secrets in the namespace ${client.namespace}.`);
  out.table([['NAME', 'SET'], ...items.map(({ name, updatedAt }) => [name, updatedAt])]);
}

async function remove(context: Context, name: string): Promise<void> {
  const { out } = context;
  const client = await context.client();
  await client.removeSecret(name);
  if (out.json) out.value({ removed: name });
  else out.line(`- ${name}  removed`);
}
