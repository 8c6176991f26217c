/** `/v1/namespaces/{ns}/dead-letters`: what is dead of subscriptions and functions, by cause; looking, trying again, forgetting. */
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { nameSchema } from '../../domain/function.ts';
import { GatewayError } from '../../errors.ts';
import type { ControlPlaneOptions } from '../control-plane.ts';
import { parse } from '../parse.ts';

const whichSchema = {
  subscription: nameSchema.optional(),
  function: nameSchema.optional(),
  cause: z.string().max(200).optional(),
};
const onlyOne = (given: { subscription?: unknown; function?: unknown }) =>
  given.subscription === undefined || given.function === undefined;
const oneRule = 'say a subscription or a function, not both';

export const deadQuerySchema = z
  .strictObject({
    ...whichSchema,
    limit: z.coerce.number().int().min(1).max(1000).default(100),
    cursor: z.string().max(30).optional(),
  })
  .refine(onlyOne, oneRule);

const idsSchema = z.array(z.string().max(30)).min(1).max(1000).optional();
/** All of the namespace is not what somebody means who says nothing. */
const some = (given: Record<string, unknown>) =>
  ['subscription', 'function', 'cause', 'ids', 'all'].some(key => given[key] !== undefined);
const someRule = 'say which: ids, a subscription, a function, a cause, or all: true';
const choice = { ...whichSchema, ids: idsSchema, all: z.literal(true).optional() };

export const deadRedriveSchema = z
  .strictObject({
    ...choice,
    version: z.int().min(1).max(999_999_999).optional(),
    dryRun: z.boolean().default(false),
  })
  .refine(onlyOne, oneRule)
  .refine(some, someRule);
export const deadPurgeSchema = z
  .strictObject(choice)
  .refine(onlyOne, oneRule)
  .refine(some, someRule);

const namespaceSchema = z.object({ namespace: nameSchema });
const pathSchema = namespaceSchema.extend({ id: z.string().max(30) });

export function deadLetterRoutes(app: FastifyInstance, { deadLetters }: ControlPlaneOptions): void {
  const base = '/v1/namespaces/:namespace/dead-letters';
  const namespaceOf = (params: unknown) =>
    parse(namespaceSchema, params, 'QUERY_INVALID').namespace;

  app.get(base, { config: { takesQuery: true } }, async request => {
    const namespace = namespaceOf(request.params);
    const {
      limit,
      cursor: after,
      ...which
    } = parse(deadQuerySchema, request.query, 'QUERY_INVALID');
    return deadLetters.list({ namespace, ...which }, { limit, after });
  });

  app.get(`${base}/causes`, async request => ({
    items: await deadLetters.groups(namespaceOf(request.params)),
  }));

  app.get(`${base}/:id`, async request => {
    const { namespace, id } = parse(pathSchema, request.params, 'QUERY_INVALID');
    return deadLetters.show(namespace, id);
  });

  app.post(`${base}/redrive`, async request => {
    const namespace = namespaceOf(request.params);
    const given = parse(deadRedriveSchema, request.body ?? {}, 'DEFINITION_INVALID');
    const { version, dryRun: isDry, all: _, ...which } = given;
    if (
      version !== undefined &&
      which.subscription === undefined &&
      which.function === undefined &&
      which.ids === undefined
    )
      throw new GatewayError(
        'DEFINITION_INVALID',
        'version: say of which subscription, function or ids',
      );
    return deadLetters.redrive({ namespace, ...which }, { version, isDry });
  });

  app.post(`${base}/purge`, async request => {
    const namespace = namespaceOf(request.params);
    const { all: _, ...which } = parse(deadPurgeSchema, request.body ?? {}, 'DEFINITION_INVALID');
    return { purged: await deadLetters.purge({ namespace, ...which }) };
  });
}
