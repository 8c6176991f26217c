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
  http?: { url: string };
  image?: string;
  command?: string[];
  port?: number;
  /** `FILE`, `FILE:HANDLER` or `:HANDLER`. */
  entry?: string;
  env?: Record<string, string | number | boolean>;
  buildEnv?: Record<string, string | number | boolean>;
  timeout?: string;
  memory?: string | number;
  concurrency?: number;
  instances?: { min?: number; max?: number; idle?: string };
  auth?: 'token' | 'none';
  stream?: boolean;
  allowScripts?: boolean;
  labels?: Record<string, string>;
  description?: string;
  project?: string;
}

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
  buildEnv: Record<string, string>;
  timeout: string;
  memory: string;
  stream: boolean;
  allowScripts: boolean;
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
  latestVersion: VersionView;
  auth: 'token' | 'none';
  concurrency?: number;
  instances: { min: number; max: number; idle: string };
  labels: Record<string, string>;
  description: string;
  project?: string;
  /** Path of the endpoint on this gateway: `/function/hello` or `/function/hello.team`. */
  endpoint: string;
  revision: number;
  createdAt: string;
  updatedAt: string;
  /** Instances of the active version. Only when one function is asked for. */
  running?: { ready: number; busy: number; starting: number; waiting: number };
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
}

export interface SourceView {
  digest: string;
}

/** One line of an instance's output. `…/logs` answers NDJSON of these. */
export interface OutputLineView {
  time: string;
  version: number;
  instance: string;
  stream: 'stdout' | 'stderr';
  text: string;
}

export interface RuntimeView {
  name: string;
  entries: string[];
  concurrency: number;
}

export type { FailureReason };
