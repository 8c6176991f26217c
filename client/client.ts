/**
 * The control plane as typed functions over fetch; runs in Node, browsers and inside the gateway's
 * own process. It knows routes and errors, nothing else: no retries, no caching, no reading of
 * files or environment. Every refusal of the gateway is an ApiError with the problem that it sent;
 * so is a gateway that does not answer.
 */
import type {
  AcceptedView,
  FunctionDefinition,
  FunctionView,
  InvocationBodiesView,
  InvocationView,
  OutputLineView,
  Page,
  PutResult,
  ReplayView,
  RuntimeView,
  SecretView,
  SourceView,
  TokenView,
  TrafficView,
  VersionView,
} from './api.ts';
import type {
  InvocationOptions,
  InvokeOptions,
  ListOptions,
  LogOptions,
  PutOptions,
  ReadOptions,
} from './options.ts';

import {
  type ResourceClient,
  type ResourceViews,
  resourceClient,
  type ScheduleClient,
  scheduleClient,
} from './resources.ts';
import { type TopicClient, topicClient } from './topics.ts';
import { baseOf, isApiError, queryOf, Wire } from './wire.ts';

export type * from './options.ts';
export type { ResourceClient, ResourceViews, ScheduleClient } from './resources.ts';
export type { TopicClient } from './topics.ts';
export { ApiError, isApiError } from './wire.ts';

/** Called with an absolute address as text, and always with `init`. The global fetch is one. */
export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

export interface ClientOptions {
  /** Base address of the gateway: `http://127.0.0.1:8080`. */
  url: string;
  /**
   * The admin token, or a function's own where only `invoke` is used. Nothing is sent without one.
   */
  token?: string;
  /** `default` when absent. */
  namespace?: string;
  /** Instead of the global fetch: a gateway in the same process, a proxy, a test. */
  fetch?: Fetch;
}

export interface Client extends ScheduleClient, TopicClient {
  readonly url: string;
  readonly namespace: string;
  /** The same gateway and token, another namespace. */
  inNamespace(namespace: string): Client;

  listFunctions(options?: ListOptions): Promise<Page<FunctionView>>;
  /** All of them, page after page. `limit` is the size of a page. */
  eachFunction(options?: ListOptions): AsyncIterable<FunctionView>;
  /** Throws FUNCTION_NOT_FOUND. */
  getFunction(name: string, options?: ReadOptions): Promise<FunctionView>;
  /** Throws FUNCTION_EXISTS. */
  createFunction(
    name: string,
    definition: FunctionDefinition,
    options?: PutOptions,
  ): Promise<PutResult>;
  /** Idempotent: the same definition again changes nothing. */
  putFunction(
    name: string,
    definition: FunctionDefinition,
    options?: PutOptions,
  ): Promise<PutResult>;
  removeFunction(name: string, options?: ReadOptions): Promise<void>;

  listVersions(name: string, options?: ReadOptions): Promise<Page<VersionView>>;
  /** With its build log. `wait`: answers when the build is settled, or when the time is up. */
  getVersion(name: string, version: number, options?: PutOptions): Promise<VersionView>;

  /** Lets a ready version answer the calls that pin none: an earlier one again, or a later one. */
  promoteVersion(name: string, version: number, options?: ReadOptions): Promise<FunctionView>;

  /** Splits the calls that pin no version. Throws TRAFFIC_INVALID. */
  splitTraffic(name: string, traffic: TrafficView, options?: ReadOptions): Promise<FunctionView>;
  /** Lets the active version answer all of them again. */
  endTraffic(name: string, options?: ReadOptions): Promise<FunctionView>;

  getToken(name: string, options?: ReadOptions): Promise<TokenView>;
  /** Makes a new token; the old one is void at once. */
  rotateToken(name: string, options?: ReadOptions): Promise<TokenView>;

  readLogs(name: string, options?: LogOptions): Promise<OutputLineView[]>;
  /**
   * The newest lines, then each new one as it is written. Ends when the loop is left or the gateway
   * stops.
   */
  followLogs(name: string, options?: LogOptions): AsyncIterable<OutputLineView>;

  /** Newest first. */
  listInvocations(options?: InvocationOptions): Promise<Page<InvocationView>>;
  /** Throws INVOCATION_NOT_FOUND. `wait`: answers when an async call has ended, or when the time is up; at most `60s`. */
  getInvocation(id: string, options?: PutOptions): Promise<InvocationView>;
  /** Of an async call: what the function answered; 202 where it has not ended. Throws why there is no answer. */
  getResult(id: string, options?: PutOptions): Promise<Response>;
  /** Throws INVOCATION_ENDED. */
  cancelInvocation(id: string, options?: ReadOptions): Promise<InvocationView>;
  /** Accepts an async call that has failed, died or was cancelled once more. */
  redriveInvocation(
    id: string,
    options?: ReadOptions & { version?: number },
  ): Promise<AcceptedView>;
  /** Throws BODIES_NOT_KEPT. */
  getBodies(id: string, options?: ReadOptions): Promise<InvocationBodiesView>;
  /** Calls again with what was kept: the active version, or the one named. */
  replayInvocation(id: string, options?: ReadOptions & { version?: number }): Promise<ReplayView>;

  listSecrets(options?: ReadOptions): Promise<Page<SecretView>>;
  /** Sets a secret, or gives it another value. */
  putSecret(name: string, value: string, options?: ReadOptions): Promise<SecretView>;
  /** Throws SECRET_NOT_FOUND. */
  removeSecret(name: string, options?: ReadOptions): Promise<void>;

  /** What manifests declare beside functions, by the name of its kind in paths: `schedules`. */
  resources<P extends keyof ResourceViews>(kind: P): ResourceClient<ResourceViews[P]>;

  /** Undefined when the gateway does not have it. */
  getSource(digest: string, options?: ReadOptions): Promise<SourceView | undefined>;
  /** `archive` is a gzipped tar. */
  putSource(archive: Uint8Array, options?: ReadOptions): Promise<SourceView>;

  listRuntimes(options?: ReadOptions): Promise<Page<RuntimeView>>;
  getOpenApi(options?: ReadOptions): Promise<Record<string, unknown>>;

  /**
   * Calls a function. The answer is the Response whatever its status; only an unreachable gateway
   * throws.
   */
  invoke(name: string, options?: InvokeOptions): Promise<Response>;
  /** Accepts a call, which runs later. Throws what it is refused with. */
  invokeAsync(name: string, options?: InvokeOptions): Promise<AcceptedView>;
}

/** Throws TypeError when `url` is not an http address. */
export function createClient(options: ClientOptions): Client {
  const url = baseOf(options.url);
  const namespace = options.namespace ?? 'default';
  const wire = new Wire(url, options);
  const inside = `/v1/namespaces/${encodeURIComponent(namespace)}`;
  return {
    url,
    namespace,
    inNamespace: other => createClient({ ...options, namespace: other }),
    ...functionRoutes(wire, inside),
    ...routesBelowFunctions(wire, `${inside}/functions`),
    ...invocationRoutes(wire, `${inside}/invocations`),
    ...secretRoutes(wire, `${inside}/secrets`),
    resources: kind => resourceClient(wire, `${inside}/${kind}`),
    ...scheduleClient(wire, `${inside}/schedules`),
    ...topicClient(wire, inside),
    ...sourceRoutes(wire, inside),
    listRuntimes: ({ signal } = {}) => wire.json('GET', '/v1/runtimes', { signal }),
    getOpenApi: ({ signal } = {}) => wire.json('GET', '/v1/openapi.json', { signal }),
    invoke: (name, call = {}) => wire.invoke(endpointPath({ name, namespace, ...call }), call),
    async invokeAsync(name, call = {}) {
      const path = `/async${endpointPath({ name, namespace, ...call }).replace('/', '-')}`;
      const response = await wire.invoke(path, { ...call, method: 'POST' });
      return wire.valueOf<AcceptedView>(response, 'POST', path);
    },
  };
}

type FunctionRoutes = Pick<
  Client,
  | 'listFunctions'
  | 'eachFunction'
  | 'getFunction'
  | 'createFunction'
  | 'putFunction'
  | 'removeFunction'
>;

function functionRoutes(wire: Wire, inside: string): FunctionRoutes {
  const base = `${inside}/functions`;
  const pathOf = (name: string) => `${base}/${encodeURIComponent(name)}`;
  const routes: FunctionRoutes = {
    listFunctions: ({ signal, labels, ...query } = {}) =>
      wire.json('GET', `${base}${queryOf({ ...query, label: labels })}`, { signal }),
    async *eachFunction(options = {}) {
      let cursor = options.cursor;
      do {
        const page = await routes.listFunctions({ ...options, cursor });
        yield* page.items;
        cursor = page.next;
      } while (cursor !== undefined);
    },
    getFunction: (name, { signal } = {}) => wire.json('GET', pathOf(name), { signal }),
    createFunction: (name, definition, { wait, signal } = {}) =>
      wire.json('POST', `${base}${queryOf({ wait })}`, { signal, json: { name, ...definition } }),
    putFunction: (name, definition, { wait, signal } = {}) =>
      wire.json('PUT', `${pathOf(name)}${queryOf({ wait })}`, { signal, json: definition }),
    async removeFunction(name, { signal } = {}) {
      await wire.send('DELETE', pathOf(name), { signal });
    },
  };
  return routes;
}

function routesBelowFunctions(
  wire: Wire,
  base: string,
): Pick<
  Client,
  | 'listVersions'
  | 'getVersion'
  | 'promoteVersion'
  | 'splitTraffic'
  | 'endTraffic'
  | 'getToken'
  | 'rotateToken'
  | 'readLogs'
  | 'followLogs'
> {
  const pathOf = (name: string, rest: string) => `${base}/${encodeURIComponent(name)}/${rest}`;
  return {
    listVersions: (name, { signal } = {}) => wire.json('GET', pathOf(name, 'versions'), { signal }),
    getVersion: (name, version, { wait, signal } = {}) =>
      wire.json('GET', pathOf(name, `versions/${version}${queryOf({ wait })}`), { signal }),
    promoteVersion: (name, version, { signal } = {}) =>
      wire.json('POST', pathOf(name, `versions/${version}/promote`), { signal }),
    splitTraffic: (name, traffic, { signal } = {}) =>
      wire.json('PUT', pathOf(name, 'traffic'), { signal, json: traffic }),
    endTraffic: (name, { signal } = {}) => wire.json('DELETE', pathOf(name, 'traffic'), { signal }),
    getToken: (name, { signal } = {}) => wire.json('GET', pathOf(name, 'token'), { signal }),
    rotateToken: (name, { signal } = {}) => wire.json('POST', pathOf(name, 'token'), { signal }),
    readLogs: (name, { signal, ...query } = {}) =>
      Array.fromAsync(wire.lines(pathOf(name, `logs${queryOf(query)}`), { signal })),
    followLogs: (name, { signal, ...query } = {}) =>
      wire.lines(pathOf(name, `logs${queryOf({ ...query, follow: true })}`), { signal }),
  };
}

function invocationRoutes(
  wire: Wire,
  base: string,
): Pick<
  Client,
  | 'listInvocations'
  | 'getInvocation'
  | 'getResult'
  | 'cancelInvocation'
  | 'redriveInvocation'
  | 'getBodies'
  | 'replayInvocation'
> {
  const pathOf = (id: string, rest = '') => `${base}/${encodeURIComponent(id)}${rest}`;
  return {
    listInvocations: ({ signal, ...query } = {}) =>
      wire.json('GET', `${base}${queryOf(query)}`, { signal }),
    getInvocation: (id, { signal, wait } = {}) =>
      wire.json('GET', pathOf(id, queryOf({ wait })), { signal }),
    getResult: (id, { signal, wait } = {}) =>
      wire.result(pathOf(id, `/result${queryOf({ wait })}`), { signal }),
    cancelInvocation: (id, { signal } = {}) => wire.json('POST', pathOf(id, '/cancel'), { signal }),
    redriveInvocation: (id, { signal, version } = {}) =>
      wire.json('POST', pathOf(id, '/redrive'), { signal, json: { version } }),
    getBodies: (id, { signal } = {}) => wire.json('GET', pathOf(id, '/bodies'), { signal }),
    replayInvocation: (id, { signal, version } = {}) =>
      wire.json('POST', pathOf(id, '/replay'), { signal, json: { version } }),
  };
}

function secretRoutes(
  wire: Wire,
  base: string,
): Pick<Client, 'listSecrets' | 'putSecret' | 'removeSecret'> {
  const pathOf = (name: string) => `${base}/${encodeURIComponent(name)}`;
  return {
    listSecrets: ({ signal } = {}) => wire.json('GET', base, { signal }),
    putSecret: (name, value, { signal } = {}) =>
      wire.json('PUT', pathOf(name), { signal, json: { value } }),
    async removeSecret(name, { signal } = {}) {
      await wire.send('DELETE', pathOf(name), { signal });
    },
  };
}

function sourceRoutes(wire: Wire, inside: string): Pick<Client, 'getSource' | 'putSource'> {
  return {
    async getSource(digest, { signal } = {}) {
      try {
        const path = `${inside}/sources/${encodeURIComponent(digest)}`;
        return await wire.json<SourceView>('GET', path, { signal });
      } catch (error) {
        if (isApiError(error) && error.code === 'SOURCE_NOT_FOUND') return undefined;
        throw error;
      }
    },
    putSource: (archive, { signal } = {}) =>
      wire.json('POST', `${inside}/sources`, { signal, archive }),
  };
}

/** `/function/hello@2/orders?page=2`; the namespace is left out where it is `default`. */
export function endpointPath(target: {
  name: string;
  namespace?: string;
  version?: number;
  path?: string;
}): string {
  const { name, namespace = 'default', version, path = '' } = target;
  const space = namespace === 'default' ? '' : `.${encodeURIComponent(namespace)}`;
  const pinned = version === undefined ? '' : `@${version}`;
  const rest = path === '' || path.startsWith('/') || path.startsWith('?') ? path : `/${path}`;
  return `/function/${encodeURIComponent(name)}${space}${pinned}${rest}`;
}
