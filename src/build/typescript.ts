/**
 * Turns a TypeScript entry and the local files it imports into one file beside it that Node loads
 * directly, with an inline source map so that errors name the user's file and line. Packages stay
 * imports; types are not checked. The compiler is esbuild's program, run as the function's user,
 * not its library inside the gateway: what a function imports must never be read with the gateway's
 * rights.
 */
import { existsSync } from 'node:fs';
import { open } from 'node:fs/promises';
import path from 'node:path';
import type { VersionFailure } from '../domain/function.ts';
import type { BuildTools } from './find-tools.ts';
import type { ToolRunner } from './tool.ts';

const extensions = /\.(?:[mc]?ts|[tj]sx)$/;

export function needsCompiling(entry: string): boolean {
  return extensions.test(entry) && !/\.d\.[mc]?ts$/.test(entry);
}

export interface CompilePlan {
  entry: string;
  format: 'esm' | 'cjs';
  /** Beside the entry, so that `import.meta.dirname` and relative reads stay what they were. */
  output: string;
  /** Whether the source has its own tsconfig.json for this entry. */
  configured: boolean;
}

/**
 * Decides from the source as written: made before any tool has run, so that no link can be in the
 * way.
 */
export async function planCompile(directory: string, entry: string): Promise<CompilePlan> {
  const format = moduleFormat(entry, await readStart(path.join(directory, entry)));
  const suffix = format === 'esm' ? '.fnway.mjs' : '.fnway.cjs';
  let configured = false;
  for (let above = path.posix.dirname(entry); ; above = path.posix.dirname(above)) {
    configured ||= ['tsconfig.json', 'jsconfig.json'].some(name =>
      existsSync(path.join(directory, above, name)),
    );
    if (above === '.') break;
  }
  return { entry, format, output: entry.replace(extensions, suffix), configured };
}

export async function compileTypeScript(
  plan: CompilePlan,
  { runner, tools }: { runner: ToolRunner; tools: BuildTools },
): Promise<VersionFailure | undefined> {
  if (plan.entry.includes('=')) {
    // It would take what stands before as the name of what it makes.
    const message = 'a TypeScript file whose name has = cannot be built; rename it';
    return { code: 'BUILD_FAILED', message, file: plan.entry };
  }
  if (tools.esbuild === undefined) return esbuildMissing('esbuild is not installed');
  const outcome = await runner.run(tools.esbuild, [
    `./${plan.entry}`,
    `--outfile=${plan.output}`,
    `--format=${plan.format}`,
    ...['--bundle', '--packages=external', '--platform=node', '--target=node24'],
    ...['--sourcemap=inline', '--sources-content=false'],
    ...['--log-level=warning', '--color=false'],
    ...(plan.format === 'esm' ? commonJsNames : []),
    // Else esbuild would take one from a directory above the version, which is not the user's.
    ...(plan.configured ? [] : ['--tsconfig-raw={}']),
  ]);
  if (outcome.kind === 'not-started') {
    return esbuildMissing(`${tools.esbuild} cannot be run (${outcome.errno})`);
  }
  if (outcome.status === 0) return undefined;
  const ended = outcome.signal ?? `status ${outcome.status}`;
  return (
    parseError(outcome.output) ?? {
      code: 'BUILD_FAILED',
      message: `The TypeScript compiler ended with ${ended}: ${outcome.output.trim().slice(-500)}`,
      file: plan.entry,
    }
  );
}

/** Made when it is first used: most handlers never do, and making one costs a cold call a tenth of a millisecond. */
const lazyRequire =
  'let __fnwayRequire; const require = new Proxy(function () {}, { ' +
  'apply: (_, self, given) => __fnwayMakeRequire()(...given), ' +
  'get: (_, key) => __fnwayMakeRequire()[key] }); ' +
  'function __fnwayMakeRequire() { return (__fnwayRequire ??= ' +
  'process.getBuiltinModule("node:module").createRequire(import.meta.url)); }';

/**
 * Names of CommonJS that ES modules lack but users' code, and the local .cjs files bundled with it,
 * may use. The definitions apply only where a file declares no such name itself; esbuild renames a
 * `require` that it declares.
 */
const commonJsNames = [
  '--define:__dirname=import.meta.dirname',
  '--define:__filename=import.meta.filename',
  `--banner:js=${lazyRequire}`,
];

/**
 * ES module unless the extension says otherwise, or the code uses CommonJS and neither imports nor
 * exports. A wrong guess costs little: esbuild turns either kind into either format.
 */
export function moduleFormat(entry: string, source: string): 'esm' | 'cjs' {
  if (entry.endsWith('.cts')) return 'cjs';
  if (entry.endsWith('.mts')) return 'esm';
  let usesCommonJs = false;
  let inComment = false;
  for (const raw of source.split('\n')) {
    const line = raw.trim();
    // Comments only matter here where a line of prose starts with "import" or "export".
    const startsInside: boolean = inComment;
    if (inComment) inComment = !line.includes('*/');
    else inComment = line.startsWith('/*') && !line.includes('*/');
    if (startsInside || inComment || line.startsWith('//')) continue;
    if (/^export\s*=/.test(line)) return 'cjs';
    if (/^import\s*["'{*]|^import\s+[\w$]|^export\s*[{*]|^export\s+\w/.test(line)) return 'esm';
    if (line.includes('import.meta')) return 'esm';
    usesCommonJs ||= /\bmodule\.exports\b|\bexports[.[]|\brequire\(/.test(line);
  }
  return usesCommonJs ? 'cjs' : 'esm';
}

/** The first error of esbuild's text. Its columns count from 0, ours from 1 as editors do. */
export function parseError(output: string): VersionFailure | undefined {
  const lines = output.split('\n');
  const at = lines.findIndex(line => line.startsWith('✘ [ERROR] '));
  if (at < 0) return undefined;
  const message = lines[at]!.slice('✘ [ERROR] '.length);
  // The place stands two lines below; an error without one is followed by the next message.
  const place = /^ {4}(.+):(\d+):(\d+):$/.exec(lines[at + 2] ?? '');
  if (place === null) return { code: 'BUILD_FAILED', message };
  return {
    code: 'BUILD_FAILED',
    message,
    file: place[1]!,
    line: Number(place[2]),
    column: Number(place[3]) + 1,
  };
}

/**
 * Imports and exports that matter stand at the start; a generated giant is not worth reading whole.
 */
async function readStart(file: string): Promise<string> {
  const handle = await open(file, 'r');
  try {
    const buffer = Buffer.alloc(262_144);
    const { bytesRead } = await handle.read(buffer, 0, buffer.byteLength, 0);
    return buffer.toString('utf8', 0, bytesRead);
  } finally {
    await handle.close();
  }
}

function esbuildMissing(reason: string): VersionFailure {
  const message =
    `The entry is TypeScript, but ${reason}. Install fnway again with its optional ` +
    'dependencies (npm install --include=optional), readable for all users.';
  return { code: 'BUILD_TOOL_MISSING', message };
}
