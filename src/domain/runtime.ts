/** What a runtime.yaml says: how source of one kind becomes a running process. Pure. */
import { z } from 'zod';
import { nameSchema } from './function.ts';

export const runtimeSchema = z.strictObject({
  name: nameSchema,
  /** `link`: speaks docs/reference/link.md. `stdio`: one process a call, body on stdin, reply on stdout. */
  protocol: z.enum(['link', 'stdio']),
  /** The command is a fork server: one process that forks an instance per line on its standard input. */
  fork: z.boolean().default(false),
  /** `{runtime}` is the runtime's directory, `{node}` and `{python}` the interpreters found, `{entry}` the entry file. */
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
  compile: z.enum(['typescript', 'none']).default('none'),
});

/** A runtime as the drivers use it: `directory` is where its files can be reached by a function's user. */
export type Runtime = z.output<typeof runtimeSchema> & { directory: string };
