/** `…/functions/{name}/logs`: what a function's instances wrote, kept and as it comes, as NDJSON. */
import { PassThrough } from 'node:stream';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { type LogLine, timeOfId } from '../../domain/record.ts';
import type { LineQuery } from '../../store/records.ts';
import type { OutputLine } from '../../telemetry/output.ts';
import type { ControlPlaneOptions } from '../control-plane.ts';
import { momentSchema } from '../moments.ts';
import { parse } from '../parse.ts';
import { outputLineView } from '../views.ts';
import { findFunction } from './functions.ts';

export const logsQuerySchema = z.strictObject({
  lines: z.coerce.number().int().min(0).max(10_000).default(100),
  follow: z.enum(['true', 'false']).default('false'),
  call: z.string().max(30).optional().meta({ description: 'id of the invocation that wrote it' }),
  instance: z.string().max(30).optional(),
  version: z.coerce.number().int().min(1).max(999_999_999).optional(),
  since: momentSchema.optional(),
});

/** Unread output of a follower: one that does not keep up loses lines, not the gateway's memory. */
const followBytesMax = 1024 ** 2;
/** After its answer a call may still have something on its way. */
const afterCallMs = 60_000;

export function logRoutes(app: FastifyInstance, options: ControlPlaneOptions): void {
  const { registry, records, output, clock } = options;
  const base = '/v1/namespaces/:namespace/functions';

  const followers = new Set<PassThrough>();
  app.addHook('preClose', async () => {
    for (const stream of followers) stream.end();
  });

  app.get(`${base}/:name/logs`, { config: { takesQuery: true } }, async (request, reply) => {
    const { id: functionId } = findFunction(registry, request.params).row;
    const {
      lines: limit,
      follow,
      since,
      ...same
    } = parse(logsQuerySchema, request.query, 'QUERY_INVALID');
    const sinceMs = since?.(clock.now());
    const query = defined<LineQuery>({ functionId, limit, sinceMs, ...same });
    const times = same.call === undefined ? {} : await timesOf(same.call);
    // In one turn: what is written from now on comes to the follower, all before it from the records.
    const past = limit === 0 ? [] : records.lines({ ...query, ...times });
    const stream = new PassThrough();
    const write = (line: OutputLine) => stream.write(`${JSON.stringify(outputLineView(line))}\n`);
    let waiting: OutputLine[] | undefined = [];
    const unfollow =
      follow === 'true'
        ? output.follow(functionId, {
            onLine(line) {
              if (!matches(line, query)) return;
              if (waiting !== undefined) waiting.push(line);
              else if (stream.writableLength < followBytesMax) write(line);
            },
            onEnd: () => stream.end(),
          })
        : undefined;
    let kept: LogLine[];
    try {
      kept = await past;
    } catch (error) {
      unfollow?.();
      throw error;
    }
    for (const line of kept) write(line);
    for (const line of waiting) write(line);
    waiting = undefined;
    if (unfollow === undefined) stream.end();
    else {
      followers.add(stream);
      // A quiet log has a head too: whoever follows knows that it began.
      reply.raw.once('pipe', () => reply.raw.flushHeaders());
      stream.once('close', () => {
        followers.delete(stream);
        unfollow();
      });
    }
    return reply.type('application/x-ndjson').send(stream);
  });

  /** When a call can have written: what is not looked through is found sooner. */
  async function timesOf(call: string): Promise<{ sinceMs?: number; untilMs?: number }> {
    const startMs = timeOfId(call);
    if (startMs === undefined) return {};
    const record = await records.get(call);
    if (record === undefined) return { sinceMs: startMs };
    return { sinceMs: startMs, untilMs: startMs + record.durationMs + afterCallMs };
  }
}

function matches(line: OutputLine, { call, instance, version }: LineQuery): boolean {
  return (
    (call === undefined || line.call === call) &&
    (instance === undefined || line.instance === instance) &&
    (version === undefined || line.version === version)
  );
}

function defined<T extends object>(value: { [K in keyof T]: T[K] | undefined }): T {
  return Object.fromEntries(Object.entries(value).filter(([, item]) => item !== undefined)) as T;
}
