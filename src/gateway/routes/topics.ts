/** `/v1/namespaces/{ns}/topics/{name}/…` and `…/subscriptions/{name}/…`: publishing, following, pulling, going back in time. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { PassThrough } from 'node:stream';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { topicLimits } from '../../domain/topic.ts';
import { parseDuration } from '../../domain/units.ts';
import { messageView } from '../../trigger/message-shapes.ts';
import type { ControlPlaneOptions } from '../control-plane.ts';
import { momentSchema } from '../moments.ts';
import { parse } from '../parse.ts';
import { readPublication } from '../publication.ts';
import { waitSchema } from './jobs.ts';
import { resourcePathSchema } from './resources.ts';

/** Of one publication, base64 and all. */
export const publicationBytesMax = 24 * 1024 ** 2;
/** What a follower has not read. */
const tailBytesMax = 1024 ** 2;

export const pullSchema = z.strictObject({
  maxMessages: z.int().min(1).max(topicLimits.messagesMax).default(1),
  wait: waitSchema,
});
const ackIdsSchema = z.array(z.string().max(200)).min(1).max(topicLimits.messagesMax);
export const ackSchema = z.strictObject({ ackIds: ackIdsSchema });
export const extendSchema = z.strictObject({
  ackIds: ackIdsSchema,
  deadline: z.string().transform((text, ctx) => {
    const ms = parseDuration(text) ?? -1;
    const { ackDeadlineMsMin, ackDeadlineMsMax } = topicLimits;
    if (ms >= ackDeadlineMsMin && ms <= ackDeadlineMsMax) return ms;
    ctx.addIssue({ code: 'custom', message: 'give a duration from 1s to 10m' });
    return z.NEVER;
  }),
});
export const seekSchema = z.strictObject({ time: momentSchema });

export function topicRoutes(app: FastifyInstance, options: ControlPlaneOptions): void {
  const { resources, topics } = options;
  const base = '/v1/namespaces/:namespace/topics/:name';
  const find = (params: unknown) => {
    const { namespace, name } = parse(resourcePathSchema, params, 'QUERY_INVALID');
    return resources.find('topic', namespace, name);
  };

  const followers = new Set<PassThrough>();
  app.addHook('preClose', async () => {
    for (const stream of followers) stream.end();
  });

  const publishing = { config: { takesBytes: true }, bodyLimit: publicationBytesMax };
  app.post(`${base}/publish`, publishing, async request => {
    const topic = find(request.params);
    const body = Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0);
    const messages = readPublication(body, request.headers);
    return { messageIds: await topics.publish(topic, messages) };
  });

  app.get(`${base}/tail`, async (request, reply) => {
    const topic = find(request.params);
    const stream = new PassThrough();
    const forget = topics.follow(topic, message => {
      // Who does not read misses some.
      if (stream.writableLength < tailBytesMax)
        stream.write(`${JSON.stringify(messageView(message))}\n`);
    });
    followers.add(stream);
    reply.raw.once('pipe', () => reply.raw.flushHeaders());
    stream.once('close', () => {
      followers.delete(stream);
      forget();
    });
    return reply.type('application/x-ndjson').send(stream);
  });
}

export function subscriptionRoutes(app: FastifyInstance, options: ControlPlaneOptions): void {
  const { resources, topics, pull, signingKeyOf, clock } = options;
  const base = '/v1/namespaces/:namespace/subscriptions/:name';
  const find = (params: unknown) => {
    const { namespace, name } = parse(resourcePathSchema, params, 'QUERY_INVALID');
    return resources.find('subscription', namespace, name);
  };

  app.post(`${base}/pull`, async (request, reply) => {
    const subscription = find(request.params);
    const given = parse(pullSchema, request.body ?? {}, 'DEFINITION_INVALID');
    const { maxMessages: limit, wait: waitMs = 0 } = given;
    const signal = leftSignal(request.raw, reply.raw);
    return { receivedMessages: await pull.pull(subscription, { limit, waitMs, signal }) };
  });

  app.post(`${base}/ack`, async (request, reply) => {
    const subscription = find(request.params);
    const { ackIds } = parse(ackSchema, request.body, 'DEFINITION_INVALID');
    await pull.acknowledge(subscription, ackIds);
    return reply.code(204).send();
  });

  app.post(`${base}/nack`, async (request, reply) => {
    const subscription = find(request.params);
    const { ackIds } = parse(ackSchema, request.body, 'DEFINITION_INVALID');
    await pull.giveBack(subscription, ackIds);
    return reply.code(204).send();
  });

  app.post(`${base}/extend`, async (request, reply) => {
    const subscription = find(request.params);
    const { ackIds, deadline } = parse(extendSchema, request.body, 'DEFINITION_INVALID');
    await pull.extend(subscription, ackIds, deadline);
    return reply.code(204).send();
  });

  app.post(`${base}/seek`, async request => {
    const subscription = find(request.params);
    const { time } = parse(seekSchema, request.body, 'DEFINITION_INVALID');
    return topics.seek(subscription, time(clock.now()));
  });

  app.get(`${base}/signing-key`, async request => {
    const { row } = find(request.params);
    return { signingKey: signingKeyOf(row.id) };
  });
}

/** Aborted as soon as the client has closed its side: what it does not hear of is not to be leased to it. */
function leftSignal({ socket }: IncomingMessage, response: ServerResponse): AbortSignal {
  const left = new AbortController();
  const leave = () => left.abort();
  // The answer's own end comes some turns of the loop later.
  socket.once('end', leave);
  response.once('close', () => {
    socket.off('end', leave);
    leave();
  });
  if (response.destroyed || socket.readableEnded) leave();
  return left.signal;
}
