/**
 * `fnway completion SHELL`, and the hidden `fnway complete -- …` that the scripts call back. The
 * library is loaded only for these two; for all other commands a stand-in is in the help.
 */
import type { Command } from 'commander';
import type { Context } from './context.ts';

/** A shell waits for us on each Tab; names of functions are left out rather than waited for. */
const namesMsMax = 500;

/** Commands whose first argument is a function that exists. */
const nameCommands = [
  'describe',
  'logs',
  'remove',
  'token show',
  'token rotate',
  'invoke',
  'deploy',
];

export async function addCompletionCommand(
  program: Command,
  contextOf: (command: Command) => Context,
  argv: readonly string[],
): Promise<void> {
  if (!argv.includes('completion') && !argv.includes('complete')) {
    program
      .command('completion')
      .description('print the completion script of a shell')
      .argument('<shell>', 'bash, zsh, fish or powershell');
    return;
  }
  const { default: tab } = await import('@bomb.sh/tab/commander');
  const completion = tab(program, { completionCommandName: 'completion' });
  program.commands
    .find(command => command.name() === 'completion')
    ?.description('print the completion script of a shell');
  const words = argv.includes('complete') ? argv : [];
  if (!nameCommands.some(path => words.includes(path.split(' ', 1)[0]!))) return;
  const names = await functionNames(contextOf(program));
  for (const path of nameCommands) {
    const argument = [...(completion.commands.get(path)?.arguments.values() ?? [])][0];
    if (argument === undefined) continue;
    argument.handler = complete => {
      for (const name of names) complete(name, '');
    };
  }
}

/** None when the gateway does not answer in time, or refuses: completion never fails. */
async function functionNames(context: Context): Promise<string[]> {
  try {
    const client = await context.client();
    const signal = AbortSignal.timeout(namesMsMax);
    const { items } = await client.listFunctions({ limit: 1000, signal });
    return items.map(view => view.name);
  } catch {
    return [];
  }
}
