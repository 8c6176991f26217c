/**
 * The program `fnway`: builds the commands, runs one, and turns its failure into three lines and
 * an exit code. Starts fast: what is heavy (schemas, YAML, the gateway itself) is loaded by the
 * command that needs it. The only file that ends the process.
 */
import { Command, CommanderError, Option } from 'commander';
import type { Problem } from '../../client/errors.ts';
import { GatewayError } from '../errors.ts';
import { defaultUrl } from './access.ts';
import { addCompletionCommand } from './completion.ts';
import { type Context, type ContextPorts, createContext } from './context.ts';
import { exitCodeOf, exitCodes, problemOf } from './failure.ts';
import { addFunctionCommands } from './functions.ts';
import { addInvocationCommands } from './invocations.ts';
import { addInvokeCommand } from './invoke.ts';
import { addLogsCommand } from './logs.ts';
import { addNewCommand } from './new.ts';
import { Output } from './output.ts';
import { packageVersion } from './package.ts';
import { addProjectCommands } from './project.ts';
import { addBucketCommands, addNotificationCommands } from './resource-commands.ts';
import { addScheduleCommands } from './schedules.ts';
import { addSecretCommands } from './secrets.ts';
import { addServeCommand } from './serve.ts';
import { addTokenCommands } from './token.ts';
import { addTopicCommands } from './topics.ts';
import { addTrafficCommand } from './traffic.ts';
import { addUpCommand } from './up.ts';
import { addVersionCommands } from './versions.ts';
import { addWebhookCommands } from './webhooks.ts';

/** The order of the help: what is used first stands first. */
const groups = [
  { heading: 'Start:', add: addNewCommand },
  { heading: 'Start:', add: addUpCommand },
  { heading: 'Start:', add: addServeCommand },
  { heading: 'Project:', add: addProjectCommands },
  { heading: 'Functions:', add: addInvokeCommand },
  { heading: 'Functions:', add: addFunctionCommands },
  { heading: 'Functions:', add: addLogsCommand },
  { heading: 'Functions:', add: addInvocationCommands },
  { heading: 'Functions:', add: addVersionCommands },
  { heading: 'Functions:', add: addTrafficCommand },
  { heading: 'Functions:', add: addTokenCommands },
  { heading: 'Functions:', add: addSecretCommands },
  { heading: 'Triggers:', add: addScheduleCommands },
  { heading: 'Triggers:', add: addTopicCommands },
  { heading: 'Triggers:', add: addWebhookCommands },
  { heading: 'Triggers:', add: addBucketCommands },
  { heading: 'Triggers:', add: addNotificationCommands },
] as const;

function buildProgram(contextOf: (command: Command) => Context, words: readonly string[]): Command {
  const program = new Command('fnway');
  program
    .description('A function gateway that you own: write a function, get an endpoint.')
    .helpOption('-h, --help', 'show help')
    .addOption(
      new Option(
        '--url <url>',
        `address of the gateway (FNWAY_URL; else of what serves ./.fnway, else ${defaultUrl})`,
      ),
    )
    .addOption(new Option('--token <token>', 'admin token (FNWAY_TOKEN; else the one in ./.fnway)'))
    .option('-n, --namespace <name>', 'namespace (FNWAY_NAMESPACE, default `default`)')
    .option('--json', 'print JSON: results on standard output, errors on standard error')
    .configureHelp({ showGlobalOptions: true })
    .exitOverride()
    // Printed below, in our own form and as JSON where asked for.
    .configureOutput({ outputError: () => {} });
  for (const { heading, add } of groups) {
    program.commandsGroup(heading);
    add(program, contextOf);
  }
  program.commandsGroup('More:');
  // Behind a command it is the command's own: `logs --version 3`.
  if (namesIn(program, words).length === 1)
    program.version(packageVersion(), '-V, --version', 'print the version');
  addCompletionCommand(program, contextOf);
  program.helpCommand('help [command]', 'show help of a command');
  program.hook('preAction', (_, command) => refuseEmpty(command));
  return program;
}

/** What a variable of the shell has, whose command failed: it would name all where it was to name one. */
function refuseEmpty(command: Command): void {
  const empty = command.registeredArguments.find(
    // A word that is to be completed may be empty.
    (argument, i) => !argument.variadic && command.args[i] === '',
  );
  if (empty === undefined) return;
  throw new GatewayError('COMMAND_INVALID', `<${empty.name()}> is empty.`, {
    remedy: 'See whether the command failed that was to give it.',
  });
}

const ports: ContextPorts = {
  fail(code) {
    process.exitCode = code;
  },
  exit: code => process.exit(code),
};

/** `fnway token rotate`: the commands that the words name, as far as they do. */
function namesIn(program: Command, words: readonly string[]): string[] {
  const names = [program.name()];
  let at: Command | undefined = program;
  for (const word of words) {
    const found: Command | undefined = at.commands.find(command => command.name() === word);
    if (found === undefined) continue;
    names.push(word);
    at = found;
  }
  return names;
}

/** Commander's message as a problem; undefined when it only printed help or the version. */
function usageProblem(error: CommanderError, program: Command): Problem | undefined {
  if (error.exitCode === 0) return undefined;
  if (error.code === 'commander.help') {
    const remedy = `See \`${[...namesIn(program, process.argv.slice(2)), '--help'].join(' ')}\`.`;
    return problemOf(new GatewayError('COMMAND_INVALID', 'A command is missing.', { remedy }));
  }
  const [text = '', hint] = error.message.replace(/^error: /, '').split('\n');
  const near = hint === undefined ? undefined : /^\((.*)\)$/.exec(hint)?.[1];
  const help = `See \`${[...namesIn(program, process.argv.slice(2)), '--help'].join(' ')}\`.`;
  const detail = text.charAt(0).toUpperCase() + text.slice(1);
  const remedy = near === undefined ? help : `${near} ${help}`;
  return problemOf(
    new GatewayError('COMMAND_INVALID', detail.replace(/([^.?])$/, '$1.'), { remedy }),
  );
}

/** Runs the command of the arguments, and sets the exit code. */
export async function run(argv: readonly string[]): Promise<void> {
  // Once the reader of a pipe has left (`fnway list | head -1`), nothing is worth printing.
  process.stdout.on('error', error => {
    if ((error as NodeJS.ErrnoException).code === 'EPIPE') process.exit(exitCodes.ok);
    throw error;
  });
  let context: Context | undefined;
  const program = buildProgram(command => {
    context = createContext(command, ports);
    return context;
  }, argv.slice(2));
  try {
    await program.parseAsync(argv.length <= 2 ? [...argv, '--help'] : argv);
  } catch (error) {
    const found = error instanceof CommanderError ? usageProblem(error, program) : problemOf(error);
    if (found === undefined) return;
    const problem = context?.explain(found) ?? found;
    const { stdout, stderr, env } = process;
    new Output({ json: argv.includes('--json'), stdout, stderr, env }).problem(problem);
    process.exitCode = exitCodeOf(problem);
    // A gateway that failed to start may have left timers behind.
    if (argv.includes('serve') || argv.includes('up')) process.exit();
  }
}
