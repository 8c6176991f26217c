/**
 * Makes a program of a function that is written in Go, with the runtime's `build.mjs`, which runs as the function's user.
 * Compiling the standard library takes half a minute: a cache of it is filled once, from sources that no user has touched,
 * and every build starts from a copy that it may only add to.
 */
import { chmod, mkdir } from 'node:fs/promises';
import path from 'node:path';
import { systemPath } from '../config.ts';
import type { VersionFailure } from '../domain/function.ts';
import type { BuildTools } from './find-tools.ts';
import type { ToolOutcome, ToolRunner } from './tool.ts';

/** Where the program is, relative to the version's directory. */
const programFile = '.fnway/go/function';

export interface GoSource {
  entry: string;
  handler?: string;
  runtimeDirectory?: string;
}

type Compiled = { ok: true; entry: string } | { ok: false; failure: VersionFailure };

export async function compileGo(
  source: GoSource,
  context: { runner: ToolRunner; tools: BuildTools; goCache: GoCache },
): Promise<Compiled> {
  const { runner, tools, goCache } = context;
  const { go } = tools;
  if (go === undefined) return { ok: false, failure: goMissing };
  const script = path.join(source.runtimeDirectory!, 'build.mjs');
  const cache = await goCache.fill({ runner, node: tools.node, script, go });
  const outcome = await runner.run(
    tools.node,
    [
      ...[script, '--go', go, '--entry', source.entry],
      ...(source.handler === undefined ? [] : ['--handler', source.handler]),
      ...(cache === undefined ? [] : ['--cache', cache]),
    ],
    { home: true },
  );
  if (outcome.kind === 'exited' && outcome.status === 0) return { ok: true, entry: programFile };
  return { ok: false, failure: failureOf(outcome) };
}

/** Filled by the first build of a gateway; the others of that moment wait for it. */
export class GoCache {
  readonly #directory: string | undefined;
  #filled: Promise<boolean> | undefined;

  constructor(directory: string | undefined) {
    this.#directory = directory;
  }

  /** The directory; undefined where builds do without. Rejects when the build is aborted. */
  async fill(options: {
    runner: ToolRunner;
    node: string;
    script: string;
    go: string;
  }): Promise<string | undefined> {
    const directory = this.#directory;
    if (directory === undefined) return undefined;
    this.#filled ??= this.#fillNow(directory, options).catch(() => false);
    const isFilled = await this.#filled;
    // Cut off, or out of disk: the next build tries again.
    if (!isFilled) this.#filled = undefined;
    options.runner.signal.throwIfAborted();
    return isFilled ? directory : undefined;
  }

  async #fillNow(
    directory: string,
    { runner, node, script, go }: { runner: ToolRunner; node: string; script: string; go: string },
  ): Promise<boolean> {
    await mkdir(directory, { recursive: true });
    await chmod(directory, 0o755);
    const args = [script, '--go', go, '--fill', directory];
    const env = { PATH: systemPath, LANG: 'C.UTF-8' };
    const outcome = await runner.run(node, args, { asGateway: { directory, env } });
    return outcome.kind === 'exited' && outcome.status === 0;
  }
}

const goMissing: VersionFailure = {
  code: 'BUILD_TOOL_MISSING',
  message:
    'This function needs Go, and this machine has none that its user can run. ' +
    'Install Go 1.19 or newer (golang-go on Debian) where all users can read it, and start the gateway again',
};

/** Errors named beside the first. */
const errorsMax = 10;

/** Go's messages are `file:line:column: what`, some with more lines that are indented. */
export function failureOf(outcome: ToolOutcome): VersionFailure {
  if (outcome.kind === 'not-started')
    return { code: 'BUILD_TOOL_MISSING', message: `The build cannot be run (${outcome.errno})` };
  const lines = outcome.output.split('\n').filter(line => line.trim() !== '');
  const at = lines.findIndex(line => placed.test(line));
  if (at === -1) {
    const ended = outcome.signal ?? `status ${outcome.status}`;
    const message = lines.slice(-errorsMax).join('\n') || `go build ended with ${ended}`;
    return { code: 'BUILD_FAILED', message };
  }
  const [, file, line, column, text] = placed.exec(lines[at]!)!;
  const others = lines.slice(at + 1, at + errorsMax);
  return {
    code: 'BUILD_FAILED',
    message: [text!, ...others].join('\n'),
    file: file!,
    ...(line !== undefined && { line: Number(line) }),
    ...(column !== undefined && { column: Number(column) }),
  };
}

const placed = /^([^\s:]+\.(?:go|mod)):(?:(\d+):(?:(\d+):)?)? (.+)$/;
