/** What the control plane shows of functions and versions: domain objects as wire types. */
import type {
  BodyView,
  FunctionView,
  InvocationView,
  OutputLineView,
  RuntimeView,
  VersionView,
} from '../../client/api.ts';
import { appliedDigestOf } from '../deploy/functions.ts';
import type { FunctionEntry, LivingVersion } from '../deploy/registry.ts';
import { operationParts } from '../domain/function.ts';
import { readLine } from '../domain/log-line.ts';
import { type InvocationRecord, timeOfId } from '../domain/record.ts';
import { retryViewOf } from '../domain/retry.ts';
import type { Runtime } from '../domain/runtime.ts';
import { formatDuration, formatSize } from '../domain/units.ts';
import type { OutputLine } from '../telemetry/output.ts';

export function versionView(version: LivingVersion, buildLog?: string): VersionView {
  const { spec, row, failure } = version;
  return {
    number: row.number,
    state: row.state,
    kind: spec.kind,
    ...(spec.runtime !== undefined && { runtime: spec.runtime }),
    ...(spec.source !== undefined && { source: spec.source }),
    ...(spec.script !== undefined && { script: spec.script }),
    ...(spec.url !== undefined && { url: spec.url }),
    ...((spec.entry !== undefined || spec.handler !== undefined) && {
      entry: `${spec.entry ?? ''}${spec.handler === undefined ? '' : `:${spec.handler}`}`,
    }),
    env: spec.env,
    ...(spec.schema !== undefined && { schema: spec.schema }),
    ...(spec.secrets !== undefined && { secrets: spec.secrets }),
    buildEnv: spec.buildEnv,
    timeout: formatDuration(spec.timeoutMs),
    memory: formatSize(spec.memoryBytes),
    stream: spec.stream,
    allowScripts: spec.allowScripts,
    ...(spec.convention !== undefined && { convention: spec.convention }),
    ...operationParts(spec),
    ...(spec.signature !== undefined && { signature: spec.signature }),
    createdAt: new Date(row.createdMs).toISOString(),
    ...(row.settledMs !== undefined && { settledAt: new Date(row.settledMs).toISOString() }),
    ...(failure !== undefined && { failure }),
    ...(buildLog !== undefined && { buildLog }),
  };
}

export function functionView(
  entry: FunctionEntry,
  latest: LivingVersion,
  running?: FunctionView['running'],
): FunctionView {
  const { row } = entry;
  const { settings } = row;
  return {
    id: row.id,
    namespace: row.namespace,
    name: row.name,
    state: latest.row.state,
    ...(row.activeVersion !== undefined && { activeVersion: row.activeVersion }),
    ...(row.traffic !== undefined && {
      traffic: {
        ...row.traffic,
        shares: Object.fromEntries(
          row.traffic.shares.map(({ version, percent }) => [String(version), percent]),
        ),
      },
    }),
    latestVersion: versionView(latest),
    auth: settings.auth,
    record: settings.record ?? 'calls',
    ...(settings.retry !== undefined && { retry: retryViewOf(settings.retry) }),
    ...(settings.queue !== undefined && { queue: settings.queue }),
    ...(settings.concurrency !== undefined && { concurrency: settings.concurrency }),
    instances: {
      min: settings.instances.min,
      max: settings.instances.max,
      idle: formatDuration(settings.instances.idleMs),
    },
    labels: settings.labels,
    description: settings.description,
    ...(settings.project !== undefined && { project: settings.project }),
    ...(settings.appliedDigest !== undefined &&
      settings.appliedDigest !== appliedDigestOf(latest.spec, settings) && { drifted: true }),
    endpoint: `/function/${row.name}${row.namespace === 'default' ? '' : `.${row.namespace}`}`,
    revision: row.revision,
    createdAt: new Date(row.createdMs).toISOString(),
    updatedAt: new Date(row.updatedMs).toISOString(),
    ...(running !== undefined && { running }),
  };
}

export function runtimeView({ name, aliases, entries, concurrency }: Runtime): RuntimeView {
  return { name, aliases, entries, concurrency };
}

export function outputLineView(line: OutputLine): OutputLineView {
  const { timeMs, version, instance, stream, call, text } = line;
  return {
    time: new Date(timeMs).toISOString(),
    version,
    instance,
    ...(call !== undefined && { call }),
    stream,
    ...readLine(text, stream),
    text,
  };
}

export function invocationView(record: InvocationRecord): InvocationView {
  const { id, subject, version, state, status, target, durationMs, failure, ...rest } = record;
  const { origin, caller, attempt, method, instance, parent, label } = rest;
  return {
    ...{ id, namespace: subject.namespace, function: subject.name, version, state, status },
    ...{ origin, caller, attempt, method, path: target },
    startedAt: new Date(timeOfId(id) ?? 0).toISOString(),
    durationMs: Math.round(durationMs * 1000) / 1000,
    ...(instance !== undefined && { instance }),
    ...(parent !== undefined && { parent }),
    ...(label !== undefined && { label }),
    ...(failure !== undefined && { failure }),
  };
}

/** As text where it is text, else base64. */
export function bodyView(headers: readonly string[], bytes: Uint8Array): BodyView {
  const pairs: Array<[string, string]> = [];
  for (let i = 0; i < headers.length; i += 2) pairs.push([headers[i]!, headers[i + 1]!]);
  try {
    return {
      headers: pairs,
      body: new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes),
    };
  } catch {
    return { headers: pairs, base64: Buffer.from(bytes).toString('base64') };
  }
}
