/**
 * The wire types of the control plane (`/v1`). Times are ISO 8601, durations `30s`, sizes `256Mi`. What the
 * server takes is in src/domain/function.ts and src/gateway/routes/; test/api compares its answers with OpenAPI.
 */
import type { FailureReason } from './errors.ts';

/** What a function is made of, and how it is to run. Exactly one of source, script, http and image. */
export interface FunctionDefinition {
  runtime?: string;
  /** Inline files (name → text), or the digest of an uploaded archive. */
  source?: { files: Record<string, string> } | { digest: string };
  script?: string;
  /** `operation`: the server takes and answers a flat map of strings. */
  http?: { url: string; convention?: 'operation' };
  image?: string;
  command?: string[];
  port?: number;
  /** `FILE`, `FILE:HANDLER` or `:HANDLER`. */
  entry?: string;
  env?: Record<string, string | number | boolean>;
  /** Names of secrets: as variables, or as files named by the variable NAME_FILE. */
  secrets?: Array<string | SecretUse>;
  buildEnv?: Record<string, string | number | boolean>;
  /** JSON Schema 2020-12 of what goes in and comes out. */
  schema?: { in?: JsonSchema; out?: JsonSchema };
  timeout?: string;
  memory?: string | number;
  concurrency?: number;
  instances?: { min?: number; max?: number; idle?: string };
  auth?: 'token' | 'none';
  /** What is kept of each call: its record, or with it what went in and came out. */
  record?: 'calls' | 'bodies';
  /** Of its jobs: async calls, and what triggers bring. One try when absent. */
  retry?: {
    attempts: number;
    minDelay?: string;
    maxDelay?: string;
    /** Share of the delay that is added at random: 0 to 1. */
    jitter?: number;
    maxAge?: string;
    /** Statuses (`429`), classes (`5xx`) and reasons (`timeout`) that are worth another try. */
    on?: string[];
  };
  /** Jobs that run at once, and that may wait. */
  queue?: { concurrency?: number; waiting?: number };
  stream?: boolean;
  /** Of a script: literal arguments, then the values of these keys of the JSON body. */
  args?: string[];
  argKeys?: string[];
  /** Of a script: exit statuses that are no failure. */
  allowExitCodes?: number[] | 'any';
  /** Of a script: answer `{ output, error }`, or with a key `operation.KEY.output` and so on. */
  result?: ScriptResult;
  allowScripts?: boolean;
  /** Of a function that is written for a functions framework. */
  signature?: Signature;
  labels?: Record<string, string>;
  description?: string;
  project?: string;
  /** Said by `apply`: what is changed later without it is told as drift. */
  applied?: boolean;
}

/** Percent of the calls by version; they add up to 100. */
export interface TrafficView {
  shares: Record<string, number>;
  /** Calls with the same value of this header go to the same version. */
  stickyHeader?: string;
}

export type JsonSchema = Record<string, unknown> | boolean;

export interface SecretUse {
  name: string;
  as?: 'env' | 'file';
}

/** Values cannot be read back. */
export interface SecretView {
  name: string;
  updatedAt: string;
}
export type ScriptResult = 'json' | { key: string };
export type Signature = 'http' | 'event' | 'cloudevent' | 'typed';

export type VersionState = 'building' | 'ready' | 'failed';

export interface VersionFailure {
  code: string;
  message: string;
  file?: string;
  line?: number;
  column?: number;
}

export interface VersionView {
  number: number;
  state: VersionState;
  kind: 'source' | 'script' | 'http' | 'image';
  runtime?: string;
  /** `sha256:…` of the source tree. */
  source?: string;
  script?: string;
  url?: string;
  entry?: string;
  env: Record<string, string>;
  schema?: { in?: JsonSchema; out?: JsonSchema };
  secrets?: SecretUse[];
  buildEnv: Record<string, string>;
  timeout: string;
  memory: string;
  stream: boolean;
  convention?: 'operation';
  args?: string[];
  argKeys?: string[];
  allowExitCodes?: number[] | 'any';
  result?: ScriptResult;
  allowScripts: boolean;
  signature?: Signature;
  createdAt: string;
  settledAt?: string;
  failure?: VersionFailure;
  /** Only when one version is asked for. */
  buildLog?: string;
}

export interface FunctionView {
  id: string;
  namespace: string;
  name: string;
  /** The state of the newest version; calls go to `activeVersion` whatever it says. */
  state: VersionState;
  activeVersion?: number;
  /** How calls that pin no version are split; absent where the active version answers all of them. */
  traffic?: TrafficView;
  latestVersion: VersionView;
  auth: 'token' | 'none';
  record: 'calls' | 'bodies';
  /** Absent where its jobs have one try. */
  retry?: RetryView;
  queue?: { concurrency?: number; waiting?: number };
  concurrency?: number;
  instances: { min: number; max: number; idle: string };
  labels: Record<string, string>;
  description: string;
  project?: string;
  /** It was changed since it was last applied from a manifest. */
  drifted?: boolean;
  /** Path of the endpoint on this gateway: `/function/hello` or `/function/hello.team`. */
  endpoint: string;
  revision: number;
  createdAt: string;
  updatedAt: string;
  /** Instances of all its versions. Only when one function is asked for. */
  running?: { ready: number; busy: number; starting: number; waiting: number };
}

/** When a job is tried again, with every default in it. */
export interface RetryView {
  attempts: number;
  minDelay: string;
  maxDelay: string;
  jitter: number;
  maxAge?: string;
  /** Absent where it is the default: 408, 429, 5xx and every failure of the function. */
  on?: string[];
}

export interface Page<T> {
  items: T[];
  /** Pass as `cursor` for the next page; absent on the last. */
  next?: string;
}

export interface PutResult {
  function: FunctionView;
  /** `created`: new function; `updated`: a new version or new settings; `unchanged`: identical. */
  outcome: 'created' | 'updated' | 'unchanged';
  /** The number of the version that this made; absent when it made none. */
  version?: number;
}

export interface TokenView {
  token: string;
  /** With it, callbacks of async calls are signed: see docs/guides/async.md. */
  signingKey: string;
}

export interface SourceView {
  digest: string;
}

/** One line of an instance's output. `…/logs` answers NDJSON of these. */
export interface OutputLineView {
  time: string;
  version: number;
  instance: string;
  /** The invocation that wrote it; absent when only the instance is known. */
  call?: string;
  stream: 'stdout' | 'stderr';
  severity: Severity;
  /** For people: of a line of JSON its message, else the line. */
  message: string;
  /** Of a line of JSON, all but severity and message. */
  fields?: Record<string, unknown>;
  /** The line as it was written. */
  text: string;
}

export type Severity = 'debug' | 'info' | 'warning' | 'error' | 'critical';

/** Where a call came from: over HTTP, repeated, over HTTP for later, or a trigger of that kind. */
export type InvocationOrigin =
  | 'http'
  | 'replay'
  | 'async'
  | 'schedule'
  | 'subscription'
  | 'webhook'
  | 'bucket';

export type InvocationState = 'queued' | 'running' | 'succeeded' | 'failed' | 'dead' | 'cancelled';

/** One try of an async call. */
export interface AttemptView {
  number: number;
  startedAt: string;
  durationMs: number;
  version?: number;
  instance?: string;
  status: number;
  failure?: InvocationFailure;
  /** It was no try that counts: the gateway stopped, or there was no room. */
  givenBack?: boolean;
}

/** Of an async call that was accepted. */
export interface AcceptedView {
  id: string;
  location: string;
}

/** What became of a call. Whatever status a function answers with, it has succeeded in answering. */
export interface InvocationView {
  id: string;
  namespace: string;
  function: string;
  /** Of the last try; absent before the first. */
  version?: number;
  state: InvocationState;
  /** As the caller saw it; absent until it has ended. */
  status?: number;
  origin: InvocationOrigin;
  caller: 'anonymous' | 'function-token' | 'admin' | 'trigger';
  attempt: number;
  method: string;
  /** Path and query below the function's address. */
  path: string;
  /** When it was accepted, of an async call. */
  startedAt: string;
  /** To the last byte of the answer; absent until it has ended. */
  durationMs?: number;
  /** Of an async call: its tries so far, and when the next one is due. */
  attempts?: AttemptView[];
  dueAt?: string;
  endedAt?: string;
  priority?: number;
  instance?: string;
  /** The invocation that this one repeats. */
  parent?: string;
  /** The schedule, or another trigger, that brought it. */
  trigger?: string;
  /** What the caller named it, in X-Call-Id. */
  label?: string;
  failure?: InvocationFailure;
}

export interface InvocationFailure {
  /** Whose fault: the caller's, the function's or the platform's. */
  kind: 'input' | 'function' | 'system';
  code: string;
  reason?: FailureReason;
  message: string;
  type?: string;
  file?: string;
  line?: number;
  stack?: string;
  exit?: string;
}

/** Either `body`, when it is text, or `base64`. */
export interface BodyView {
  headers: Array<[string, string]>;
  body?: string;
  base64?: string;
}

/** What went in and came out of a call whose function has `record: bodies`. */
export interface InvocationBodiesView {
  id: string;
  request: BodyView & { method: string; path: string };
  reply: BodyView & { status: number };
}

export interface ReplayView {
  /** Of the new invocation. */
  id: string;
  version: number;
  reply: BodyView & { status: number; failure?: { reason: FailureReason; message: string } };
}

export interface RuntimeView {
  name: string;
  /** Other names by which a definition may ask for it. */
  aliases: string[];
  entries: string[];
  concurrency: number;
}

export type * from './triggers.ts';
export type { FailureReason };
