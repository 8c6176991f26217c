/**
 * What may stand next on a command line: words so far → the values that fit, or that a file is
 * wanted. Pure: reads commander's commands, asks no gateway; what only a gateway knows is named as
 * a source of values that the caller fills in.
 */
import type { Argument, Command, Option } from 'commander';

export interface Suggestion {
  value: string;
  description: string;
}

export interface Completion {
  suggestions: Suggestion[];
  /** Files and directories fit, which the shell knows best. */
  files: boolean;
  /** Also what this source of values holds, as far as it starts with `prefix`. */
  more?: 'functions' | 'runtimes';
  prefix: string;
  /** Global options that stand in the words already: `namespace` → `team`. */
  given: Record<string, string>;
}

/** Values that commander does not check itself, because the gateway's settings do. */
const optionValues: Record<string, readonly string[]> = {
  '--log-level': ['debug', 'info', 'warn', 'error', 'silent'],
  '--log-format': ['json', 'text'],
};

/** By what stands in the angle brackets of an option or an argument. */
const filePlaceholders = ['path', 'dir', 'dirs...'];
const functionArguments = ['name', 'name[@version]'];

/** The last word is the one being written; it may be empty. */
export function complete(program: Command, words: readonly string[]): Completion {
  const word = words.at(-1) ?? '';
  const { command, waiting, position, given } = read(program, words.slice(0, -1));
  const base = { suggestions: [], files: false, prefix: word, given };
  if (waiting !== undefined) return { ...base, ...valuesOf(waiting) };
  const equals = word.indexOf('=');
  if (word.startsWith('--') && equals > 0) {
    const option = findOption(program, command, word.slice(0, equals));
    const values = option === undefined || !takesValue(option) ? {} : valuesOf(option);
    return fitting({ ...base, ...values, prefix: word.slice(equals + 1) });
  }
  if (word.startsWith('-')) return fitting({ ...base, suggestions: flagsOf(program, command) });
  if (position === 0 && command.commands.length > 0) {
    const commands = command.createHelp().visibleCommands(command);
    const suggestions = commands.map(c => ({ value: c.name(), description: c.description() }));
    return fitting({ ...base, suggestions });
  }
  const argument = command.registeredArguments[position];
  if (argument === undefined) return base;
  return fitting({ ...base, ...argumentValues(command, argument) });
}

interface Read {
  command: Command;
  /** The option whose value comes next. */
  waiting: Option | undefined;
  /** How many arguments of the command are there. */
  position: number;
  given: Record<string, string>;
}

function read(program: Command, words: readonly string[]): Read {
  let command = program;
  let waiting: Option | undefined;
  let position = 0;
  const given: Record<string, string> = {};
  for (const word of words) {
    if (waiting !== undefined) {
      if (program.options.includes(waiting)) given[waiting.attributeName()] = word;
      waiting = undefined;
      continue;
    }
    if (word.startsWith('-') && word.length > 1) {
      const [flag = '', ...value] = word.split('=');
      const option = findOption(program, command, flag);
      if (option === undefined || !takesValue(option)) continue;
      if (value.length === 0) waiting = option;
      else if (program.options.includes(option)) given[option.attributeName()] = value.join('=');
      continue;
    }
    const inner = position === 0 ? command.commands.find(c => c.name() === word) : undefined;
    if (inner === undefined) position += 1;
    else command = inner;
  }
  return { command, waiting, position, given };
}

function findOption(program: Command, command: Command, flag: string): Option | undefined {
  return [...command.options, ...program.options].find(o => o.long === flag || o.short === flag);
}

function takesValue(option: Option): boolean {
  return option.required || option.optional;
}

function flagsOf(program: Command, command: Command): Suggestion[] {
  const help = command.createHelp();
  const own = help.visibleOptions(command);
  const options = command === program ? own : [...own, ...program.options];
  return options
    .filter(option => option.long !== undefined)
    .map(option => ({ value: option.long!, description: option.description }));
}

type Values = Partial<Pick<Completion, 'suggestions' | 'files' | 'more'>>;

function valuesOf(option: Option): Values {
  const values = option.argChoices ?? optionValues[option.long ?? ''];
  if (values !== undefined) return { suggestions: values.map(plain) };
  if (option.long === '--runtime') return { more: 'runtimes' };
  const placeholder = /[<[](.+)[>\]]$/.exec(option.flags)?.[1] ?? '';
  return { files: filePlaceholders.includes(placeholder) };
}

function argumentValues(command: Command, argument: Argument): Values {
  if (argument.argChoices !== undefined) return { suggestions: argument.argChoices.map(plain) };
  const name = argument.name();
  if (name === 'runtime') return { more: 'runtimes' };
  if (filePlaceholders.includes(name)) return { files: true };
  // The name that `new` takes is one that does not exist yet.
  const isFunction = functionArguments.includes(name) && command.name() !== 'new';
  return isFunction ? { more: 'functions' } : {};
}

function fitting(completion: Completion): Completion {
  const { prefix, suggestions } = completion;
  return { ...completion, suggestions: suggestions.filter(s => s.value.startsWith(prefix)) };
}

export function plain(value: string): Suggestion {
  return { value, description: '' };
}
