/**
 * `fnway new`: a directory with a runtime's sample function, and its entry in ./fnway.yaml.
 * Overwrites nothing.
 */
import { existsSync, readdirSync } from 'node:fs';
import { cp, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type Command, Option } from 'commander';
import type { Document } from 'yaml';
import { GatewayError } from '../errors.ts';
import { dataDirectoryOf, leftAddress } from './access.ts';
import { type Context, checkName } from './context.ts';
import { runtimeDirectories, runtimeNames } from './package.ts';

const manifestHead = `# What \`fnway up\` runs here and \`fnway apply\` deploys to a gateway.
# With \`project: NAME\`, apply also removes what is no longer in this file.
`;

export function addNewCommand(program: Command, contextOf: (command: Command) => Context): void {
  program
    .command('new')
    .description('start a function from a runtime’s sample')
    .argument('<runtime>', `one of ${runtimeNames([]).join(', ')}, or one of --runtimes`)
    .argument('<name>', 'name of the function and of its directory')
    .addOption(
      new Option('--runtimes <dirs>', 'directories of more runtimes, separated by :').env(
        'FNWAY_RUNTIMES',
      ),
    )
    .action((runtime, name, options, command) => {
      const more = [options.runtimes ?? []].flat().flatMap((text: string) => text.split(':'));
      const { namespace } = command.optsWithGlobals();
      return create(contextOf(command), { runtime, name, more, namespace });
    });
}

async function create(
  { out, env }: Context,
  given: { runtime: string; name: string; more: string[]; namespace?: string },
): Promise<void> {
  const { runtime, name, more, namespace } = given;
  const sample = await sampleOf(runtime, more);
  await checkName(name);
  if (existsSync(name)) {
    throw refuse(`${name} exists already, and nothing is overwritten.`, {
      remedy: 'Choose another name, or remove the directory.',
    });
  }
  // Before anything is written: a manifest that cannot be changed leaves no half of a function.
  const manifest = await manifestWith(runtime, name);
  await cp(sample, name, {
    recursive: true,
    errorOnExist: true,
    filter: source => path.basename(source) !== '__pycache__',
  });
  await writeFile('fnway.yaml', manifest);
  const files = readdirSync(name).sort();
  if (out.json) {
    out.value({ name, runtime, directory: path.resolve(name), files });
    return;
  }
  out.line(`${out.colors.green('✓')} ${name}/ (${files.join(', ')}), declared in fnway.yaml`);
  // `up` would find the data directory in use.
  const next = (await leftAddress(dataDirectoryOf(env))) === undefined ? 'fnway up' : 'fnway apply';
  // The manifest may hold functions already, and has one namespace for all.
  out.line(`  ${out.colors.cyan('→')} ${next}${namespace ? ` -n ${namespace}` : ''}`);
}

async function sampleOf(runtime: string, more: readonly string[]): Promise<string> {
  const known = runtimeNames(more);
  const directory = runtimeDirectories(more)
    .map(parent => path.join(parent, runtime, 'function'))
    .find(candidate => !/[/\\]/.test(runtime) && existsSync(candidate));
  if (directory !== undefined) return directory;
  const { suggest } = await import('../domain/suggest.ts');
  // What people call the languages of these runtimes.
  const alias = {
    typescript: 'node',
    javascript: 'node',
    ts: 'node',
    js: 'node',
    py: 'python',
    golang: 'go',
    sh: 'shell',
    bash: 'shell',
  };
  const near = alias[runtime as keyof typeof alias] ?? suggest(runtime, known);
  const absent = more.filter(parent => parent !== '' && !existsSync(parent));
  const others = 'or name the directory that holds it: --runtimes DIR.';
  const remedy =
    near === undefined ? `Use one of ${known.join(', ')}, ${others}` : `Did you mean ${near}?`;
  const lost = absent.length === 0 ? '' : ` ${absent.join(', ')} does not exist.`;
  const detail = `There is no runtime ${JSON.stringify(runtime)} with a sample function.${lost}`;
  throw new GatewayError('RUNTIME_NOT_FOUND', detail, { remedy });
}

/** The text of ./fnway.yaml with the function added; comments and order stay as they are. */
async function manifestWith(runtime: string, name: string): Promise<string> {
  const { isMap, parseDocument } = await import('yaml');
  const { manifestName, parseManifest } = await import('./manifest.ts');
  const before = await readFile(manifestName, 'utf8').catch(error => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
  if (before !== undefined && parseManifest(before).functions.has(name)) {
    throw refuse(`fnway.yaml declares ${name} already.`, { remedy: 'Choose another name.' });
  }
  const document: Document = parseDocument(before ?? manifestHead) as unknown as Document;
  const entry = document.createNode({ runtime, source: `./${name}` });
  if (document.contents === null) document.contents = document.createNode({});
  const functions = document.get('functions');
  if (isMap(functions)) functions.add(document.createPair(name, entry));
  else document.set('functions', document.createNode({ [name]: entry }));
  return document.toString({ lineWidth: 100 });
}

function refuse(detail: string, options: { remedy: string }): GatewayError {
  return new GatewayError('COMMAND_INVALID', detail, options);
}
