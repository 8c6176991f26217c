/** `/v1/namespaces/{ns}/secrets`: set, list and remove. No route gives a value. */
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { nameSchema } from '../../domain/function.ts';
import { secretLimits, secretNameSchema } from '../../domain/secret.ts';
import type { ControlPlaneOptions } from '../control-plane.ts';
import { parse } from '../parse.ts';

const namespaceSchema = z.object({ namespace: nameSchema });
const pathSchema = namespaceSchema.extend({ name: secretNameSchema });

export const secretValueSchema = z.strictObject({
  value: z
    .string()
    .min(1, 'it is empty')
    .refine(text => !text.includes('\0'), 'a NUL byte cannot be in an environment')
    .refine(
      text => Buffer.byteLength(text) <= secretLimits.secretBytesMax,
      `more than ${secretLimits.secretBytesMax} bytes`,
    ),
});

export function secretRoutes(
  app: FastifyInstance,
  { secrets, resources }: ControlPlaneOptions,
): void {
  const base = '/v1/namespaces/:namespace/secrets';

  app.get(base, async request => {
    const { namespace } = parse(namespaceSchema, request.params, 'QUERY_INVALID');
    const items = secrets.list(namespace).map(({ name, updatedMs }) => ({
      ...{ name, updatedAt: new Date(updatedMs).toISOString() },
    }));
    return { items };
  });

  app.put(`${base}/:name`, async (request, reply) => {
    const { namespace, name } = parse(pathSchema, request.params, 'DEFINITION_INVALID');
    const { value } = parse(secretValueSchema, request.body, 'DEFINITION_INVALID');
    const outcome = await secrets.put(namespace, name, value);
    const { updatedMs } = secrets.list(namespace).find(info => info.name === name)!;
    return reply
      .code(outcome === 'created' ? 201 : 200)
      .send({ name, updatedAt: new Date(updatedMs).toISOString() });
  });

  app.delete(`${base}/:name`, { config: { takesNothing: true } }, async (request, reply) => {
    const { namespace, name } = parse(pathSchema, request.params, 'QUERY_INVALID');
    // Functions say at their calls what is missing; these would refuse everybody, or tell nobody, and have no caller to say it to.
    const named = { kind: 'secret', namespace, name } as const;
    await resources.removeNamed(named, () => secrets.remove(namespace, name));
    return reply.code(204).send();
  });
}
