/**
 * The one listener: data plane, control plane, health and metrics. The control plane is loaded with the first
 * request for it, so that a gateway that only serves functions stays small.
 */
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo, Server as NetServer, Socket } from 'node:net';
import type { FastifyInstance } from 'fastify';
import { parseAuthorization, tokensEqual } from '../auth/token.ts';
import type { Clock, Timer } from '../clock.ts';
import { GatewayError, toProblem } from '../errors.ts';
import { newId } from '../ids.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { ControlPlaneOptions } from './control-plane.ts';
import type { Serve } from './exchange.ts';
import { createFastReader, type FastReader } from './fast-reader.ts';
import { injectExchange } from './inject.ts';
import {
  createNodeReader,
  keepAliveMs,
  type ReaderLimits,
  wholeBodyBytesMax,
} from './node-reader.ts';
import { isDataPlane } from './target.ts';

export interface ServerOptions {
  host: string;
  port: number;
  limits: ReaderLimits & { connectionsMax: number };
  serve: Serve;
  control: ControlPlaneOptions;
  metrics: Metrics;
  clock: Clock;
  /** A proxy is in front: whoever comes over loopback may be anybody. */
  trustProxy: boolean;
  /** Whether new calls are taken: for /readyz. */
  isReady: () => boolean;
}

export interface GatewayServer {
  /** Binds the address; ADDRESS_IN_USE when another holds it. */
  listen(): Promise<{ url: string }>;
  /** Takes no new connections and closes idle ones; resolves when the last is gone or has been cut. */
  close(cutAfterMs: number): Promise<void>;
  /** The whole surface without a socket. */
  fetch: typeof fetch;
}

export function createServer(options: ServerOptions): GatewayServer {
  const plain = plainRoutes(options);
  let control: Promise<FastifyInstance> | undefined;
  const loadControl = () => {
    control ??= import('./control-plane.ts')
      .then(({ createControlPlane }) => createControlPlane(options.control))
      .catch(error => {
        // The next request tries again.
        control = undefined;
        throw error;
      });
    return control;
  };
  let draining = false;
  const nodeReader = createNodeReader({
    serve: options.serve,
    limits: options.limits,
    clock: options.clock,
    isDraining: () => draining,
    control(request, response) {
      const answer = plain(request.method!, request.url!, request.headers.authorization);
      if (answer !== undefined) return send(response, answer);
      void loadControl().then(
        app => app.routing(request, response),
        error => send(response, problemAnswer(error, options.clock.now())),
      );
    },
  });
  // Sets up the checks of slow clients that node:http otherwise starts when it listens itself.
  nodeReader.emit('listening');
  const handed = new Set<Socket>();
  const reader = createFastReader({
    serve: options.serve,
    bodyBytesMax: wholeBodyBytesMax,
    headersBytesMax: options.limits.headersBytesMax,
    idleMsMax: keepAliveMs,
    clock: options.clock,
    handOver(socket) {
      handed.add(socket);
      socket.once('close', () => handed.delete(socket));
      nodeReader.emit('connection', socket);
      socket.resume();
    },
  });
  limitConnections(reader.server, options);
  return {
    listen: () => listen(reader.server, options),
    async close(cutAfterMs) {
      draining = true;
      // Ends those who follow logs: they would be waited for.
      await (await control?.catch(() => undefined))?.close();
      await close(reader, nodeReader, { cutAfterMs, clock: options.clock, handed });
    },
    fetch: async (input, init) => {
      const request = new Request(input, init);
      const url = new URL(request.url);
      const target = url.pathname + url.search;
      if (isDataPlane(target)) return injectExchange(options.serve, request, target);
      const answer = plain(
        request.method,
        target,
        request.headers.get('authorization') ?? undefined,
      );
      if (answer !== undefined)
        return new Response(answer.body, { status: answer.status, headers: answer.headers });
      const app = await loadControl();
      const reply = await app.inject({
        method: request.method as 'GET',
        url: target,
        headers: Object.fromEntries(request.headers),
        ...(request.body !== null && { payload: Buffer.from(await request.arrayBuffer()) }),
      });
      const headers = Object.entries(reply.headers).map(
        ([key, value]) => [key, String(value)] as [string, string],
      );
      return new Response(reply.statusCode === 204 ? null : new Uint8Array(reply.rawPayload), {
        status: reply.statusCode,
        headers,
      });
    },
  };
}

interface PlainAnswer {
  status: number;
  headers: Record<string, string>;
  body: string;
}

/** Routes that must answer also when nothing else does: no framework, no store. */
function plainRoutes(
  options: ServerOptions,
): (method: string, target: string, authorization: string | undefined) => PlainAnswer | undefined {
  const { metrics, isReady, control } = options;
  // Whoever reaches the loopback interface is on this machine; from elsewhere, names of functions are not public.
  const openMetrics =
    !options.trustProxy && ['127.0.0.1', 'localhost', '::1'].includes(options.host);
  return (method, target, authorization) => {
    const mark = target.indexOf('?');
    const path = mark === -1 ? target : target.slice(0, mark);
    if (path !== '/healthz' && path !== '/readyz' && path !== '/metrics') return undefined;
    if (method !== 'GET' && method !== 'HEAD') {
      const answer = problemAnswer(
        new GatewayError('METHOD_NOT_ALLOWED', `${method} is not for ${path}; it takes GET`),
        control.clock.now(),
      );
      return { ...answer, headers: { ...answer.headers, allow: 'GET, HEAD' } };
    }
    if (path === '/healthz') return text(200, 'ok\n');
    if (path === '/readyz') return isReady() ? text(200, 'ready\n') : text(503, 'not ready\n');
    const token = parseAuthorization(authorization);
    if (!openMetrics && (token === undefined || !tokensEqual(token, control.adminToken))) {
      return problemAnswer(
        new GatewayError(
          'UNAUTHENTICATED',
          'metrics need the admin token beyond loopback, and behind a proxy',
          { remedy: 'Send `Authorization: Bearer TOKEN` with the admin token.' },
        ),
        control.clock.now(),
      );
    }
    return {
      status: 200,
      headers: { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' },
      body: metrics.text(),
    };
  };
}

function text(status: number, body: string): PlainAnswer {
  return { status, headers: { 'content-type': 'text/plain; charset=utf-8' }, body };
}

function problemAnswer(error: unknown, nowMs: number): PlainAnswer {
  const problem = toProblem(error, newId('req', nowMs));
  return {
    status: problem.status,
    headers: {
      'content-type': 'application/problem+json',
      ...(problem.status === 401 && { 'www-authenticate': 'Bearer' }),
    },
    body: `${JSON.stringify(problem)}\n`,
  };
}

function send(response: ServerResponse<IncomingMessage>, answer: PlainAnswer): void {
  response.writeHead(answer.status, {
    ...answer.headers,
    'content-length': Buffer.byteLength(answer.body),
  });
  response.end(answer.body);
}

function listen(reader: NetServer, options: ServerOptions): Promise<{ url: string }> {
  const { host, port } = options;
  return new Promise((resolve, reject) => {
    reader.on('error', (cause: NodeJS.ErrnoException) => {
      if (reader.listening)
        return options.control.log.error('a connection was not accepted', { error: cause });
      if (cause.code === 'EADDRINUSE')
        reject(
          new GatewayError('ADDRESS_IN_USE', `something listens on ${host}:${port} already`, {
            cause,
          }),
        );
      else
        reject(
          new GatewayError('CONFIG_INVALID', `cannot listen on ${host}:${port}: ${cause.message}`, {
            cause,
            remedy:
              cause.code === 'EACCES'
                ? 'Ports below 1024 are for root: choose another with --port.'
                : 'Give an address of this machine with --host.',
          }),
        );
    });
    reader.listen({ host, port, backlog: 4096 }, () => {
      const address = reader.address() as AddressInfo;
      const name = address.family === 'IPv6' ? `[${address.address}]` : address.address;
      resolve({ url: `http://${name}:${address.port}` });
    });
  });
}

/** Descriptors that clients could take without end are missing when an instance is to be started. */
function limitConnections(server: NetServer, { limits, clock, control }: ServerOptions): void {
  server.maxConnections = limits.connectionsMax;
  let dropped = 0;
  server.on('drop', () => {
    // A crowd is told once a while, not one by one.
    if (dropped++ > 0) return;
    clock.after(
      dropsToldMs,
      () => {
        const { connectionsMax } = limits;
        control.log.warn('connections were closed: too many are open', { dropped, connectionsMax });
        dropped = 0;
      },
      { unref: true },
    );
  });
}

const dropsToldMs = 1000;
const idleCheckMs = 50;

async function close(
  reader: FastReader,
  nodeReader: Server,
  options: { cutAfterMs: number; clock: Clock; handed: Set<Socket> },
): Promise<void> {
  // Unknown to itself, the node:http server has never listened: it only stops its checks.
  nodeReader.close(() => {});
  if (!reader.server.listening) return;
  await new Promise<void>(resolve => {
    const cut = options.clock.after(options.cutAfterMs, () => {
      reader.destroy();
      for (const socket of options.handed) socket.destroy();
    });
    let again: Timer | undefined;
    // A connection may become idle after this: looked for until the last is gone.
    function closeIdle(): void {
      nodeReader.closeIdleConnections();
      again = options.clock.after(idleCheckMs, closeIdle);
    }
    reader.server.close(() => {
      cut.cancel();
      again?.cancel();
      resolve();
    });
    reader.drain();
    closeIdle();
  });
}
