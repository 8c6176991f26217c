/**
 * `fnway completion SHELL`, and the hidden `fnway complete -- WORD…` that the scripts call back: it
 * prints what fits, a value and its description a line, and last `:4`, or `:0` where the shell is
 * to complete files. The scripts of other shells than bash come from a library.
 */
import { Argument, type Command } from 'commander';
import { complete, plain, type Suggestion } from './complete.ts';
import type { Context } from './context.ts';
import { runtimeNames } from './package.ts';

/** A shell waits for us on each Tab; names of functions are left out rather than waited for. */
const namesMsMax = 500;

const shells = ['bash', 'zsh', 'fish', 'powershell'] as const;

type ContextOf = (command: Command) => Context;

export function addCompletionCommand(program: Command, contextOf: ContextOf): void {
  program
    .command('completion')
    .description('print the completion script of a shell')
    .addArgument(new Argument('<shell>', 'whose script').choices(shells))
    .action(async (shell: (typeof shells)[number]) => {
      if (shell === 'bash') {
        process.stdout.write(bashScript);
        return;
      }
      const { script } = await import('@bomb.sh/tab');
      script(shell, 'fnway', 'fnway');
    });
  program
    .command('complete', { hidden: true })
    .argument('[words...]')
    .action(words => answer(program, contextOf, words));
}

async function answer(
  program: Command,
  contextOf: ContextOf,
  words: readonly string[],
): Promise<void> {
  const { suggestions, files, more, prefix, given } = complete(program, words);
  const found: Suggestion[] = [...suggestions];
  if (more === 'runtimes') found.push(...runtimeNames([]).map(plain));
  if (more === 'functions') {
    for (const [key, value] of Object.entries(given)) program.setOptionValue(key, value);
    found.push(...(await functionNames(contextOf(program), prefix)).map(plain));
  }
  const lines = found
    .filter(({ value }) => value.startsWith(prefix))
    .map(({ value, description }) => `${value}\t${description}\n`);
  process.stdout.write(`${lines.join('')}:${files ? 0 : 4}\n`);
}

/** None when the gateway does not answer in time, or refuses: completion never fails. */
async function functionNames(context: Context, prefix: string): Promise<string[]> {
  try {
    const client = await context.client();
    const signal = AbortSignal.timeout(namesMsMax);
    const { items } = await client.listFunctions({ limit: 1000, prefix, signal });
    return items.map(view => view.name);
  } catch {
    return [];
  }
}

/**
 * Our own: the library's needs the package bash-completion, fails when it is sourced twice, and
 * runs what stands on the command line. Bash splits words at `=` and `:` too; what no space
 * separates is put together again. Works with the bash 3.2 of macOS, where `compopt` is missing.
 */
const bashScript = `# Completion of fnway for bash: source <(fnway completion bash)
_fnway_completion() {
  local rest="\${COMP_LINE:0:COMP_POINT}" words=() count=0 index trimmed word line
  for ((index = 0; index <= COMP_CWORD; index++)); do
    trimmed="\${rest#"\${rest%%[![:space:]]*}"}"
    word="\${COMP_WORDS[index]}"
    if ((index == COMP_CWORD)); then word="$trimmed"; fi
    if ((count == 0)) || [[ "$trimmed" != "$rest" ]]; then
      words[count]="$word"
      count=$((count + 1))
    else
      words[count - 1]+="$word"
    fi
    rest="\${trimmed#"$word"}"
  done
  COMPREPLY=()
  while IFS= read -r line; do
    case "$line" in
      :0) compopt -o default 2>/dev/null ;;
      :*) compopt +o default 2>/dev/null ;;
      *) COMPREPLY+=("\${line%%$'\\t'*}") ;;
    esac
  done < <("\${words[0]/#\\~/$HOME}" complete -- "\${words[@]:1}" 2>/dev/null)
}
complete -o default -F _fnway_completion fnway
`;
