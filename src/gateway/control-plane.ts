/**
 * The control plane: `/v1`. A fastify application, loaded with the first request for it. Every route needs the
 * admin token, unknown ones too; schemas are those of the domain, and the OpenAPI document is made from them.
 */
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import { parseAuthorization, tokensEqual } from '../auth/token.ts';
import type { Clock } from '../clock.ts';
import type { Functions } from '../deploy/functions.ts';
import type { Registry } from '../deploy/registry.ts';
import type { Resources } from '../deploy/resources.ts';
import type { Secrets } from '../deploy/secrets.ts';
import type { Sources } from '../deploy/sources.ts';
import type { Versions } from '../deploy/versions.ts';
import type { Runtime } from '../domain/runtime.ts';
import { GatewayError, isGatewayError, toProblem } from '../errors.ts';
import { newId } from '../ids.ts';
import type { Invoke } from '../invoke/invoke.ts';
import type { Pool } from '../invoke/pool.ts';
import type { Log } from '../log.ts';
import type { Calls } from '../queue/calls.ts';
import type { Queue } from '../queue/queue.ts';
import type { RecordStore } from '../store/records.ts';
import type { OutputLog } from '../telemetry/output.ts';
import type { DeadLetters } from '../trigger/dead-letters.ts';
import type { Pull } from '../trigger/pull.ts';
import type { Schedules } from '../trigger/schedules.ts';
import type { Topics } from '../trigger/topics.ts';
import { malformedJson } from './malformed-json.ts';
import { openApi } from './openapi.ts';
import { deadLetterRoutes } from './routes/dead-letters.ts';
import { functionRoutes } from './routes/functions.ts';
import { invocationRoutes } from './routes/invocations.ts';
import { jobRoutes } from './routes/jobs.ts';
import { logRoutes } from './routes/logs.ts';
import { resourceRoutes } from './routes/resources.ts';
import { scheduleRoutes } from './routes/schedules.ts';
import { secretRoutes } from './routes/secrets.ts';
import { sourceRoutes } from './routes/sources.ts';
import { subscriptionRoutes, topicRoutes } from './routes/topics.ts';
import { runtimeView } from './views.ts';

export interface ControlPlaneOptions {
  functions: Functions;
  versions: Versions;
  sources: Sources;
  registry: Registry;
  pool: Pool;
  output: OutputLog;
  records: RecordStore;
  secrets: Secrets;
  resources: Resources;
  schedules: Schedules;
  topics: Topics;
  pull: Pull;
  deadLetters: DeadLetters;
  invoke: Invoke;
  queue: Queue;
  calls: Calls;
  /** With which the callbacks of a function are signed. */
  signingKeyOf(functionId: string): string;
  runtimes: Map<string, Runtime>;
  adminToken: string;
  clock: Clock;
  log: Log;
}

export const controlLimits = {
  jsonBytesMax: 2 * 1024 ** 2,
  sourceBytesMax: 64 * 1024 ** 2,
} as const;

export async function createControlPlane(options: ControlPlaneOptions): Promise<FastifyInstance> {
  const app = Fastify({
    bodyLimit: controlLimits.jsonBytesMax,
    genReqId: () => newId('req', options.clock.now()),
    routerOptions: { maxParamLength: 200, ignoreTrailingSlash: true },
    exposeHeadRoutes: false,
    rewriteUrl,
    forceCloseConnections: true,
    // A path that cannot be decoded: answered as all others are, after the token was asked for.
    frameworkErrors: (error, request, reply) => {
      let refusal: unknown = error;
      try {
        admit(request as FastifyRequest, options.adminToken);
      } catch (denial) {
        refusal = denial;
      }
      answerError(refusal, request as FastifyRequest, reply as FastifyReply, options.log);
    },
  });
  // Our schemas are zod's and checked where they are used; fastify's own compilers stay unloaded.
  app.setValidatorCompiler(() => () => true);
  app.setSerializerCompiler(() => data => JSON.stringify(data));
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('application/json', { parseAs: 'string' }, parseJson);
  app.addContentTypeParser(
    ['application/gzip', 'application/x-gzip', 'application/x-tar+gzip'],
    { parseAs: 'buffer', bodyLimit: controlLimits.sourceBytesMax },
    (_request, body, done) => done(null, body),
  );
  app.addContentTypeParser('*', { parseAs: 'buffer' }, (request, body, done) => {
    if (request.routeOptions.config.takesBytes) return done(null, body);
    const detail = 'this route takes application/json, or application/gzip for a source';
    done(new GatewayError('MEDIA_TYPE_UNSUPPORTED', detail));
  });
  app.addHook('onRequest', async request => admit(request, options.adminToken));
  // Only whoever may send a body is asked for it.
  app.addHook('preParsing', async (request, reply) => {
    if (request.headers.expect !== undefined) reply.raw.writeContinue();
  });
  app.addHook('onSend', async (request, reply) => {
    if (!request.raw.complete) reply.header('connection', 'close');
    reply.header('x-call-id', request.id);
    reply.header('cache-control', 'no-store');
  });
  app.setErrorHandler((error, request, reply) => answerError(error, request, reply, options.log));
  const routes = watchRoutes(app);
  app.decorate('ownRoutes', routes);
  app.setNotFoundHandler((request, reply) =>
    answerError(notFound(routes, request, reply), request, reply, options.log),
  );
  app.addHook('preHandler', async request => {
    // Not a route of ours: told as such, whatever else is wrong.
    if (request.is404) return;
    const { takesArchive, takesBytes, takesQuery } = request.routeOptions.config;
    if (Buffer.isBuffer(request.body) && !takesArchive && !takesBytes)
      throw new GatewayError('MEDIA_TYPE_UNSUPPORTED', 'this route takes application/json');
    const [unknown] = takesQuery ? [] : Object.keys(request.query as object);
    if (unknown !== undefined) {
      const issues = [{ path: unknown, message: 'unknown key', hint: 'this route takes none' }];
      throw new GatewayError('QUERY_INVALID', `${unknown}: unknown key; this route takes none`, {
        issues,
      });
    }
  });
  addRoutes(app, options);
  await app.ready();
  return app;
}

function addRoutes(app: FastifyInstance, options: ControlPlaneOptions): void {
  functionRoutes(app, options);
  logRoutes(app, options);
  invocationRoutes(app, options);
  jobRoutes(app, options);
  secretRoutes(app, options);
  resourceRoutes(app, options);
  scheduleRoutes(app, options);
  topicRoutes(app, options);
  subscriptionRoutes(app, options);
  deadLetterRoutes(app, options);
  sourceRoutes(app, options);
  app.get('/v1/runtimes', async () => ({
    items: [...options.runtimes.values()].map(runtimeView),
  }));
  app.get('/v1/openapi.json', async () => openApi());
}

interface Route {
  method: string;
  url: string;
  pattern: RegExp;
}

declare module 'fastify' {
  interface FastifyInstance {
    readonly ownRoutes: readonly Route[];
  }
  interface FastifyContextConfig {
    /** Has a schema of its own for its query. */
    takesQuery?: boolean;
    /** Its body is a source, as bytes. */
    takesArchive?: boolean;
    /** Its body is whatever comes, as bytes. */
    takesBytes?: boolean;
    /** It has no use for a body. */
    takesNothing?: boolean;
  }
}

/** `topics/orders:publish`, as Pub/Sub has it, is `topics/orders/publish`. */
function rewriteUrl({ url = '/' }: { url?: string }): string {
  return url.replace(/^(\/v1\/[^?]*\/(?:topics|subscriptions)\/[^/?:]+):([a-z]+)(?=$|\?)/, '$1/$2');
}

function admit(request: FastifyRequest, adminToken: string): void {
  const token = parseAuthorization(request.headers.authorization);
  if (token !== undefined && tokensEqual(token, adminToken)) return;
  throw new GatewayError('UNAUTHENTICATED', 'the control plane needs the admin token', {
    remedy:
      'Send `Authorization: Bearer TOKEN`; the token is in the file admin.token of the data directory.',
  });
}

function parseJson(
  request: FastifyRequest,
  body: string | Buffer,
  done: (error: Error | null, value?: unknown) => void,
): void {
  if (request.routeOptions.config.takesBytes) return done(null, Buffer.from(body));
  // Many clients name a type also when they send nothing.
  if (body === '' && request.routeOptions.config.takesNothing) return done(null, undefined);
  try {
    done(null, JSON.parse(String(body)));
  } catch {
    done(malformedJson(String(body)));
  }
}

/** The shapes of all routes, so that a wrong method is told from a wrong path. */
function watchRoutes(app: FastifyInstance): Route[] {
  const routes: Route[] = [];
  app.addHook('onRoute', route => {
    const pattern = new RegExp(`^${route.url.replace(/:\w+/g, '[^/]+')}/?$`);
    for (const method of [route.method].flat()) routes.push({ method, url: route.url, pattern });
  });
  return routes;
}

/** 405 with Allow when the path exists for another method, else 404. */
function notFound(
  routes: readonly Route[],
  request: FastifyRequest,
  reply: FastifyReply,
): GatewayError {
  const path = request.url.split('?')[0]!;
  const allowed = routes.filter(route => route.pattern.test(path)).map(route => route.method);
  if (allowed.length === 0)
    return new GatewayError('ROUTE_NOT_FOUND', `there is nothing at ${path}`);
  reply.header('allow', allowed.join(', '));
  return new GatewayError(
    'METHOD_NOT_ALLOWED',
    `${request.method} is not for ${path}; it takes ${allowed.join(', ')}`,
  );
}

function answerError(
  error: unknown,
  request: FastifyRequest,
  reply: FastifyReply,
  log: Log,
): FastifyReply {
  const known = isGatewayError(error)
    ? error
    : fromFastify(error as { code?: string; message: string });
  if (known === undefined)
    log.error('a request broke the control plane', { requestId: request.id, error });
  const problem = toProblem(known ?? error, request.id);
  if (problem.status === 401) reply.header('www-authenticate', 'Bearer');
  return reply.code(problem.status).type('application/problem+json').send(problem);
}

/** Fastify's own refusals in our words. */
function fromFastify(error: { code?: string; message: string }): GatewayError | undefined {
  switch (error.code) {
    case 'FST_ERR_CTP_BODY_TOO_LARGE':
      return new GatewayError(
        'BODY_TOO_LARGE',
        `the body is larger than ${controlLimits.jsonBytesMax} bytes (a source: ${controlLimits.sourceBytesMax})`,
      );
    case 'FST_ERR_CTP_INVALID_MEDIA_TYPE':
      return new GatewayError(
        'MEDIA_TYPE_UNSUPPORTED',
        'this route takes application/json, or application/gzip for a source',
      );
    case 'FST_ERR_MAX_PARAM_LENGTH':
      return new GatewayError('QUERY_INVALID', 'a part of the path is too long to name anything');
    case 'FST_ERR_CTP_EMPTY_JSON_BODY':
      return new GatewayError('JSON_MALFORMED', 'the body is empty');
    case 'FST_ERR_CTP_INVALID_CONTENT_LENGTH':
    case 'FST_ERR_BAD_URL':
      return new GatewayError('REQUEST_MALFORMED', error.message);
    default:
      return undefined;
  }
}
