/** What a runtime.yaml says: how source of one kind becomes a running process. Pure. */
import { z } from 'zod';
import { nameSchema, runtimeNameSchema } from './function.ts';

export const runtimeSchema = z
  .strictObject({
    name: nameSchema,
    /** Other names by which a definition may ask for it. */
    aliases: z.array(runtimeNameSchema).default([]),
    /** `link`: speaks docs/reference/link.md. `stdio`: one process a call, body on stdin, reply on stdout. */
    protocol: z.enum(['link', 'stdio']),
    /** The command is a fork server: one process that forks an instance per line on its standard input. */
    fork: z.boolean().default(false),
    /**
     * `{runtime}` is the runtime's directory, `{node}` and `{python}` the interpreters found, `{entry}` the entry file. A
     * linked runtime with `{entry}` in it starts a process of its own for each instance, as the function's user.
     */
    command: z.array(z.string()).min(1),
    /** Run at deploy; a non-zero exit fails the version. Same placeholders. */
    check: z.array(z.string()).optional(),
    /** Linked processes kept ready. */
    warm: z.int().min(0).max(100).default(0),
    /** Calls at once in one instance where the function does not say. */
    concurrency: z.int().min(1).max(10_000).default(1),
    /** Entry files looked for, in order, where the function names none. */
    entries: z.array(z.string()).min(1),
    dependencies: z.string().optional(),
    installer: z.enum(['npm', 'pip', 'none']).default('none'),
    /** Where beside all versions the runtime's `sdk/` directory is copied to, for what function code may import. */
    sdk: z.string().optional(),
    /** The functions framework of this language: its package, and where it looks for functions, first choice first. */
    framework: z
      .strictObject({ package: z.string(), entries: z.array(z.string()).min(1) })
      .optional(),
    /** `go`: the runtime's `build.mjs` makes a program of the function, and that is the entry. */
    compile: z.enum(['typescript', 'go', 'none']).default('none'),
  })
  .refine(
    runtime => runtime.warm === 0 || !startsEntry(runtime),
    'warm is for processes that load any function; a command with {entry} is the function itself',
  );

/** A linked process that is one function's from its start: nothing generic can be kept ready. */
export function startsEntry(runtime: { command: readonly string[] }): boolean {
  return runtime.command.some(word => word.includes('{entry}'));
}

/** A runtime as the drivers use it: `directory` is where its files can be reached by a function's user. */
export type Runtime = z.output<typeof runtimeSchema> & { directory: string };

/** The runtime of this name, else the last that has it as an alias, so that a directory given later wins. */
export function findRuntime<T extends { name: string; aliases: readonly string[] }>(
  runtimes: Iterable<T>,
  name: string,
): T | undefined {
  const all = [...runtimes];
  return (
    all.find(runtime => runtime.name === name) ??
    all.findLast(runtime => runtime.aliases.includes(name))
  );
}
