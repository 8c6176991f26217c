/** How a client speaks to its gateway: requests out, values or ApiErrors back. */
import type { ClientOptions, Fetch } from './client.ts';
import type { ErrorCode, Problem } from './errors.ts';
import type { InvokeOptions } from './options.ts';

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

export interface RequestOptions {
  signal?: AbortSignal | undefined;
  json?: unknown;
  archive?: Uint8Array;
}

/**
 * One gateway at the other end: sends requests and turns what comes back into values or ApiErrors.
 */
export class Wire {
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
    throw await this.#refusal(response, method, path);
  }

  /** What the function answered, with whatever status; what the gateway says instead is thrown. */
  async result(path: string, { signal }: RequestOptions): Promise<Response> {
    const response = await this.#request(path, { method: 'GET', signal: signal ?? null });
    if (response.headers.has('x-function-status') || response.status === 202) return response;
    throw await this.#refusal(response, 'GET', path);
  }

  /** The body of a success. */
  async valueOf<T>(response: Response, method: string, path: string): Promise<T> {
    if (!response.ok) throw await this.#refusal(response, method, path);
    return (await response.json()) as T;
  }

  async #refusal(response: Response, method: string, path: string): Promise<ApiError> {
    const problem = asProblem(parseJson(await response.text().catch(() => '')));
    return problem === undefined ? this.#notGateway(method, path, response) : new ApiError(problem);
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
  async *lines<T>(path: string, options: RequestOptions): AsyncGenerator<T> {
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
          yield entry as T;
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

export function baseOf(url: string): string {
  const parsed = new URL(url);
  if (!/^https?:$/.test(parsed.protocol)) throw new TypeError(`not an http address: ${url}`);
  return `${parsed.origin}${parsed.pathname}`.replace(/\/+$/, '');
}

export function queryOf(
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
