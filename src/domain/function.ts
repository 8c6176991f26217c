/**
 * What a function and a version are, which definitions are valid, and which settings belong to which.
 * Pure: no I/O, no clock. A version is immutable; everything that may change without a new version is
 * in FunctionSettings.
 */
import { z } from 'zod';
import type { ScriptResult } from '../../client/api.ts';
import type { FailureReason } from '../../client/errors.ts';
import { durationSchema } from './duration.ts';
import { type RetryPolicy, retryPolicyOf, retrySchema } from './retry.ts';
import { type SecretUse, secretLimits, secretUseSchema } from './secret.ts';
import { parseSize } from './units.ts';

/** Limits of a definition; each is in docs/reference/limits.md and has a test. */
export const definitionLimits = {
  nameCharsMax: 63,
  envKeysMax: 256,
  envBytesMax: 131_072,
  labelsMax: 64,
  scriptBytesMax: 262_144,
  sourceFilesMax: 1000,
  sourceTextBytesMax: 1_048_576,
  descriptionCharsMax: 1024,
  argsMax: 64,
  argCharsMax: 4096,
  concurrencyMax: 10_000,
  instancesMax: 1000,
  timeoutMsMax: 86_400_000,
  waitingJobsMax: 10_000_000,
} as const;

export const definitionDefaults = {
  timeoutMs: 60_000,
  memoryBytes: 256 * 1024 ** 2,
  instances: { min: 0, max: 4, idleMs: 300_000 },
  auth: 'token',
  /** Jobs that wait for one function; beyond, no more are accepted. */
  waitingJobs: 1_000_000,
} as const;

const namePattern = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
const nameRule = 'use 1 to 63 of a-z, 0-9 and -, starting and ending with a letter or a digit';

export function isName(text: string): boolean {
  return namePattern.test(text);
}

export const nameSchema = z.string().regex(namePattern, nameRule);

/** A runtime is asked for by its name or by an alias, which may have capitals. */
export const runtimeNameSchema = z
  .string()
  .regex(
    /^[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?$/,
    'use 1 to 63 of letters, digits and -, starting and ending with a letter or a digit',
  );

const sizeSchema = z.union([z.string(), z.int()]).transform((value, ctx) => {
  const bytes = parseSize(String(value));
  if (bytes !== undefined) return bytes;
  ctx.addIssue({ code: 'custom', message: 'not a size; write 512Ki, 256Mi or 1Gi' });
  return z.NEVER;
});

const envSchema = z
  .record(
    z
      .string()
      .regex(/^[A-Za-z_][A-Za-z0-9_]*$/, 'use letters, digits and _, not starting with a digit'),
    z
      .union([
        z.string().refine(text => !text.includes('\0'), 'a NUL byte cannot be in an environment'),
        z.number(),
        z.boolean(),
      ])
      .transform(String),
  )
  .refine(
    env => Object.keys(env).length <= definitionLimits.envKeysMax,
    `more than ${definitionLimits.envKeysMax} variables`,
  )
  .refine(
    env => Buffer.byteLength(JSON.stringify(env)) <= definitionLimits.envBytesMax,
    `more than ${definitionLimits.envBytesMax} bytes`,
  )
  .refine(
    env => !Object.keys(env).some(key => key.startsWith('FNWAY_')),
    'names that start with FNWAY_ are reserved',
  );

const entrySchema = z
  .string()
  .regex(
    /^(?!\/)(?!.*(?:^|\/)\.\.(?:\/|:|$))[^\0:]+(?::[A-Za-z_$][\w$.-]*)?$|^:[A-Za-z_$][\w$.-]*$/,
    'write FILE, FILE:HANDLER or :HANDLER, with a relative FILE inside the source',
  );

const instancesSchema = z
  .strictObject({
    min: z.int().min(0).max(definitionLimits.instancesMax).optional(),
    max: z.int().min(1).max(definitionLimits.instancesMax).optional(),
    idle: durationSchema.pipe(z.number().min(0)).optional(),
  })
  .refine(
    i => (i.min ?? 0) <= (i.max ?? definitionDefaults.instances.max),
    'min is larger than max',
  );

const filesSchema = z
  .record(z.string().min(1).max(255), z.string())
  .refine(files => Object.keys(files).length > 0, 'no file')
  .refine(
    files => Object.keys(files).length <= definitionLimits.sourceFilesMax,
    `more than ${definitionLimits.sourceFilesMax} files`,
  )
  .refine(
    files =>
      Object.values(files).reduce((sum, text) => sum + Buffer.byteLength(text), 0) <=
      definitionLimits.sourceTextBytesMax,
    `more than ${definitionLimits.sourceTextBytesMax} bytes; upload an archive instead`,
  );

const sourceSchema = z.union([
  z.strictObject({ files: filesSchema }),
  z.strictObject({
    digest: z.string().regex(/^sha256:[0-9a-f]{64}$/, 'write sha256: and 64 hexadecimal digits'),
  }),
]);

/** Whether it is a schema at all is found out when it is compiled: see invoke/json-schema.ts. */
const jsonSchemaSchema = z.union([z.record(z.string(), z.unknown()), z.boolean()]);
const argsSchema = z
  .array(
    z
      .string()
      .max(definitionLimits.argCharsMax)
      .refine(text => !text.includes('\0'), 'a NUL byte cannot be in an argument'),
  )
  .max(definitionLimits.argsMax, `more than ${definitionLimits.argsMax}`);

const resultKeyPattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,126}$/;
const resultKeyRule =
  'use 1 to 127 of letters, digits, ., _ and -, starting with a letter or a digit';
/** How a function that is written for a functions framework is called. */
export const signatures = ['http', 'event', 'cloudevent', 'typed'] as const;
export type Signature = (typeof signatures)[number];

/** Everything that a definition may say, as sent to `PUT …/functions/{name}`. */
export const definitionSchema = z
  .strictObject({
    runtime: runtimeNameSchema.optional(),
    source: sourceSchema.optional(),
    script: z
      .string()
      .min(1)
      .refine(
        text => Buffer.byteLength(text) <= definitionLimits.scriptBytesMax,
        `more than ${definitionLimits.scriptBytesMax} bytes`,
      )
      .optional(),
    http: z
      .strictObject({
        url: z.url({ protocol: /^https?$/, error: 'write an http:// or https:// address' }),
        convention: z.enum(['operation']).optional(),
      })
      .optional(),
    image: z.string().min(1).optional(),
    command: z.array(z.string()).optional(),
    port: z.int().min(1).max(65_535).optional(),
    entry: entrySchema.optional(),
    env: envSchema.optional(),
    secrets: z
      .array(secretUseSchema)
      .max(secretLimits.secretsMax)
      .refine(
        uses => new Set(uses.map(({ name }) => name)).size === uses.length,
        'a secret is named twice',
      )
      .optional(),
    buildEnv: envSchema.optional(),
    schema: z
      .strictObject({ in: jsonSchemaSchema.optional(), out: jsonSchemaSchema.optional() })
      .optional(),
    timeout: durationSchema
      .pipe(z.number().min(1, 'at least 1ms').max(definitionLimits.timeoutMsMax, 'at most 1d'))
      .optional(),
    memory: sizeSchema.pipe(z.number().min(16 * 1024 ** 2, 'at least 16Mi')).optional(),
    concurrency: z.int().min(1).max(definitionLimits.concurrencyMax).optional(),
    instances: instancesSchema.optional(),
    auth: z.enum(['token', 'none']).optional(),
    record: z.enum(['calls', 'bodies']).optional(),
    retry: retrySchema.optional(),
    queue: z
      .strictObject({
        concurrency: z.int().min(1).max(definitionLimits.concurrencyMax).optional(),
        waiting: z.int().min(1).max(definitionLimits.waitingJobsMax).optional(),
      })
      .optional(),
    stream: z.boolean().optional(),
    args: argsSchema.optional(),
    argKeys: argsSchema.optional(),
    allowExitCodes: z
      .union([z.literal('any'), z.array(z.int().min(1).max(255)).max(255)])
      .optional(),
    result: z
      .union([
        z.literal('json'),
        z.strictObject({ key: z.string().regex(resultKeyPattern, resultKeyRule) }),
      ])
      .optional(),
    allowScripts: z.boolean().optional(),
    signature: z.enum(signatures).optional(),
    labels: z
      .record(z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._/-]{0,126}$/), z.string().max(256))
      .refine(
        labels => Object.keys(labels).length <= definitionLimits.labelsMax,
        `more than ${definitionLimits.labelsMax} labels`,
      )
      .optional(),
    description: z.string().max(definitionLimits.descriptionCharsMax).optional(),
    project: nameSchema.optional(),
    applied: z.boolean().optional(),
  })
  .superRefine((definition, ctx) => {
    const kinds = (['source', 'script', 'http', 'image'] as const).filter(
      kind => definition[kind] !== undefined,
    );
    // What is missing is most likely what the runtime is for.
    const wantsSource = kinds.length === 0 && definition.runtime !== undefined;
    if (wantsSource) {
      ctx.addIssue({ code: 'custom', path: ['source'], message: 'a runtime needs a source' });
    } else if (kinds.length !== 1) {
      const found = kinds.length === 0 ? 'none is given' : `${kinds.join(' and ')} are given`;
      ctx.addIssue({
        code: 'custom',
        message: `exactly one of source, script, http and image is needed; ${found}`,
      });
    }
    if (definition.source !== undefined && definition.runtime === undefined) {
      ctx.addIssue({ code: 'custom', path: ['runtime'], message: 'source needs a runtime' });
    }
    if (definition.source === undefined && definition.runtime !== undefined && !wantsSource) {
      ctx.addIssue({ code: 'custom', path: ['runtime'], message: 'a runtime is for source only' });
    }
    for (const key of ['command', 'port'] as const) {
      if (definition[key] !== undefined && definition.image === undefined) {
        ctx.addIssue({ code: 'custom', path: [key], message: `${key} is for image only` });
      }
    }
    for (const [index, { name }] of (definition.secrets ?? []).entries()) {
      if (definition.env?.[name] === undefined) continue;
      const message = `env has a variable ${name} too`;
      ctx.addIssue({ code: 'custom', path: ['secrets', index], message });
    }
    for (const key of ['env', 'secrets', 'memory', 'stream'] as const) {
      if (definition[key] !== undefined && definition.http !== undefined) {
        const message = `${key} is for code that the gateway runs; the server of an http function has its own`;
        ctx.addIssue({ code: 'custom', path: [key], message });
      }
    }
    for (const key of scriptKeys) {
      if (definition[key] === undefined) continue;
      // Which runtimes run scripts is known where they are.
      if (definition.source === undefined && definition.script === undefined) {
        ctx.addIssue({ code: 'custom', path: [key], message: `${key} is for scripts only` });
      }
    }
    if (definition.result !== undefined && definition.stream) {
      const message = 'a result is known when the script has ended; leave out stream';
      ctx.addIssue({ code: 'custom', path: ['result'], message });
    }
    for (const key of ['entry', 'buildEnv', 'allowScripts', 'signature'] as const) {
      if (definition[key] !== undefined && definition.source === undefined) {
        ctx.addIssue({ code: 'custom', path: [key], message: `${key} is for source only` });
      }
    }
  });

/** Keys of what is run as a process for each call. */
export const scriptKeys = ['args', 'argKeys', 'allowExitCodes', 'result'] as const;

export type Definition = z.output<typeof definitionSchema>;

/** The immutable part: a change of anything here makes a new version. */
export interface VersionSpec {
  kind: 'source' | 'script' | 'http' | 'image';
  /** Its own name, once a gateway has it, whatever alias the definition gave. */
  runtime?: string;
  /** `sha256:…` of the source tree; see build/source.ts. */
  source?: string;
  script?: string;
  url?: string;
  image?: string;
  command?: string[];
  port?: number;
  /** File inside the source; the runtime's first existing default when absent. */
  entry?: string;
  handler?: string;
  env: Record<string, string>;
  /** JSON Schema 2020-12 of what goes in and comes out. Absent where there is none. */
  schema?: { in?: JsonSchema; out?: JsonSchema };
  /** Absent where it asks for none. */
  secrets?: SecretUse[];
  buildEnv: Record<string, string>;
  timeoutMs: number;
  memoryBytes: number;
  stream: boolean;
  allowScripts: boolean;
  /** Of `http`: what the server takes and answers; see operation.ts. */
  convention?: 'operation';
  /** Of scripts: see operation.ts. */
  args?: string[];
  argKeys?: string[];
  allowExitCodes?: number[] | 'any';
  result?: ScriptResult;
  /** Makes it a function of the framework; else its code, its environment or its packages may. */
  signature?: Signature;
}

/** The part that belongs to the function: takes effect at once and is not rolled back. */
export interface FunctionSettings {
  auth: 'token' | 'none';
  /** Calls at once in one instance; the runtime's default when absent. */
  concurrency?: number;
  instances: { min: number; max: number; idleMs: number };
  labels: Record<string, string>;
  description: string;
  project?: string;
  /** Digest of what `apply` last made of it: when it is another now, somebody has changed it since. */
  appliedDigest?: string;
  /** What is kept of each call: a record, or with it input and output. `calls` when absent. */
  record?: 'calls' | 'bodies';
  /** Of its jobs: async calls and what triggers bring. One try when absent. */
  retry?: RetryPolicy;
  /** Jobs that run at once, in all instances, and that may wait. */
  queue?: { concurrency?: number; waiting?: number };
}

export type JsonSchema = Record<string, unknown> | boolean;

export const versionStates = ['building', 'ready', 'failed'] as const;
export type VersionState = (typeof versionStates)[number];

/** Why a build or the first load failed; `file` is relative to the source. */
export interface VersionFailure {
  code:
    | 'BUILD_FAILED'
    | 'BUILD_TOOL_MISSING'
    | 'BUILD_TIMED_OUT'
    | 'LOAD_FAILED'
    | 'SOURCE_NOT_FOUND';
  message: string;
  file?: string;
  line?: number;
  column?: number;
}

/** What one failed call leaves: the function's own failure as a value. */
export interface FunctionFailure {
  reason: FailureReason;
  message: string;
  type?: string;
  file?: string;
  line?: number;
  stack?: string;
  /** Exit status or signal of the process, where it ended. */
  exit?: string;
  /** Last lines of the instance's output. */
  log?: string[];
}

/** Splits a valid definition into what makes a version and what stays with the function. */
export function splitDefinition(
  definition: Definition,
  sourceDigest: string | undefined,
): { spec: VersionSpec; settings: FunctionSettings } {
  const [entry, handler] = (definition.entry ?? '').split(':');
  const kind =
    definition.source !== undefined
      ? 'source'
      : definition.script !== undefined
        ? 'script'
        : definition.http !== undefined
          ? 'http'
          : 'image';
  const spec: VersionSpec = {
    kind,
    ...(definition.runtime !== undefined && { runtime: definition.runtime }),
    ...(sourceDigest !== undefined && { source: sourceDigest }),
    ...(definition.script !== undefined && { script: definition.script }),
    ...(definition.http !== undefined && { url: definition.http.url }),
    ...(definition.image !== undefined && { image: definition.image }),
    ...(definition.command !== undefined && { command: definition.command }),
    ...(definition.port !== undefined && { port: definition.port }),
    ...(entry && { entry }),
    ...(handler && { handler }),
    env: definition.env ?? {},
    ...((definition.schema?.in ?? definition.schema?.out) !== undefined && {
      schema: definition.schema,
    }),
    ...((definition.secrets ?? []).length > 0 && { secrets: definition.secrets! }),
    buildEnv: definition.buildEnv ?? {},
    timeoutMs: definition.timeout ?? definitionDefaults.timeoutMs,
    memoryBytes: definition.memory ?? definitionDefaults.memoryBytes,
    stream: definition.stream ?? false,
    allowScripts: definition.allowScripts ?? false,
    ...(definition.http?.convention !== undefined && { convention: definition.http.convention }),
    ...operationParts(definition),
    ...(definition.signature !== undefined && { signature: definition.signature }),
  };
  const settings: FunctionSettings = {
    auth: definition.auth ?? definitionDefaults.auth,
    ...(definition.concurrency !== undefined && { concurrency: definition.concurrency }),
    instances: {
      min: definition.instances?.min ?? definitionDefaults.instances.min,
      max: definition.instances?.max ?? definitionDefaults.instances.max,
      idleMs: definition.instances?.idle ?? definitionDefaults.instances.idleMs,
    },
    labels: definition.labels ?? {},
    description: definition.description ?? '',
    ...(definition.project !== undefined && { project: definition.project }),
    ...(definition.record !== undefined && { record: definition.record }),
    ...(definition.retry !== undefined && { retry: retryPolicyOf(definition.retry) }),
    ...(definition.queue !== undefined && { queue: queueOf(definition.queue) }),
  };
  return { spec, settings };
}

function queueOf({ concurrency, waiting }: NonNullable<Definition['queue']>) {
  return {
    ...(concurrency !== undefined && { concurrency }),
    ...(waiting !== undefined && { waiting }),
  };
}

/** What of a script's way to be called is said; empty lists are as if nothing were. */
export function operationParts(
  given: Partial<Pick<VersionSpec, (typeof scriptKeys)[number]>>,
): Pick<VersionSpec, (typeof scriptKeys)[number]> {
  const { args, argKeys, allowExitCodes, result } = given;
  return {
    ...(args?.length && { args }),
    ...(argKeys?.length && { argKeys }),
    ...(allowExitCodes?.length && { allowExitCodes }),
    ...(result !== undefined && { result }),
  };
}

/** One text for equal values, whatever the order of their keys. For digests and comparisons. */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  if (value === null || typeof value !== 'object') return JSON.stringify(value) ?? 'null';
  const entries = Object.entries(value)
    .filter(([, item]) => item !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  return `{${entries.map(([key, item]) => `${JSON.stringify(key)}:${canonicalJson(item)}`).join(',')}}`;
}
