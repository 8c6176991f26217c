/** `/v1/namespaces/{ns}/sources`: archives of source, uploaded once and named by their content. */
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { nameSchema } from '../../domain/function.ts';
import { GatewayError, toProblem } from '../../errors.ts';
import type { ControlPlaneOptions } from '../control-plane.ts';
import { parse } from '../parse.ts';

const namespaceSchema = z.object({ namespace: nameSchema });
const digestSchema = namespaceSchema.extend({
  digest: z.string().regex(/^sha256:[0-9a-f]{64}$/, 'write sha256: and 64 hexadecimal digits'),
});

export function sourceRoutes(app: FastifyInstance, options: ControlPlaneOptions): void {
  const { sources } = options;
  const base = '/v1/namespaces/:namespace/sources';

  app.post(base, { config: { takesArchive: true } }, async (request, reply) => {
    parse(namespaceSchema, request.params, 'QUERY_INVALID');
    if (!Buffer.isBuffer(request.body)) {
      throw new GatewayError(
        'MEDIA_TYPE_UNSUPPORTED',
        'a source is sent as application/gzip: a gzipped tar archive',
      );
    }
    return reply.code(201).send({ digest: await sources.putArchive(request.body) });
  });

  app.get(`${base}/:digest`, async (request, reply) => {
    const { digest } = parse(digestSchema, request.params, 'QUERY_INVALID');
    if (await sources.has(digest)) return { digest };
    const error = new GatewayError('SOURCE_NOT_FOUND', `no source ${digest} has been uploaded`);
    // Elsewhere this code is about a definition; here it is about the path.
    const problem = { ...toProblem(error, request.id), status: 404 };
    return reply.code(404).type('application/problem+json').send(problem);
  });
}
