/** `/v1/namespaces/{ns}/invocations/{id}/…` of async calls: their result, cancelling, and trying again what has ended. */
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { nameSchema } from '../../domain/function.ts';
import { parseDuration } from '../../domain/units.ts';
import { GatewayError } from '../../errors.ts';
import { representationOf } from '../../queue/callbacks.ts';
import type { ResultHead } from '../../queue/job-call.ts';
import type { StoredJob } from '../../store/jobs.ts';
import type { ControlPlaneOptions } from '../control-plane.ts';
import { jobView } from '../job-view.ts';
import { parse } from '../parse.ts';
import { queuedFunctionOf } from '../queued-function.ts';

export const waitMsMax = 60_000;

/** How long an answer may wait for the end of an async call. */
export const waitSchema = z
  .string()
  .transform((text, ctx) => {
    const ms = parseDuration(text);
    if (ms !== undefined && ms <= waitMsMax) return ms;
    ctx.addIssue({ code: 'custom', message: 'give a duration of at most 60s, such as 30s' });
    return z.NEVER;
  })
  .optional()
  .meta({ description: 'wait so long for the end: `30s`' });

export const waitQuerySchema = z.strictObject({ wait: waitSchema });
const paramsSchema = z.object({ namespace: nameSchema, id: z.string().max(30) });
const redriveSchema = z.strictObject({ version: z.int().min(1).max(999_999_999).optional() });

export function jobRoutes(app: FastifyInstance, options: ControlPlaneOptions): void {
  const { queue, calls, registry } = options;
  const base = '/v1/namespaces/:namespace/invocations';

  async function find(params: unknown, waitMs = 0): Promise<StoredJob> {
    const { namespace, id } = parse(paramsSchema, params, 'QUERY_INVALID');
    const job = await queue.waitFor(id, waitMs);
    if (job?.namespace === namespace && job.kind === 'call') return job;
    const detail = `there is no async invocation ${id} in the namespace ${namespace}`;
    throw new GatewayError('INVOCATION_NOT_FOUND', detail, {
      remedy: 'Ask for the id that the 202 gave; results go after FNWAY_JOBS_KEPT.',
    });
  }

  const view = async (job: StoredJob) => jobView(job, await calls.tell(job));

  app.get(`${base}/:id/result`, { config: { takesQuery: true } }, async (request, reply) => {
    const { wait } = parse(waitQuerySchema, request.query, 'QUERY_INVALID');
    const job = await find(request.params, wait);
    if (job.state === 'queued' || job.state === 'running') {
      reply.code(202).header('retry-after', '1');
      return view(job);
    }
    const result = await calls.resultOf(job);
    if (job.state === 'cancelled') {
      const detail = `${job.id} was cancelled before it had a result`;
      throw new GatewayError('INVOCATION_CANCELLED', detail);
    }
    if (result === undefined)
      throw new GatewayError('DATA_DIRECTORY_UNUSABLE', `the result of ${job.id} is gone`);
    const { head, body } = result;
    if (head.failure !== undefined) throw asError(head, job);
    for (const [name, value] of resultHeaders(head, job)) reply.header(name, value);
    return reply.code(head.status).send(body);
  });

  app.post(`${base}/:id/cancel`, { config: { takesNothing: true } }, async request => {
    const { id } = await find(request.params);
    const outcome = await queue.cancel(id);
    if (outcome === 'ended' || outcome === 'missing')
      throw new GatewayError('INVOCATION_ENDED', `${id} has ended; there is nothing to cancel`);
    // What runs ends in a moment, unless its handler is deaf.
    return view(await find(request.params, outcome === 'running' ? cancelWaitMs : 0));
  });

  app.post(`${base}/:id/redrive`, async (request, reply) => {
    const { version } = parse(redriveSchema, request.body ?? {}, 'DEFINITION_INVALID');
    const job = await find(request.params);
    const { id, functionId } = job;
    if (job.state === 'queued' || job.state === 'running') {
      const detail = `${id} has not ended; it is tried by itself`;
      throw new GatewayError('INVOCATION_NOT_ENDED', detail, {
        remedy: 'Wait for it, or cancel it.',
      });
    }
    const entry = registry.byId(functionId);
    if (entry === undefined)
      throw new GatewayError('FUNCTION_NOT_FOUND', `the function of ${id} has been removed`);
    if (version !== undefined) await options.functions.pinned(entry, version);
    if (job.redriven !== undefined)
      throw new GatewayError('INVOCATION_REDRIVEN', `${id} was redriven as ${job.redriven}`);
    const again = await calls.redriveOf(job, queuedFunctionOf(entry), version);
    if (again === undefined) throw withoutInput(job);
    const redriven = await calls.submit(again);
    const location = `/v1/namespaces/${job.namespace}/invocations/${redriven.id}`;
    reply.code(202).header('location', location);
    return { id: redriven.id, location };
  });
}

function withoutInput({ id, state }: StoredJob): GatewayError {
  return state === 'succeeded'
    ? new GatewayError('BODIES_NOT_KEPT', `${id} has succeeded; its input is not kept`)
    : new GatewayError('DATA_DIRECTORY_UNUSABLE', `the input of ${id} is gone`);
}

const cancelWaitMs = 1000;
const octets = 'application/octet-stream';

/** What the function said is shown to whoever asked, never run by the browser as if it were ours. */
function resultHeaders(
  { headers, status }: ResultHead,
  { id }: StoredJob,
): Array<[string, string]> {
  const found: Array<[string, string]> = [
    ['x-call-id', id],
    ['x-function-status', String(status)],
    ['content-security-policy', 'sandbox allow-scripts allow-forms allow-popups'],
    ['x-content-type-options', 'nosniff'],
  ];
  const own = Object.entries(representationOf(headers));
  const hasType = own.some(([name]) => name.toLowerCase() === 'content-type');
  return [...found, ...own, ...(hasType ? [] : [['content-type', octets] as [string, string]])];
}

function asError({ failure }: ResultHead, { id, state }: StoredJob): GatewayError {
  const { code, message } = failure!;
  const detail = state === 'dead' ? `${id} is dead: ${message}` : message;
  return new GatewayError(code as GatewayError['code'], detail);
}
