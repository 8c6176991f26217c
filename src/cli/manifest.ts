/**
 * Reads `fnway.yaml`: text → the functions it declares, checked by the schema that the gateway
 * checks with. Every mistake is one issue with its path, line and column, in one MANIFEST_INVALID;
 * nothing else is thrown. Not here: reading sources (sources.ts) and comparing with a gateway
 * (plan.ts). `${VAR}` is not expanded.
 */
import { readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import type { z } from 'zod';
import { type Definition, definitionSchema, isName, nameSchema } from '../domain/function.ts';
import {
  type DefinitionOf,
  type ResourceKind,
  resourceKinds,
  resourceRules,
} from '../domain/resource.ts';
import { keysAt } from '../domain/schema-keys.ts';
import { suggest } from '../domain/suggest.ts';
import { GatewayError, isGatewayError } from '../errors.ts';
import {
  isRecord,
  kindOf,
  lowerFirst,
  manifestLimits,
  type Path,
  type Place,
  quote,
  YamlReader,
} from './yaml-reader.ts';

export const manifestName = 'fnway.yaml';

export interface ManifestFunction {
  name: string;
  /** As the gateway's schema understands it; `source` has a made-up digest where `path` is set. */
  definition: Definition;
  /** As it is sent to the gateway: what the manifest says, without a source that is a path. */
  input: Record<string, unknown>;
  /** Where the source is, as written. */
  path?: string;
  /** Schemas that are paths, as written. */
  schemaPaths: { in?: string; out?: string };
  /** Where the function, and its source, stand in the manifest. */
  at: Place;
  sourceAt: Place;
}

/** A schedule, or another thing beside functions. */
export interface ManifestResource {
  kind: ResourceKind;
  name: string;
  /** With all defaults filled in. */
  definition: DefinitionOf<ResourceKind>;
}

export interface Manifest {
  project?: string;
  namespace?: string;
  functions: Map<string, ManifestFunction>;
  /** In the order in which they are made. */
  resources: ManifestResource[];
}

export interface LoadedManifest extends Manifest {
  /** The manifest's own path, and the absolute directory that its paths are relative to. */
  file: string;
  directory: string;
}

const sections: string[] = resourceKinds.map(kind => resourceRules[kind].plural);
const topKeys = ['project', 'namespace', 'functions', ...sections];
/** Names kept for what later versions bring; a manifest that has them is told so. */
const laterTopKeys = ['topics', 'subscriptions', 'webhooks', 'buckets', 'flows'].filter(
  key => !sections.includes(key),
);
const laterFunctionKeys = ['placement'];

/** Stands for the digest of a source that is a path, until the files are read. */
const digestPlaceholder = `sha256:${'0'.repeat(64)}`;

/** Reads `fnway.yaml` of a directory, or the file itself. Throws MANIFEST_INVALID. */
export async function loadManifest(location: string): Promise<LoadedManifest> {
  const info = await stat(location).catch(() => undefined);
  const file = info?.isFile() ? location : path.join(location, manifestName);
  const found = await stat(file).catch(error => {
    const missing = error.code === 'ENOENT' || error.code === 'ENOTDIR';
    const reason = missing ? `There is no ${file}` : `${file} cannot be read (${error.code})`;
    throw new GatewayError('MANIFEST_INVALID', `${reason}.`, {
      cause: error,
      remedy: missing
        ? 'Name the directory that holds it, or start one with `fnway new node hello`.'
        : 'Make the file readable.',
    });
  });
  if (found.size > manifestLimits.bytesMax) throw tooLarge(file);
  const text = await readFile(file, 'utf8').catch(error => {
    throw new GatewayError('MANIFEST_INVALID', `${file} cannot be read (${error.code}).`, {
      cause: error,
      remedy: 'Name a readable file, or the directory that holds it.',
    });
  });
  const directory = path.resolve(path.dirname(file));
  const manifest = parseManifest(text, { file, directory });
  return { ...manifest, file, directory };
}

/** Pure. `file` is for messages only; paths of buckets are relative to `directory`. Throws MANIFEST_INVALID with all the issues found. */
export function parseManifest(
  text: string,
  { file = manifestName, directory = '.' } = {},
): Manifest {
  if (Buffer.byteLength(text) > manifestLimits.bytesMax) throw tooLarge(file);
  const reader = new YamlReader(text, file);
  const root = reader.read();
  const manifest: Manifest = { functions: new Map(), resources: [] };
  const project = readName(reader, root, 'project');
  if (project !== undefined) manifest.project = project;
  const namespace = readName(reader, root, 'namespace');
  if (namespace !== undefined) manifest.namespace = namespace;
  checkTopKeys(reader, root);

  const functions = root.functions ?? {};
  if (!isRecord(functions)) {
    reader.add(['functions'], { message: `expected names of functions, not ${kindOf(functions)}` });
  } else {
    for (const [name, raw] of Object.entries(functions)) {
      const entry = readFunction(reader, { name, raw, project });
      if (entry !== undefined) manifest.functions.set(name, entry);
    }
  }
  for (const kind of resourceKinds)
    manifest.resources.push(...readResources(reader, { root, kind, directory }));
  reader.finish();
  return manifest;
}

/**
 * The namespace that a manifest's text names, if it is a valid one; mistakes are for other commands
 * to tell.
 */
export function namespaceOf(text: string): string | undefined {
  try {
    return parseManifest(text).namespace;
  } catch (error) {
    if (isGatewayError(error)) return undefined;
    throw error;
  }
}

function checkTopKeys(reader: YamlReader, root: Record<string, unknown>): void {
  for (const key of Object.keys(root)) {
    if (topKeys.includes(key)) continue;
    if (laterTopKeys.includes(key)) {
      const message = `${key} are not supported yet by this version of fnway`;
      reader.add([key], { message, hint: `Remove ${quote(key)}.`, key: true });
    } else {
      addUnknownKey(reader, { at: [], key, known: topKeys });
    }
  }
}

function readName(
  reader: YamlReader,
  root: Record<string, unknown>,
  key: string,
): string | undefined {
  const value = root[key];
  if (value === undefined || value === null) return undefined;
  const parsed = nameSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  addZodIssues(reader, parsed.error, { base: [key], input: value, keysOf: () => [] });
  return undefined;
}

function readResources(
  reader: YamlReader,
  {
    root,
    kind,
    directory,
  }: { root: Record<string, unknown>; kind: ResourceKind; directory: string },
): ManifestResource[] {
  const { plural, schema } = resourceRules[kind];
  const section = root[plural] ?? {};
  if (!isRecord(section)) {
    reader.add([plural], { message: `expected names of ${plural}, not ${kindOf(section)}` });
    return [];
  }
  return Object.entries(section).flatMap(([name, raw]) => {
    const at = [plural, name];
    if (!checkName(reader, at, { name, what: kind })) return [];
    const input = kind === 'bucket' ? withPath(raw, directory) : (raw ?? {});
    const parsed = schema.safeParse(input);
    if (parsed.success) return [{ kind, name, definition: parsed.data }];
    const keysOf = (below: readonly string[]) => keysAt(schema, below);
    addZodIssues(reader, parsed.error, { base: at, input, keysOf });
    return [];
  });
}

/** In a manifest the path of a bucket is relative to it. */
function withPath(raw: unknown, directory: string): unknown {
  if (!isRecord(raw) || typeof raw.path !== 'string') return raw ?? {};
  return { ...raw, path: path.resolve(directory, raw.path) };
}

function checkName(
  reader: YamlReader,
  at: Path,
  { name, what }: { name: string; what: string },
): boolean {
  if (isName(name)) return true;
  const rule = nameSchema.safeParse(name).error?.issues[0]?.message ?? 'not a name';
  reader.add(at, { message: `not a name of a ${what}: ${rule}`, key: true });
  return false;
}

function readFunction(
  reader: YamlReader,
  { name, raw, project }: { name: string; raw: unknown; project: string | undefined },
): ManifestFunction | undefined {
  const at = ['functions', name];
  if (!checkName(reader, at, { name, what: 'function' })) return undefined;
  if (!isRecord(raw)) {
    const example = 'Write for example `{ runtime: node, source: ./hello }`.';
    const message = `expected a function's settings, not ${kindOf(raw)}`;
    reader.add(at, { message, hint: example, key: true });
    return undefined;
  }
  const input: Record<string, unknown> = { ...raw };
  const place = { at: reader.place(at, { key: true }), sourceAt: reader.place([...at, 'source']) };
  const isPath = typeof raw.source === 'string';
  let bad = !checkSource(reader, raw.source, at);
  // Its own issue was added; the rest of the function is still checked.
  if (isPath || bad) input.source = { digest: digestPlaceholder };
  if ('project' in raw) {
    const hint = 'Write `project: NAME` once, at the top of the manifest.';
    reader.add([...at, 'project'], { message: 'project is of the whole file', hint, key: true });
    bad = true;
  }
  if (project !== undefined) input.project = project;
  const schemaPaths = takeSchemaPaths(input);
  const parsed = definitionSchema.safeParse(input);
  if (!parsed.success) {
    addZodIssues(reader, parsed.error, { base: at, input, keysOf: functionKeys });
    return undefined;
  }
  if (bad) return undefined;
  if (isPath) delete input.source;
  return {
    name,
    definition: parsed.data,
    input,
    ...(isPath && { path: raw.source as string }),
    schemaPaths,
    ...place,
  };
}

/** In a manifest a schema may be a path; until the file is read, any value fits. */
function takeSchemaPaths(input: Record<string, unknown>): ManifestFunction['schemaPaths'] {
  const { schema } = input;
  const paths: ManifestFunction['schemaPaths'] = {};
  if (!isRecord(schema)) return paths;
  const kept: Record<string, unknown> = { ...schema };
  for (const key of ['in', 'out'] as const) {
    const value = schema[key];
    if (typeof value !== 'string') continue;
    paths[key] = value;
    kept[key] = true;
  }
  input.schema = kept;
  return paths;
}

/**
 * In a manifest a source is a path, or files in place; the digests of the wire are not for people.
 */
function checkSource(reader: YamlReader, source: unknown, at: Path): boolean {
  if (source === undefined || (isRecord(source) && 'files' in source)) return true;
  if (typeof source === 'string' && source !== '' && !source.includes('\0')) return true;
  const found = source === '' ? 'nothing' : kindOf(source);
  const message = `expected a path such as ./hello, or { files: … }, not ${found}`;
  reader.add([...at, 'source'], { message });
  return false;
}

/** A value that a schema did not take: where it stands, and which keys may be where below it. */
interface Checked {
  base: Path;
  input: unknown;
  keysOf(below: readonly string[]): readonly string[];
}

/** What zod found, in our words: unknown keys one by one, and unions by what they accept. */
function addZodIssues(
  reader: YamlReader,
  error: z.ZodError,
  { base, input, keysOf }: Checked,
): void {
  const misspelt = error.issues.some(issue => issue.code === 'unrecognized_keys');
  for (const issue of error.issues) {
    // What seems to be missing is most often what is misspelt.
    if (misspelt && issue.code === 'custom' && issue.path.length < 2) continue;
    addZodIssue(reader, issue as z.core.$ZodIssue, { base, input, keysOf });
  }
}

function addZodIssue(
  reader: YamlReader,
  issue: z.core.$ZodIssue,
  { base, input, keysOf }: Checked,
): void {
  const at = [...base, ...(issue.path as (string | number)[])];
  const value = valueAt(input, issue.path as (string | number)[]);
  if (issue.code === 'unrecognized_keys') {
    for (const key of issue.keys) {
      addUnknownKey(reader, { at, key, known: keysOf(issue.path.map(String)) });
    }
    return;
  }
  if (issue.code === 'invalid_union') {
    // The branch that got furthest is the one that was meant.
    const deep = issue.errors.find(branch => branch.some(inner => inner.path.length > 0));
    const first = deep?.[0] ?? issue.errors.flat().find(inner => inner.code !== 'invalid_type');
    if (first !== undefined && isRecord(value) === (deep !== undefined)) {
      addZodIssue(reader, { ...first, path: [] } as z.core.$ZodIssue, {
        base: [...at, ...(first.path as string[])],
        input: valueAt(value, first.path as string[]),
        keysOf: below => keysOf([...issue.path.map(String), ...first.path.map(String), ...below]),
      });
      return;
    }
    const kinds = issue.errors
      .flat()
      .flatMap(inner => ('expected' in inner ? [inner.expected] : []));
    reader.add(at, { message: `expected ${orList(kinds)}, not ${kindOf(value)}` });
    return;
  }
  if (issue.code === 'invalid_type') {
    // A schema that says how such a value is written is worth hearing.
    const example = /such as .*/.exec(issue.message)?.[0];
    const expected = [article(issue.expected), example].filter(Boolean).join(' ');
    reader.add(at, { message: `expected ${expected}, not ${kindOf(value)}` });
    return;
  }
  // The schema's own rules for a key say what is wrong with it in a nested issue.
  const inner = issue.code === 'invalid_key' ? issue.issues[0]?.message : undefined;
  reader.add(at, {
    message: lowerFirst(inner ?? issue.message),
    key: issue.code === 'invalid_key',
  });
}

function addUnknownKey(
  reader: YamlReader,
  { at, key, known }: { at: Path; key: string; known: readonly string[] },
): void {
  const inFunction = at.length === 2 && at[0] === 'functions';
  if (inFunction && laterFunctionKeys.includes(key)) {
    const message = `${key} is not supported yet by this version of fnway`;
    reader.add([...at, key], { message, hint: `Remove ${quote(key)}.`, key: true });
    return;
  }
  const near = suggest(key, known);
  const message = `unknown key ${quote(key)}`;
  reader.add([...at, key], {
    message: near === undefined ? message : `${message}; did you mean ${quote(near)}?`,
    ...(near === undefined && { hint: `Known keys: ${known.join(', ')}.` }),
    key: true,
  });
}

/** Of a function: what is said once, at the top, is not among them. */
function functionKeys(at: readonly string[]): readonly string[] {
  return keysAt(definitionSchema, at).filter(key => at.length > 0 || key !== 'project');
}

function tooLarge(file: string): GatewayError {
  const detail = `${file} is larger than ${manifestLimits.bytesMax} bytes (manifestBytesMax).`;
  return new GatewayError('MANIFEST_INVALID', detail, {
    remedy: 'Keep code in files of its own (`source: ./hello`), or split the project.',
  });
}

function valueAt(value: unknown, at: Path): unknown {
  let current = value;
  for (const segment of at) {
    if (current === null || typeof current !== 'object') return undefined;
    current = (current as Record<string | number, unknown>)[segment];
  }
  return current;
}

/** What zod calls a type, as people write YAML. */
function article(expected: string): string {
  const names: Record<string, string> = {
    string: 'text',
    number: 'a number',
    int: 'a whole number',
    boolean: 'true or false',
    object: 'a mapping',
    record: 'a mapping',
    array: 'a list',
  };
  return names[expected] ?? expected;
}

function orList(kinds: readonly string[]): string {
  const names = [...new Set(kinds.map(article))];
  if (names.length < 2) return names[0] ?? 'something else';
  return `${names.slice(0, -1).join(', ')} or ${names.at(-1)}`;
}
