/**
 * Builds: turns a source tree that is written to a directory into something a runtime can load.
 * Finds the entry, installs dependencies, compiles TypeScript and Go; adds files to the directory, as the
 * function's user. Not for where sources and versions are kept, nor for loading. A user's mistake
 * is a value, never an exception.
 * Invariant: the gateway itself reads the directory only before the first tool runs, and writes
 * nothing to it, so nothing that a package does there can mislead a gateway that runs as root.
 */
import { existsSync, statSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Clock } from '../clock.ts';
import { systemPath } from '../config.ts';
import type { VersionFailure } from '../domain/function.ts';
import { GatewayError } from '../errors.ts';
import { BuildLog } from './build-log.ts';
import type { BuildTools } from './find-tools.ts';
import { compileGo, GoCache } from './go.ts';
import { type InstallOptions, installWithNpm } from './npm.ts';
import { installWithPip } from './pip.ts';
import { frameworkRequirement, type HandlerSpec, readFrameworkUse } from './python-framework.ts';
import { pathProblem } from './source.ts';
import { type Identity, ToolRunner } from './tool.ts';
import { compileTypeScript, needsCompiling, planCompile } from './typescript.ts';

export interface BuildRequest {
  /** The tree is written here already and belongs to the identity; the build adds to it. */
  directory: string;
  /** How the runtime installs dependencies: `npm`, `pip`, `none`; another is not available here. */
  installer: string;
  /** File of the source that names dependencies; nothing is installed when it is absent. */
  dependenciesFile: string | undefined;
  /** As the definition names it. */
  entry: string | undefined;
  /** The runtime's defaults, first choice first. */
  entries: readonly string[];
  /** Given to installers, over what the machine gives them. */
  buildEnv: Readonly<Record<string, string>>;
  allowScripts: boolean;
  /** The function's user; absent when the gateway does not run as root. */
  identity?: Identity;
  compile: 'typescript' | 'go' | 'none';
  /** As the definition names it: Go's is compiled in. */
  handler?: string;
  /** Where the runtime's own files can be read by the function's user. */
  runtimeDirectory?: string;
  /** What the definition says of its handler, where Python's functions may be written for the framework. */
  framework?: HandlerSpec;
  /** The runtime's command is Python: without one the version could never run. */
  needsPython?: boolean;
}

export type BuildResult =
  /** `entry` is the file to load, relative to the directory; `framework`: it is written for the Functions Framework. */
  | { ok: true; entry: string; framework: boolean; log: string }
  | { ok: false; failure: VersionFailure; log: string };

export interface Builder {
  /** Rejects only when aborted (with the signal's reason) or by a fault of the machine. */
  build(request: BuildRequest, signal: AbortSignal): Promise<BuildResult>;
  /** Ends running builds, which reject with GATEWAY_STOPPING, and waits for them. Idempotent. */
  close(): Promise<void>;
}

export interface BuilderOptions {
  tools: BuildTools;
  clock: Clock;
  /** PATH of the tools. */
  path?: string;
  /**
   * What installers inherit of the machine's configuration: proxies, certificates, registries
   * (`npm_config_*`, `PIP_*`). The caller decides; nothing else of the gateway's environment
   * reaches them.
   */
  toolEnv?: Readonly<Record<string, string>>;
  /** Told of every process group of a build, so that none outlives the gateway. */
  processes?: { add(processGroup: number): void; remove(processGroup: number): void };
  /** Of one build, waiting for others not included. */
  timeoutMs?: number;
  /** How much of a build's output is kept. */
  outputBytesMax?: number;
  /** Builds at once; others wait. */
  buildsMax?: number;
  /** Where Go's standard library is kept compiled for all builds; each compiles it anew without one. */
  goCache?: string;
  /** Where installers get a home directory; every function's user must be able to enter it. */
  tempDirectory?: string;
}

/** Limits of a build; each is in docs/reference/limits.md and has a test. */
export const buildLimits = {
  buildTimeoutMsMax: 600_000,
  outputBytesMax: 1024 ** 2,
  /** An installation is mostly waiting for a registry, a compilation takes milliseconds. */
  buildsMax: 4,
  filesNamedMax: 20,
} as const;

export function createBuilder(options: BuilderOptions): Builder {
  return new ToolBuilder(options);
}

class ToolBuilder implements Builder {
  readonly #options: BuilderOptions;
  readonly #closing = new AbortController();
  readonly #running = new Set<Promise<unknown>>();
  readonly #waiting: (() => void)[] = [];
  readonly #goCache: GoCache;
  #places = 0;

  constructor(options: BuilderOptions) {
    this.#options = options;
    this.#goCache = new GoCache(options.goCache);
  }

  async build(request: BuildRequest, signal: AbortSignal): Promise<BuildResult> {
    const stop = AbortSignal.any([signal, this.#closing.signal]);
    await this.#takePlace(stop);
    const running = this.#buildNow(request, stop);
    this.#running.add(running);
    try {
      return await running;
    } finally {
      this.#running.delete(running);
      this.#freePlace();
    }
  }

  async close(): Promise<void> {
    this.#closing.abort(
      new GatewayError('GATEWAY_STOPPING', 'The gateway stops; the build ended.'),
    );
    await Promise.allSettled(this.#running);
  }

  /** At most `buildsMax` hold a place; the others wait in order. */
  #takePlace(stop: AbortSignal): Promise<void> {
    stop.throwIfAborted();
    if (this.#places < (this.#options.buildsMax ?? buildLimits.buildsMax)) {
      this.#places += 1;
      return Promise.resolve();
    }
    return new Promise((resolve, reject) => {
      const waiting = this.#waiting;
      function take(): void {
        stop.removeEventListener('abort', leave);
        resolve();
      }
      function leave(): void {
        waiting.splice(waiting.indexOf(take), 1);
        reject(stop.reason);
      }
      waiting.push(take);
      stop.addEventListener('abort', leave, { once: true });
    });
  }

  /** Hands the place to the next who waits. */
  #freePlace(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#places -= 1;
    else next();
  }

  async #buildNow(request: BuildRequest, stop: AbortSignal): Promise<BuildResult> {
    const { clock, outputBytesMax = buildLimits.outputBytesMax } = this.#options;
    const { timeoutMs = buildLimits.buildTimeoutMsMax, tempDirectory = tmpdir() } = this.#options;
    const log = new BuildLog(outputBytesMax);
    const late = new AbortController();
    const timer = clock.after(timeoutMs, () => late.abort());
    const runner = new ToolRunner({
      directory: request.directory,
      env: this.#environment(request),
      identity: request.identity,
      signal: AbortSignal.any([stop, late.signal]),
      log,
      clock,
      tempDirectory,
      ...(this.#options.processes !== undefined && { processes: this.#options.processes }),
    });
    try {
      const { tools } = this.#options;
      const result = await runSteps(request, { runner, tools, goCache: this.#goCache });
      return { ...result, log: log.text() };
    } catch (error) {
      if (stop.aborted) throw stop.reason;
      if (!late.signal.aborted) throw error;
      const message = `The build took longer than ${timeoutMs} ms (FNWAY_BUILD_MS_MAX)`;
      return { ok: false, failure: { code: 'BUILD_TIMED_OUT', message }, log: log.text() };
    } finally {
      timer.cancel();
      await runner.close();
    }
  }

  #environment(request: BuildRequest): Record<string, string> {
    const { tools, path: directories = systemPath, toolEnv } = this.#options;
    return {
      // Install scripts that call `node` get the one that runs npm.
      PATH: `${path.dirname(tools.node)}:${directories}`,
      LANG: 'C.UTF-8',
      ...toolEnv,
      ...request.buildEnv,
    };
  }
}

type StepsResult =
  | { ok: true; entry: string; framework: boolean }
  | { ok: false; failure: VersionFailure };

async function runSteps(
  request: BuildRequest,
  context: { runner: ToolRunner; tools: BuildTools; goCache: GoCache },
): Promise<StepsResult> {
  if (request.needsPython && context.tools.python === undefined) {
    const message =
      'This function needs python3, and this machine has none that its user can run. ' +
      'Install python3, and start the gateway again';
    return { ok: false, failure: { code: 'BUILD_TOOL_MISSING', message } };
  }
  const entry = findEntry(request);
  if (entry === undefined) return { ok: false, failure: await entryMissing(request) };
  const plan =
    request.compile === 'typescript' && needsCompiling(entry)
      ? await planCompile(request.directory, entry)
      : undefined;

  const use = await frameworkUseOf(request, entry);
  const framework = use !== undefined;

  const added = use?.adds ? frameworkRequirement : undefined;
  const installed = await installDependencies(request, { ...context, added });
  if (installed !== undefined) return { ok: false, failure: installed };
  if (request.compile === 'go') {
    const built = await compileGo({ ...request, entry }, context);
    return built.ok ? { ...built, framework } : built;
  }
  if (plan === undefined) return { ok: true, entry, framework };
  const failure = await compileTypeScript(plan, context);
  return failure === undefined
    ? { ok: true, entry: plan.output, framework }
    : { ok: false, failure };
}

function findEntry({ directory, entry, entries }: BuildRequest): string | undefined {
  const candidates = entry === undefined ? entries : [path.posix.normalize(entry)];
  return candidates.find(
    name =>
      pathProblem(name) === undefined &&
      statSync(path.join(directory, name), { throwIfNoEntry: false })?.isFile(),
  );
}

async function entryMissing({ directory, entry, entries }: BuildRequest): Promise<VersionFailure> {
  const found = await readdir(directory, { recursive: true, withFileTypes: true });
  const files = found
    .filter(item => item.isFile())
    .map(item => path.relative(directory, path.join(item.parentPath, item.name)))
    .sort();
  const named = files.slice(0, buildLimits.filesNamedMax).join(', ');
  const more = files.length - buildLimits.filesNamedMax;
  const there = files.length === 0 ? 'has no files' : `has ${named}`;
  const wanted = entry === undefined ? `none of ${entries.join(', ')}` : `no file ${entry}`;
  return {
    code: 'BUILD_FAILED',
    message: `There is ${wanted} in the source; it ${there}${more > 0 ? ` and ${more} more` : ''}. Name one: entry: FILE`,
    ...(entry !== undefined && { file: entry }),
  };
}

async function frameworkUseOf(
  { directory, framework, dependenciesFile }: BuildRequest,
  entry: string,
) {
  if (framework === undefined || dependenciesFile === undefined) return undefined;
  return readFrameworkUse(directory, { spec: framework, entry, dependenciesFile });
}

async function installDependencies(
  { installer, dependenciesFile, directory, allowScripts }: BuildRequest,
  { added, ...context }: { runner: ToolRunner; tools: BuildTools; added: string | undefined },
): Promise<VersionFailure | undefined> {
  if (installer === 'none' || dependenciesFile === undefined) return undefined;
  if (!existsSync(path.join(directory, dependenciesFile)) && added === undefined) return undefined;
  const options: InstallOptions = { ...context, dependenciesFile, allowScripts };
  if (installer === 'npm') return installWithNpm(options);
  if (installer === 'pip')
    return installWithPip({ ...options, ...(added !== undefined && { added }) });
  return {
    code: 'BUILD_TOOL_MISSING',
    message: `${dependenciesFile} needs the installer "${installer}", which is not available here`,
  };
}
