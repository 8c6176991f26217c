/** `/v1/namespaces/{ns}/functions`: create, read, list, change, remove; versions, tokens, output. */
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { TokenView } from '../../../client/api.ts';
import type { FunctionEntry, LivingVersion, Registry } from '../../deploy/registry.ts';
import {
  type Definition,
  definitionSchema,
  nameSchema,
  versionStates,
} from '../../domain/function.ts';
import { trafficSchema } from '../../domain/traffic.ts';
import { parseDuration } from '../../domain/units.ts';
import { GatewayError } from '../../errors.ts';
import { laneOf } from '../../queue/calls.ts';
import type { ControlPlaneOptions } from '../control-plane.ts';
import { parse } from '../parse.ts';
import { queuedFunctionOf } from '../queued-function.ts';
import { functionView, versionView } from '../views.ts';

const waitMsMax = 600_000;

const waitSchema = z
  .string()
  .default('0s')
  .transform((text, ctx) => {
    const ms = parseDuration(text);
    if (ms !== undefined && ms <= waitMsMax) return ms;
    ctx.addIssue({ code: 'custom', message: 'give a duration up to 10m, such as 30s' });
    return z.NEVER;
  });

const pathSchema = z.object({ namespace: nameSchema, name: nameSchema });
const versionPathSchema = pathSchema.extend({
  number: z
    .string()
    .regex(/^[1-9]\d{0,8}$/, 'a version is a number from 1 on')
    .transform(Number),
});
const waitQuerySchema = z.strictObject({ wait: waitSchema });

export const listQuerySchema = z.strictObject({
  label: z
    .union([z.string(), z.array(z.string())])
    .optional()
    .meta({ description: '`key=value` or `key`; repeat for several' }),
  state: z.enum(versionStates).optional(),
  prefix: z.string().max(63).optional().meta({ description: 'start of the name' }),
  project: nameSchema.optional(),
  limit: z.coerce.number().int().min(1).max(1000).default(100),
  cursor: z.string().max(100).optional(),
});

/** The function that a path names. Throws FUNCTION_NOT_FOUND. */
export function findFunction(registry: Registry, params: unknown): FunctionEntry {
  const { namespace, name } = parse(pathSchema, params, 'QUERY_INVALID');
  const entry = registry.get(namespace, name);
  if (entry !== undefined) return entry;
  throw new GatewayError(
    'FUNCTION_NOT_FOUND',
    `there is no function ${name} in the namespace ${namespace}`,
  );
}

export function functionRoutes(app: FastifyInstance, options: ControlPlaneOptions): void {
  const { functions, versions, registry, pool } = options;
  const base = '/v1/namespaces/:namespace/functions';

  const find = (params: unknown) => findFunction(registry, params);

  async function latestOf(entry: FunctionEntry): Promise<LivingVersion> {
    const latest = await functions.latest(entry);
    if (latest === undefined)
      throw new GatewayError('FUNCTION_NOT_FOUND', `${entry.row.name} was removed meanwhile`);
    return latest;
  }

  async function put(
    where: { namespace: string; name: string },
    definition: Definition,
    waitMs: number,
    mustCreate: boolean,
  ) {
    const result = await functions.put(where, definition, { mustCreate });
    // What waits in its queue goes by the new settings, also where nothing more is accepted.
    await Promise.all([
      options.queue.setRoom(laneOf(queuedFunctionOf(result.entry))),
      options.topics.functionChanged(where.namespace, where.name),
    ]).catch(error => options.log.warn('its jobs go by the old settings for now', { error }));
    if (result.version !== undefined) await versions.settled(result.version, waitMs);
    return {
      status: result.outcome === 'created' ? 201 : 200,
      body: {
        function: functionView(result.entry, await latestOf(result.entry)),
        outcome: result.outcome,
        ...(result.outcome !== 'unchanged' &&
          result.version !== undefined && { version: result.version.number }),
      },
    };
  }

  app.get(base, { config: { takesQuery: true } }, async request => {
    const { namespace } = parse(
      pathSchema.pick({ namespace: true }),
      request.params,
      'QUERY_INVALID',
    );
    const query = parse(listQuerySchema, request.query, 'QUERY_INVALID');
    const labels = [query.label ?? []].flat().map(text => text.split('='));
    const items = [];
    let next: string | undefined;
    for (const entry of registry.list(namespace)) {
      const { row } = entry;
      if (query.cursor !== undefined && row.name <= query.cursor) continue;
      if (query.prefix !== undefined && !row.name.startsWith(query.prefix)) continue;
      if (query.project !== undefined && row.settings.project !== query.project) continue;
      if (
        !labels.every(([key, ...value]) =>
          matchesLabel(row.settings.labels, key!, value.length === 0 ? undefined : value.join('=')),
        )
      )
        continue;
      const latest = await functions.latest(entry);
      // Removed meanwhile: the others are still there.
      if (latest === undefined) continue;
      if (query.state !== undefined && latest.row.state !== query.state) continue;
      if (items.length === query.limit) {
        next = items.at(-1)!.name;
        break;
      }
      items.push(functionView(entry, latest));
    }
    return { items, ...(next !== undefined && { next }) };
  });

  app.post(base, { config: { takesQuery: true } }, async (request, reply) => {
    const { namespace } = parse(
      pathSchema.pick({ namespace: true }),
      request.params,
      'QUERY_INVALID',
    );
    const { wait } = parse(waitQuerySchema, request.query, 'QUERY_INVALID');
    const { name, ...rest } = parse(
      z.looseObject({ name: nameSchema }),
      request.body,
      'DEFINITION_INVALID',
    );
    const definition = parse(definitionSchema, rest, 'DEFINITION_INVALID');
    const { status, body } = await put({ namespace, name }, definition, wait, true);
    return reply
      .code(status)
      .header('location', `/v1/namespaces/${namespace}/functions/${name}`)
      .send(body);
  });

  app.put(`${base}/:name`, { config: { takesQuery: true } }, async (request, reply) => {
    const where = parse(pathSchema, request.params, 'DEFINITION_INVALID');
    const { wait } = parse(waitQuerySchema, request.query, 'QUERY_INVALID');
    const definition = parse(definitionSchema, request.body, 'DEFINITION_INVALID');
    const { status, body } = await put(where, definition, wait, false);
    return reply.code(status).send(body);
  });

  app.get(`${base}/:name`, async request => {
    const entry = find(request.params);
    // Of all its versions: calls may be split among them, or pin one.
    const running = { ready: 0, busy: 0, starting: 0, waiting: 0 };
    for (const { version, ...counts } of pool.counts()) {
      if (version.functionId !== entry.row.id) continue;
      for (const key of ['ready', 'busy', 'starting', 'waiting'] as const)
        running[key] += counts[key];
    }
    return functionView(entry, await latestOf(entry), running);
  });

  app.delete(`${base}/:name`, { config: { takesNothing: true } }, async (request, reply) => {
    const entry = find(request.params);
    const { namespace, name } = entry.row;
    const named = { kind: 'function', namespace, name } as const;
    await options.resources.removeNamed(named, () => functions.remove(entry));
    return reply.code(204).send();
  });

  app.get(`${base}/:name/versions`, async request => {
    const items = await functions.versions(find(request.params));
    return { items: items.map(version => versionView(version)) };
  });

  app.get(`${base}/:name/versions/:number`, { config: { takesQuery: true } }, async request => {
    const { number } = parse(versionPathSchema, request.params, 'QUERY_INVALID');
    const { wait } = parse(waitQuerySchema, request.query, 'QUERY_INVALID');
    const entry = find(request.params);
    const version = await functions.version(entry, number);
    if (version === undefined)
      throw new GatewayError('VERSION_NOT_FOUND', `${entry.row.name} has no version ${number}`);
    await versions.settled(version, wait);
    return versionView(version, functions.buildLogOf(version));
  });

  app.post(
    `${base}/:name/versions/:number/promote`,
    { config: { takesNothing: true } },
    async request => {
      const { number } = parse(versionPathSchema, request.params, 'QUERY_INVALID');
      const entry = find(request.params);
      await functions.promote(entry, number);
      return functionView(entry, await latestOf(entry));
    },
  );

  app.put(`${base}/:name/traffic`, async request => {
    const entry = find(request.params);
    await functions.split(entry, parse(trafficSchema, request.body, 'TRAFFIC_INVALID'));
    return functionView(entry, await latestOf(entry));
  });

  app.delete(`${base}/:name/traffic`, { config: { takesNothing: true } }, async request => {
    const entry = find(request.params);
    await functions.split(entry, undefined);
    return functionView(entry, await latestOf(entry));
  });

  const tokenView = (entry: FunctionEntry): TokenView => ({
    token: entry.token,
    signingKey: options.signingKeyOf(entry.row.id),
  });

  app.get(`${base}/:name/token`, async request => tokenView(find(request.params)));

  app.post(`${base}/:name/token`, { config: { takesNothing: true } }, async request => {
    const entry = find(request.params);
    await functions.rotateToken(entry);
    return tokenView(entry);
  });
}

function matchesLabel(
  labels: Record<string, string>,
  key: string,
  wanted: string | undefined,
): boolean {
  return Object.hasOwn(labels, key) && (wanted === undefined || labels[key] === wanted);
}
