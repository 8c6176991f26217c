/**
 * `/v1/namespaces/{ns}/schedules` and its like: what manifests declare beside functions, all listed, put, paused and removed
 * alike. What only one kind can do is in a file of its own.
 */
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { ResourceView } from '../../../client/api.ts';
import type { Resource } from '../../deploy/resources.ts';
import { nameSchema } from '../../domain/function.ts';
import {
  ownerSchema,
  type ResourceKind,
  resourceKinds,
  resourceRules,
} from '../../domain/resource.ts';
import { isoOf } from '../../domain/units.ts';
import type { LaneCount } from '../../store/jobs.ts';
import type { ControlPlaneOptions } from '../control-plane.ts';
import { parse } from '../parse.ts';

export const resourceQuerySchema = z.strictObject({
  project: nameSchema.optional(),
  limit: z.coerce.number().int().min(1).max(1000).default(100),
  cursor: z.string().max(63).optional(),
});

const namespaceSchema = z.object({ namespace: nameSchema });
export const resourcePathSchema = namespaceSchema.extend({ name: nameSchema });

export function resourceRoutes(app: FastifyInstance, options: ControlPlaneOptions): void {
  for (const kind of resourceKinds) routesOf(kind, app, options);
}

function routesOf<K extends ResourceKind>(
  kind: K,
  app: FastifyInstance,
  options: ControlPlaneOptions,
): void {
  const { resources, queue, schedules } = options;
  const { plural, schema } = resourceRules[kind];
  const base = `/v1/namespaces/:namespace/${plural}`;
  const views = async (found: Array<Resource<K>>) => {
    const counts = kind === 'subscription' ? await queue.laneCounts() : [];
    return found.map(resource => resourceView(resource, { schedules, counts }));
  };
  const view = async (resource: Resource<K>) => (await views([resource]))[0]!;

  app.get(base, { config: { takesQuery: true } }, async request => {
    const { namespace } = parse(namespaceSchema, request.params, 'QUERY_INVALID');
    const { project, limit, cursor } = parse(resourceQuerySchema, request.query, 'QUERY_INVALID');
    const found = resources
      .list(kind, namespace)
      .filter(resource => project === undefined || resource.project === project)
      .filter(({ row }) => cursor === undefined || row.name > cursor);
    const page = found.slice(0, limit);
    const next = found.length > limit ? { next: page.at(-1)!.row.name } : {};
    return { items: await views(page), ...next };
  });

  app.get(`${base}/:name`, async request => {
    const { namespace, name } = parse(resourcePathSchema, request.params, 'QUERY_INVALID');
    return view(resources.find(kind, namespace, name));
  });

  app.put(`${base}/:name`, async (request, reply) => {
    const path = parse(resourcePathSchema, request.params, 'DEFINITION_INVALID');
    const { project, ...given } = ownerOf(request.body);
    const definition = parse(schema, given, 'DEFINITION_INVALID');
    const { resource, outcome } = await resources.put(kind, path, { definition, project });
    reply.code(outcome === 'created' ? 201 : 200);
    return { resource: await view(resource), outcome };
  });

  app.delete(`${base}/:name`, { config: { takesNothing: true } }, async (request, reply) => {
    const { namespace, name } = parse(resourcePathSchema, request.params, 'QUERY_INVALID');
    await resources.remove(kind, namespace, name);
    return reply.code(204).send();
  });

  for (const [verb, isPaused] of [
    ['pause', true],
    ['resume', false],
  ] as const)
    app.post(`${base}/:name/${verb}`, { config: { takesNothing: true } }, async request => {
      const path = parse(resourcePathSchema, request.params, 'QUERY_INVALID');
      return view(await resources.setPaused(kind, path, isPaused));
    });
}

function ownerOf(body: unknown): { project: string | undefined } & Record<string, unknown> {
  if (body === null || typeof body !== 'object' || Array.isArray(body))
    return parse(z.looseObject({}), body, 'DEFINITION_INVALID') as never;
  const { project } = parse(
    ownerSchema,
    { project: (body as { project?: unknown }).project },
    'DEFINITION_INVALID',
  );
  return { ...body, project };
}

function resourceView<K extends ResourceKind>(
  resource: Resource<K>,
  { schedules, counts }: Pick<ControlPlaneOptions, 'schedules'> & { counts: LaneCount[] },
): ResourceView {
  const { row, definition, project } = resource;
  const { id, namespace, name, isPaused, revision, createdMs, updatedMs } = row;
  return {
    ...{ id, namespace, name, definition },
    ...(project !== undefined && { project }),
    ...{ paused: isPaused, revision },
    ...{ createdAt: isoOf(createdMs), updatedAt: isoOf(updatedMs) },
    ...(isOf(resource, 'schedule') && { next: schedules.next(resource).map(isoOf) }),
    ...(isOf(resource, 'webhook') && {
      path: `/webhook/${name}${namespace === 'default' ? '' : `.${namespace}`}`,
    }),
    ...(isOf(resource, 'subscription') && countsOf(id, counts)),
  };
}

function countsOf(id: string, counts: readonly LaneCount[]) {
  const { waiting = 0, running = 0 } = counts.find(({ lane }) => lane === id) ?? {};
  return { waiting, running };
}

function isOf<K extends ResourceKind>(resource: Resource, kind: K): resource is Resource<K> {
  return resource.row.kind === kind;
}
