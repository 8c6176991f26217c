/**
 * The control plane as typed functions over fetch; runs in Node, browsers and inside the gateway's
 * own process. It knows routes and errors, nothing else: no retries, no caching, no reading of
 * files or environment. Every refusal of the gateway is an ApiError with the problem that it sent;
 * so is a gateway that does not answer.
 */
import type {
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
import type { ErrorCode, Problem } from './errors.ts';
import type {
  InvocationOptions,
  InvokeOptions,
  ListOptions,
  LogOptions,
  PutOptions,
  ReadOptions,
} from './options.ts';

export type * from './options.ts';

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

export interface Client {
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
  /** Throws INVOCATION_NOT_FOUND. */
  getInvocation(id: string, options?: ReadOptions): Promise<InvocationView>;
  /** Throws BODIES_NOT_KEPT. */
  getBodies(id: string, options?: ReadOptions): Promise<InvocationBodiesView>;
  /** Calls again with what was kept: the active version, or the one named. */
  replayInvocation(id: string, options?: ReadOptions & { version?: number }): Promise<ReplayView>;

  listSecrets(options?: ReadOptions): Promise<Page<SecretView>>;
  /** Sets a secret, or gives it another value. */
  putSecret(name: string, value: string, options?: ReadOptions): Promise<SecretView>;
  /** Throws SECRET_NOT_FOUND. */
  removeSecret(name: string, options?: ReadOptions): Promise<void>;

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
}

/**
 * What the gateway refused, or that it could not be reached (code GATEWAY_UNREACHABLE). Compare
 * `code`.
 */
export class ApiError extends Error {
  readonly code: ErrorCode;
  readonly status: number;
  readonly problem: Problem;

  constructor(problem: Problem, options?: { cause?: unknown }) {
    super(problem.detail, options);
    this.name = 'ApiError';
    this.code = problem.code;
    this.status = problem.status;
    this.problem = problem;
  }
}

export function isApiError(error: unknown): error is ApiError {
  return error instanceof Error && error.name === 'ApiError' && 'problem' in error;
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
    ...sourceRoutes(wire, inside),
    listRuntimes: ({ signal } = {}) => wire.json('GET', '/v1/runtimes', { signal }),
    getOpenApi: ({ signal } = {}) => wire.json('GET', '/v1/openapi.json', { signal }),
    invoke: (name, call = {}) => wire.invoke(endpointPath({ name, namespace, ...call }), call),
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
): Pick<Client, 'listInvocations' | 'getInvocation' | 'getBodies' | 'replayInvocation'> {
  const pathOf = (id: string, rest = '') => `${base}/${encodeURIComponent(id)}${rest}`;
  return {
    listInvocations: ({ signal, ...query } = {}) =>
      wire.json('GET', `${base}${queryOf(query)}`, { signal }),
    getInvocation: (id, { signal } = {}) => wire.json('GET', pathOf(id), { signal }),
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

interface RequestOptions {
  signal?: AbortSignal | undefined;
  json?: unknown;
  archive?: Uint8Array;
}

/**
 * One gateway at the other end: sends requests and turns what comes back into values or ApiErrors.
 */
class Wire {
  readonly #url: string;
  readonly #token: string | undefined;
  readonly #fetch: Fetch;

  constructor(url: string, options: ClientOptions) {
    this.#url = url;
    this.#token = options.token || undefined;
    // Not a bare reference: browsers refuse a fetch that is called as a method of another object.
    this.#fetch = options.fetch ?? ((address, init) => globalThis.fetch(address, init));
  }

  async json<T>(method: string, path: string, options: RequestOptions): Promise<T> {
    const response = await this.send(method, path, options);
    let text: string;
    try {
      text = await response.text();
    } catch (error) {
      throw this.#unreachable(error, options.signal);
    }
    const value = parseJson(text);
    if (value === undefined) throw this.#notGateway(method, path, response);
    return value as T;
  }

  /** The answer, when it is a success. */
  async send(method: string, path: string, options: RequestOptions): Promise<Response> {
    const headers = new Headers({ accept: 'application/json' });
    let body: BodyInit | undefined;
    if (options.json !== undefined) {
      headers.set('content-type', 'application/json');
      body = JSON.stringify(options.json);
    } else if (options.archive !== undefined) {
      headers.set('content-type', 'application/gzip');
      // The cast: fetch takes any view of bytes, its type only those that are not shared.
      body = options.archive as Uint8Array<ArrayBuffer>;
    }
    const response = await this.#request(path, { method, headers, body, signal: options.signal });
    if (response.ok) return response;
    const problem = asProblem(parseJson(await response.text().catch(() => '')));
    if (problem === undefined) throw this.#notGateway(method, path, response);
    throw new ApiError(problem);
  }

  async invoke(path: string, options: InvokeOptions): Promise<Response> {
    const { body = null, signal, redirect } = options;
    const method = options.method ?? (body === null ? 'GET' : 'POST');
    const init: RequestInit & { duplex?: 'half' } = { method, headers: options.headers, signal };
    if (redirect !== undefined) init.redirect = redirect;
    if (body !== null) {
      init.body = body;
      // What fetch asks for where the length of a body is not known.
      if (body instanceof ReadableStream) init.duplex = 'half';
    }
    return this.#request(path, init);
  }

  /**
   * Newline-delimited JSON, a value a line as it arrives. Empty lines keep the connection alive.
   */
  async *lines(path: string, options: RequestOptions): AsyncGenerator<OutputLineView> {
    const response = await this.send('GET', path, options);
    if (response.body === null) return;
    const reader = response.body.getReader();
    const decoder = new TextDecoder();
    let rest = '';
    try {
      for (;;) {
        const { done, value } = await reader.read().catch(error => {
          throw this.#unreachable(error, options.signal);
        });
        const lines = (rest + decoder.decode(value, { stream: !done })).split('\n');
        rest = done ? '' : lines.pop()!;
        for (const line of lines) {
          if (line.trim() === '') continue;
          const entry = parseJson(line);
          if (entry === undefined) throw this.#notGateway('GET', path, response);
          yield entry as OutputLineView;
        }
        if (done) return;
      }
    } finally {
      // Tells the gateway that nobody listens any more; a stream that has ended ignores it.
      await reader.cancel().catch(() => {});
    }
  }

  async #request(path: string, init: RequestInit): Promise<Response> {
    const headers = new Headers(init.headers);
    if (this.#token !== undefined && !headers.has('authorization')) {
      headers.set('authorization', `Bearer ${this.#token}`);
    }
    try {
      return await this.#fetch(`${this.#url}${path}`, { ...init, headers });
    } catch (error) {
      throw this.#unreachable(error, init.signal ?? undefined);
    }
  }

  /** The error of fetch as ours; an abort stays what it is, because the caller asked for it. */
  #unreachable(error: unknown, signal: AbortSignal | undefined): unknown {
    if (signal?.aborted || isApiError(error)) return error;
    const problem = ownProblem({
      detail: `The gateway at ${this.#url} does not answer: ${causeOf(error)}.`,
      remedy: 'Start it with `fnway up` or `fnway serve`, or name another with --url or FNWAY_URL.',
    });
    return new ApiError(problem, { cause: error });
  }

  #notGateway(method: string, path: string, response: Response): ApiError {
    const route = path.split('?', 1)[0];
    return new ApiError(
      ownProblem({
        detail:
          `${this.#url} answered ${response.status} to ${method} ${route}, ` +
          'and not as a gateway does; something else listens there, or a proxy is in between.',
        remedy: 'Check the address: --url or FNWAY_URL.',
      }),
    );
  }
}

function ownProblem({ detail, remedy }: { detail: string; remedy: string }): Problem {
  return {
    type: 'urn:fnway:error:GATEWAY_UNREACHABLE',
    title: 'The gateway does not answer',
    status: 503,
    code: 'GATEWAY_UNREACHABLE',
    detail,
    remedy,
  };
}

function asProblem(value: unknown): Problem | undefined {
  if (value === null || typeof value !== 'object') return undefined;
  const problem = value as Partial<Problem>;
  const complete =
    typeof problem.code === 'string' &&
    typeof problem.detail === 'string' &&
    typeof problem.status === 'number';
  return complete ? (problem as Problem) : undefined;
}

/** fetch hides the reason in `cause`, and that of several addresses in `errors`. */
function causeOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { cause } = error;
  const inner = cause instanceof AggregateError ? cause.errors[0] : cause;
  const { code, message } = (inner ?? error) as { code?: string; message?: string };
  if (code === 'ECONNREFUSED') return 'nothing listens there (ECONNREFUSED)';
  if (code === 'ENOTFOUND') return 'its host name is not known (ENOTFOUND)';
  return message || code || error.message;
}

function baseOf(url: string): string {
  const parsed = new URL(url);
  if (!/^https?:$/.test(parsed.protocol)) throw new TypeError(`not an http address: ${url}`);
  return `${parsed.origin}${parsed.pathname}`.replace(/\/+$/, '');
}

function queryOf(
  values: Record<string, string | number | boolean | readonly string[] | undefined>,
): string {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(values)) {
    if (value === undefined) continue;
    for (const item of Array.isArray(value) ? value : [value]) query.append(key, String(item));
  }
  const text = query.toString();
  return text === '' ? '' : `?${text}`;
}

/** Undefined when the text is not JSON. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
