/** `/v1/namespaces/{ns}/schedules/{name}/…`: what only schedules can do. */
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { SlotView } from '../../../client/api.ts';
import { type SlotRow, slotsKeptMax } from '../../store/schedules.ts';
import type { ControlPlaneOptions } from '../control-plane.ts';
import { parse } from '../parse.ts';
import { resourcePathSchema } from './resources.ts';

export const historyQuerySchema = z.strictObject({
  limit: z.coerce.number().int().min(1).max(slotsKeptMax).default(slotsKeptMax),
});

export function scheduleRoutes(app: FastifyInstance, options: ControlPlaneOptions): void {
  const { resources, schedules } = options;
  const base = '/v1/namespaces/:namespace/schedules/:name';
  const find = (params: unknown) => {
    const { namespace, name } = parse(resourcePathSchema, params, 'QUERY_INVALID');
    return resources.find('schedule', namespace, name);
  };

  app.get(`${base}/history`, { config: { takesQuery: true } }, async request => {
    const { limit } = parse(historyQuerySchema, request.query, 'QUERY_INVALID');
    const slots = await schedules.slots(find(request.params), limit);
    return { items: slots.map(slotView) };
  });

  app.post(`${base}/run`, { config: { takesNothing: true } }, async (request, reply) => {
    const schedule = find(request.params);
    const { id } = await schedules.run(schedule);
    const location = `/v1/namespaces/${schedule.row.namespace}/invocations/${id}`;
    reply.code(202).header('location', location);
    return { id, location };
  });
}

function slotView({ slotMs, outcome, decidedMs, job }: SlotRow): SlotView {
  return {
    ...{ at: new Date(slotMs).toISOString(), outcome },
    decidedAt: new Date(decidedMs).toISOString(),
    ...(job !== undefined && { invocation: job }),
  };
}
