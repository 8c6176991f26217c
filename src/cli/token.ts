/** `fnway token show` and `fnway token rotate`: the token that callers of one function send. */
import type { Command } from 'commander';
import type { Context } from './context.ts';

export function addTokenCommands(program: Command, contextOf: (command: Command) => Context): void {
  const token = program.command('token').description('the tokens that callers of functions send');
  token
    .command('show')
    .description('print the token of a function')
    .argument('<name>', 'name of the function')
    .option('--signing-key', 'the key that its callbacks are signed with instead')
    .action(async (name, { signingKey: wantsKey }, command) => {
      const context = contextOf(command);
      const client = await context.client();
      const view = await client.getToken(name);
      if (wantsKey && !context.out.json) context.out.line(view.signingKey);
      else print(context, view);
    });
  token
    .command('rotate')
    .description('make a new token; the old one is void at once')
    .argument('<name>', 'name of the function')
    .action(async (name, _options, command) => {
      const context = contextOf(command);
      const client = await context.client();
      print(context, await client.rotateToken(name));
    });
}

/** Nothing but the token, for `TOKEN=$(fnway token show hello)`. */
function print({ out }: Context, view: { token: string }): void {
  if (out.json) out.value(view);
  else out.line(view.token);
}
