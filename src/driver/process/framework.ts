/**
 * What a function that may be written for a functions framework gets beside its code: the environment that the
 * framework's functions are used to, and Express, which those of the node runtime answer through.
 */
import { execFile } from 'node:child_process';
import { chmodSync, existsSync, readFileSync, renameSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import type { Runtime } from '../../domain/runtime.ts';
import { GatewayError } from '../../errors.ts';
import type { Version } from '../../invoke/invoke.ts';
import { nodeRuntime } from './runtimes.ts';

/** Of every function of a runtime that has a framework. What the definition says wins. */
export function frameworkEnvironment(
  version: Version,
  runtime: Runtime | undefined,
): Record<string, string> {
  if (runtime?.framework === undefined) return {};
  const { name, number, spec, files } = version;
  return {
    K_SERVICE: name,
    K_REVISION: `${name}-${String(number).padStart(5, '0')}`,
    PORT: '8080',
    ...(files?.framework === 'used' && {
      // Python's runtime has a choice of its own where the definition names none.
      ...((spec.handler !== undefined || spec.runtime === nodeRuntime) && {
        FUNCTION_TARGET: spec.handler ?? 'function',
      }),
      FUNCTION_SIGNATURE_TYPE: spec.signature ?? 'http',
    }),
  };
}

export interface Express {
  /** Where functions' users can load it. Made when first asked for; idempotent. */
  file(): Promise<string>;
}

/**
 * Express in one file, bundled by esbuild: its packages lie where the gateway was installed, which functions' users may
 * not be able to read, and one file loads in a third of the time.
 */
export function createExpress(options: {
  directory: string;
  esbuild: string | undefined;
}): Express {
  let made: Promise<string> | undefined;
  return {
    file() {
      made ??= bundleExpress(options).catch(error => {
        // The next one tries again.
        made = undefined;
        throw error;
      });
      return made;
    },
  };
}

async function bundleExpress(options: {
  directory: string;
  esbuild: string | undefined;
}): Promise<string> {
  const manifest = createRequire(import.meta.url).resolve('express/package.json');
  const { version } = JSON.parse(readFileSync(manifest, 'utf8')) as { version: string };
  const file = join(options.directory, `express-${version}.cjs`);
  if (existsSync(file)) return file;
  if (options.esbuild === undefined) throw notBundled('esbuild is not installed');
  const making = `${file}.tmp`;
  const words = ['--bundle', '--platform=node', '--format=cjs', '--minify-whitespace'];
  try {
    await promisify(execFile)(
      options.esbuild,
      [join(dirname(manifest), 'index.js'), `--outfile=${making}`, '--log-level=error', ...words],
      { cwd: options.directory, env: {} },
    );
    chmodSync(making, 0o644);
    renameSync(making, file);
  } catch (cause) {
    throw notBundled((cause as Error).message);
  }
  return file;
}

function notBundled(what: string): GatewayError {
  return new GatewayError(
    'INSTANCE_NOT_STARTED',
    `Express, which functions of the functions framework need, could not be bundled: ${what}`,
  );
}
