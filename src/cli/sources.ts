/**
 * From a manifest to what is asked of a gateway: reads the sources that the manifest names and
 * gives each function its normal form, so that it can be compared (plan.ts) and sent (apply.ts).
 * Changes nothing anywhere.
 */
import { readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import type { FunctionDefinition, JsonSchema } from '../../client/api.ts';
import { readTree, type Tree, treeDigest, treeFromFiles } from '../build/source.ts';
import { type FunctionSettings, splitDefinition, type VersionSpec } from '../domain/function.ts';
import { GatewayError, isGatewayError } from '../errors.ts';
import type { LoadedManifest, ManifestFunction } from './manifest.ts';
import { limited } from './parallel.ts';

/** A function as it is to be, with all defaults filled in. */
export interface Desired {
  name: string;
  spec: VersionSpec;
  settings: FunctionSettings;
  /** The body of the PUT. A source that is a path is in it by its digest. */
  definition: FunctionDefinition;
  /** The files behind that digest, to be uploaded when the gateway does not have them. */
  tree?: Tree;
  /** Absolute; a directory or a file. */
  sourcePath?: string;
}

/** Throws SOURCE_INVALID or SOURCE_TOO_LARGE, or MANIFEST_INVALID when a path leads nowhere. */
export async function readSources(manifest: LoadedManifest): Promise<Desired[]> {
  return limited([...manifest.functions.values()], entry => readSource(manifest, entry));
}

/** Reads the files of one function anew. */
export async function readSource(
  manifest: LoadedManifest,
  entry: ManifestFunction,
): Promise<Desired> {
  const schema = await readSchemas(manifest, entry);
  const definition = { ...(entry.input as FunctionDefinition), ...schema };
  const parsed = { ...entry.definition, ...schema };
  if (entry.path === undefined) {
    const source = parsed.source;
    // Inline files have a digest too: it is how the gateway names them.
    const digest =
      source !== undefined && 'files' in source
        ? treeDigest(treeFromFiles(source.files))
        : undefined;
    return { name: entry.name, definition, ...splitDefinition(parsed, digest) };
  }
  const sourcePath = path.resolve(manifest.directory, entry.path);
  const tree = await readTree(sourcePath).catch(error => {
    throw atManifest(error, manifest, entry);
  });
  const digest = treeDigest(tree);
  const entryFile = await entryOf(sourcePath, definition.entry);
  const withEntry = entryFile === undefined ? {} : { entry: entryFile };
  return {
    name: entry.name,
    definition: { ...definition, ...withEntry, source: { digest } },
    tree,
    sourcePath,
    ...splitDefinition({ ...parsed, ...withEntry }, digest),
  };
}

/** The schemas of a function, those that are files read. */
async function readSchemas(
  manifest: LoadedManifest,
  entry: ManifestFunction,
): Promise<Pick<FunctionDefinition, 'schema'>> {
  const { schema } = entry.input as FunctionDefinition;
  if (schema === undefined) return {};
  const read = { ...schema };
  for (const [key, file] of Object.entries(entry.schemaPaths) as Array<['in' | 'out', string]>) {
    const location = path.resolve(manifest.directory, file);
    try {
      if (path.relative(manifest.directory, location).startsWith('..'))
        throw new Error('it lies outside the directory of the manifest');
      read[key] = JSON.parse(await readFile(location, 'utf8')) as JsonSchema;
    } catch (error) {
      const { line, column } = entry.at;
      const message = `functions.${entry.name}.schema.${key}: ${file} cannot be read: ${(error as Error).message}`;
      throw new GatewayError('MANIFEST_INVALID', `${manifest.file}:${line}:${column}: ${message}`, {
        cause: error,
        issues: [{ path: `functions.${entry.name}.schema.${key}`, message, line, column }],
      });
    }
  }
  return { schema: read };
}

/** A source that is a single file is its own entry, whatever it is called. */
export async function entryOf(
  sourcePath: string,
  given: string | undefined,
): Promise<string | undefined> {
  if (given !== undefined && !given.startsWith(':')) return given;
  const info = await stat(sourcePath);
  return info.isFile() ? `${path.basename(sourcePath)}${given ?? ''}` : given;
}

/** A path that cannot be read is a mistake in the manifest: its line is named. */
function atManifest(error: unknown, manifest: LoadedManifest, entry: ManifestFunction): unknown {
  if (!isGatewayError(error)) return error;
  const { line, column } = entry.sourceAt;
  const message = `functions.${entry.name}.source: ${error.message}`;
  return new GatewayError(error.code, `${manifest.file}:${line}:${column}: ${message}`, {
    cause: error,
    remedy: error.remedy,
    issues: [{ path: `functions.${entry.name}.source`, message: error.message, line, column }],
  });
}
