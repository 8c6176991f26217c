/** `/v1/namespaces/{ns}/invocations`: what became of calls, what went in and came out, and calling again. */
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { InvocationView } from '../../../client/api.ts';
import { nameSchema } from '../../domain/function.ts';
import {
  failureKinds,
  type InvocationRecord,
  origins,
  recordLimits,
  recordStates,
} from '../../domain/record.ts';
import { GatewayError } from '../../errors.ts';
import { newId, newTraceparent } from '../../ids.ts';
import { CallSignal, isStream, type Reply, type Version } from '../../invoke/invoke.ts';
import type { RecordedBodies, RecordQuery } from '../../store/records.ts';
import type { ControlPlaneOptions } from '../control-plane.ts';
import { jobView } from '../job-view.ts';
import { momentSchema } from '../moments.ts';
import { parse } from '../parse.ts';
import { bodyView, invocationView } from '../views.ts';
import { waitQuerySchema } from './jobs.ts';

/** States that only the queue knows of. */
const queueStates = ['queued', 'running', 'dead'] as const;

export const invocationQuerySchema = z.strictObject({
  function: nameSchema.optional(),
  version: z.coerce.number().int().min(1).max(999_999_999).optional(),
  status: z
    .string()
    .regex(/^[1-5](?:\d\d|xx)$/, 'give a status such as 502, or a class such as 5xx')
    .optional()
    .meta({ description: '`502` or `5xx`' }),
  state: z
    .enum([...recordStates, ...queueStates])
    .optional()
    .meta({ description: '`queued`, `running` and `dead` are states of async calls' }),
  kind: z.enum(failureKinds).optional().meta({ description: 'whose fault a failure was' }),
  origin: z.enum(origins).optional(),
  since: momentSchema.optional(),
  until: momentSchema.optional(),
  prefix: z.string().min(1).max(30).optional().meta({ description: 'start of the id' }),
  limit: z.coerce.number().int().min(1).max(1000).default(100),
  cursor: z.string().max(30).optional(),
});

const namespaceSchema = z.object({ namespace: nameSchema });
const idSchema = namespaceSchema.extend({ id: z.string().max(30) });
const replaySchema = z.strictObject({ version: z.int().min(1).max(999_999_999).optional() });

export function invocationRoutes(app: FastifyInstance, options: ControlPlaneOptions): void {
  const { records, registry, clock, queue, calls, deadLetters } = options;
  const base = '/v1/namespaces/:namespace/invocations';

  async function find(params: unknown): Promise<InvocationRecord> {
    const { namespace, id } = parse(idSchema, params, 'QUERY_INVALID');
    const record = await records.get(id);
    if (record !== undefined && record.subject.namespace === namespace) return record;
    const detail = `there is no record of an invocation ${id} in the namespace ${namespace}`;
    throw new GatewayError('INVOCATION_NOT_FOUND', detail);
  }

  async function bodiesOf(params: unknown): Promise<RecordedBodies> {
    const { id, subject } = await find(params);
    const kept = await records.bodiesOf(id);
    if (kept !== undefined) return kept;
    const detail = `input and output of ${id} were not kept: ${subject.name} did not ask for it, or they were longer than ${recordLimits.recordedBodyBytesMax} bytes`;
    throw new GatewayError('BODIES_NOT_KEPT', detail);
  }

  app.get(base, { config: { takesQuery: true } }, async request => {
    const { namespace } = parse(namespaceSchema, request.params, 'QUERY_INVALID');
    const query = parse(invocationQuerySchema, request.query, 'QUERY_INVALID');
    if (isOfQueue(query.state)) return jobPage(namespace, query, options);
    const { items, next } = await records.list(queryOf(namespace, query, options));
    return { items: items.map(invocationView), ...(next !== undefined && { next }) };
  });

  app.get(`${base}/:id`, { config: { takesQuery: true } }, async request => {
    const { namespace, id } = parse(idSchema, request.params, 'QUERY_INVALID');
    const { wait } = parse(waitQuerySchema, request.query, 'QUERY_INVALID');
    const job = await queue.waitFor(id, wait ?? 0);
    if (job?.namespace === namespace && job.kind === 'call')
      return jobView(job, await calls.tell(job));
    if (job?.namespace === namespace && job.kind === 'delivery')
      return jobView(job, deadLetters.tell(job));
    return invocationView(await find(request.params));
  });

  app.get(`${base}/:id/bodies`, async request => {
    const kept = await bodiesOf(request.params);
    return {
      id: kept.id,
      request: {
        ...{ method: kept.method, path: kept.target },
        ...bodyView(kept.requestHeaders, kept.input),
      },
      reply: { status: kept.status, ...bodyView(kept.replyHeaders, kept.output) },
    };
  });

  app.post(`${base}/:id/replay`, async request => {
    const { version: number } = parse(replaySchema, request.body ?? {}, 'DEFINITION_INVALID');
    const kept = await bodiesOf(request.params);
    const { namespace, name } = kept.subject;
    const entry = registry.get(namespace, name);
    if (entry === undefined)
      throw new GatewayError('FUNCTION_NOT_FOUND', `${name} has been removed`);
    const version =
      number === undefined ? entry.active : await options.functions.pinned(entry, number);
    if (version === undefined)
      throw new GatewayError('VERSION_NOT_READY', `no version of ${name} is ready yet`);
    const id = newId('inv', clock.now());
    const reply = await again(kept, version, id, options);
    return { id, version: version.number, reply: await replyView(reply) };
  });
}

function isOfQueue(state: string | undefined): state is (typeof queueStates)[number] {
  return (queueStates as readonly string[]).includes(state ?? '');
}

/** Of async calls, by their state in the queue. */
async function jobPage(
  namespace: string,
  query: z.output<typeof invocationQuerySchema>,
  { queue, calls, registry }: ControlPlaneOptions,
) {
  const { state, function: name, limit, cursor, ...others } = query;
  const [other] = Object.entries(others).find(([, value]) => value !== undefined) ?? [];
  if (other !== undefined) {
    const detail = `${other}: async calls that are ${state} are found by function only`;
    throw new GatewayError('QUERY_INVALID', detail);
  }
  const functionId = name === undefined ? undefined : registry.get(namespace, name)?.row.id;
  if (name !== undefined && functionId === undefined) throw noFunction(name, namespace);
  const jobs = await queue.list({
    ...{ namespace, kind: 'call', state: state as (typeof queueStates)[number], limit },
    ...(functionId !== undefined && { functionId }),
    ...(cursor !== undefined && { after: cursor }),
  });
  const items: InvocationView[] = [];
  for (const { id } of jobs) {
    const job = await queue.find(id);
    if (job === undefined) continue;
    const view = jobView(job, await calls.tell(job, { inRow: true }));
    // A long input, or result, is in a file, and not read for a list.
    items.push({ ...view, function: registry.byId(job.functionId)?.row.name ?? view.function });
  }
  return {
    items,
    ...(jobs.length === limit && { next: jobs.at(-1)!.id }),
  };
}

function noFunction(name: string, namespace: string): GatewayError {
  const detail = `there is no function ${name} in the namespace ${namespace}`;
  return new GatewayError('FUNCTION_NOT_FOUND', detail);
}

function queryOf(
  namespace: string,
  query: z.output<typeof invocationQuerySchema>,
  { registry, clock }: ControlPlaneOptions,
): RecordQuery {
  const { function: name, status, since, until, prefix, cursor, ...same } = query;
  const nowMs = clock.now();
  const functionId = name === undefined ? undefined : registry.get(namespace, name)?.row.id;
  if (name !== undefined && functionId === undefined) throw noFunction(name, namespace);
  const isClass = status?.endsWith('xx') === true;
  const wanted = {
    ...{ namespace, functionId, ...same },
    status: status === undefined || isClass ? undefined : Number(status),
    statusClass: isClass ? Number(status![0]) : undefined,
    sinceMs: since?.(nowMs),
    untilMs: until?.(nowMs),
    idPrefix: prefix,
    after: cursor,
  };
  return Object.fromEntries(
    Object.entries(wanted).filter(([, value]) => value !== undefined),
  ) as unknown as RecordQuery;
}

/** The recorded call once more: a new invocation that names the old one. */
function again(
  kept: RecordedBodies,
  version: Version,
  id: string,
  { invoke }: ControlPlaneOptions,
): Promise<Reply> {
  return invoke(
    {
      id,
      version,
      attempt: 1,
      method: kept.method,
      target: kept.target,
      headers: kept.requestHeaders,
      ownHeaders: ['X-Call-Id', id, 'Traceparent', newTraceparent()],
      body: kept.input,
      origin: 'replay',
      caller: 'admin',
      label: undefined,
      parent: kept.id,
      deadlineMs: Number.POSITIVE_INFINITY,
      gathering: false,
      instance: undefined,
    },
    new CallSignal(),
  );
}

async function replyView(reply: Reply) {
  const { status, headers, failure } = reply;
  const output = isStream(reply.body) ? await firstOf(reply.body) : reply.body;
  return { status, ...bodyView(headers, output), ...(failure !== undefined && { failure }) };
}

/** As much of a streamed answer as is recorded of one. */
async function firstOf(body: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    // Read to its end all the same: a call that is broken off has failed.
    if (bytes < recordLimits.recordedBodyBytesMax) chunks.push(Uint8Array.from(chunk));
    bytes += chunk.length;
  }
  return Buffer.concat(chunks).subarray(0, recordLimits.recordedBodyBytesMax);
}
