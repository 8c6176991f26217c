/**
 * `ANY /function/{name}[.{namespace}][@version][/path]`, and `POST /async-function/…`, which accept.ts has: from an HTTP request to a Call and from a Reply to an HTTP
 * answer. Who may call is decided before anything is looked up: unknown name, wrong token and no token get the
 * same 401; only the admin token sees that a function does not exist.
 */
import { parseAuthorization, tokensEqual } from '../auth/token.ts';
import type { Clock } from '../clock.ts';
import type { FunctionEntry, Registry } from '../deploy/registry.ts';
import type { Caller } from '../domain/record.ts';
import { GatewayError, toProblem } from '../errors.ts';
import { newId, newTraceparent } from '../ids.ts';
import {
  type Body,
  CallSignal,
  failedReply,
  type HeaderPairs,
  type Invoke,
  isStream,
  type Reply,
  type Version,
} from '../invoke/invoke.ts';
import type { Log } from '../log.ts';
import type { Slots } from '../slots.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { Accept } from './accept.ts';
import type { Exchange } from './exchange.ts';
import { Reading } from './reading.ts';
import type { Webhooks } from './webhooks.ts';

export interface DataPlaneOptions {
  registry: Registry;
  invoke: Invoke;
  accept: Accept;
  webhooks: Webhooks;
  /** A version for a call that pins one. */
  pinned(entry: FunctionEntry, number: number): Promise<Version>;
  adminToken: string;
  /** Believe X-Forwarded-* of whoever connects: a proxy in front sets them. */
  trustProxy: boolean;
  clock: Clock;
  metrics: Metrics;
  log: Log;
  /** Calls that are running, so that a stop can end those that take too long. */
  inFlight: Slots<CallSignal>;
}

export function createDataPlane(options: DataPlaneOptions): (exchange: Exchange) => void {
  const plane = new DataPlane(options);
  return exchange => plane.serve(exchange);
}

class DataPlane {
  readonly #options: DataPlaneOptions;

  constructor(options: DataPlaneOptions) {
    this.#options = options;
  }

  serve(exchange: Exchange): void {
    try {
      const { head } = exchange;
      const reading = head.reading ?? new Reading(head, this.#options.trustProxy);
      head.reading = reading;
      if (reading.address.isWebhook) return void this.#receive(exchange, reading);
      const { entry, caller } = this.#admit(reading);
      if (reading.address.isAsync) void this.#accept(exchange, reading, entry, caller);
      else if (reading.address.version !== undefined)
        void this.#servePinned(exchange, reading, entry, caller);
      else {
        const version = entry.split?.choose(head.headers) ?? entry.active;
        if (version === undefined) throw notReady(entry);
        this.#call(exchange, reading, version, caller);
      }
    } catch (error) {
      this.#refuse(exchange, error);
    }
  }

  async #receive(exchange: Exchange, reading: Reading): Promise<void> {
    try {
      await this.#options.webhooks.receive(exchange, reading);
    } catch (error) {
      this.#refuse(exchange, error, reading.incoming.callId);
    }
  }

  async #accept(
    exchange: Exchange,
    reading: Reading,
    entry: FunctionEntry,
    caller: Caller,
  ): Promise<void> {
    try {
      const { version: pinned } = reading.address;
      const version = pinned === undefined ? entry.active : await this.#pinned(entry, pinned);
      if (version === undefined) throw notReady(entry);
      await this.#options.accept.accept(exchange, reading, { entry, version, caller });
    } catch (error) {
      this.#refuse(exchange, error, reading.incoming.callId);
    }
  }

  #pinned(entry: FunctionEntry, number: number): Promise<Version> {
    if (Number.isNaN(number))
      throw new GatewayError('VERSION_NOT_FOUND', 'a version is a whole number from 1: NAME@3');
    return this.#options.pinned(entry, number);
  }

  async #servePinned(
    exchange: Exchange,
    reading: Reading,
    entry: FunctionEntry,
    caller: Caller,
  ): Promise<void> {
    try {
      const version = await this.#pinned(entry, reading.address.version!);
      this.#call(exchange, reading, version, caller);
    } catch (error) {
      this.#refuse(exchange, error);
    }
  }

  /** Anew for every request: functions come and go, and tokens with them. */
  #admit({ address, incoming }: Reading): { entry: FunctionEntry; caller: Caller } {
    const { registry, adminToken } = this.#options;
    const entry = registry.get(address.namespace, address.name);
    const token =
      incoming.authorization === undefined ? undefined : parseAuthorization(incoming.authorization);
    const isOpen = entry?.row.settings.auth === 'none';
    // First, for this is what most callers send.
    if (entry !== undefined && !isOpen && token !== undefined && tokensEqual(token, entry.token))
      return { entry, caller: 'function-token' };
    const isAdmin = token !== undefined && tokensEqual(token, adminToken);
    // The admin token never reaches a function, also not one that asks for none.
    if (entry !== undefined && (isAdmin || isOpen))
      return { entry, caller: isAdmin ? 'admin' : 'anonymous' };
    if (isAdmin) {
      throw new GatewayError(
        'FUNCTION_NOT_FOUND',
        `there is no function ${address.name} in the namespace ${address.namespace}`,
      );
    }
    throw new GatewayError(
      'UNAUTHENTICATED',
      'this function needs its token, or there is no such function',
    );
  }

  #call(exchange: Exchange, reading: Reading, version: Version, caller: Caller): void {
    const body = exchange.body();
    if (body instanceof Promise) {
      body.then(
        whole => this.#invoke(exchange, reading, version, { caller, body: whole }),
        error => this.#refuse(exchange, error),
      );
    } else this.#invoke(exchange, reading, version, { caller, body });
  }

  #invoke(
    exchange: Exchange,
    reading: Reading,
    version: Version,
    { caller, body }: { caller: Caller; body: Body },
  ): void {
    const { inFlight, clock } = this.#options;
    if (inFlight.isFull) {
      const detail = `${inFlight.size} calls are running in this gateway`;
      return this.#refuse(
        exchange,
        new GatewayError('FUNCTION_BUSY', detail, { retryAfterMs: 1000 }),
      );
    }
    const signal = new CallSignal();
    const place = inFlight.add(signal);
    exchange.onGone(() => signal.abort(clientLeft));
    const { callId, traceparent } = reading.incoming;
    const id = newId('inv', clock.now());
    const label = callId ?? id;
    const call = {
      id,
      version,
      attempt: 1,
      method: exchange.head.method,
      target: reading.address.rest,
      // A token that was read here is not passed on.
      headers: reading.headersFor(caller !== 'anonymous'),
      ownHeaders: ['X-Call-Id', label, 'Traceparent', traceparent ?? newTraceparent()],
      body,
      origin: 'http' as const,
      caller,
      label: callId,
      parent: undefined,
      deadlineMs: Number.POSITIVE_INFINITY,
      gathering: false,
      instance: undefined,
    };
    let reply: Promise<Reply>;
    try {
      reply = this.#options.invoke(call, signal);
    } catch (error) {
      reply = Promise.reject(error);
    }
    reply.then(
      answer => {
        if (isStream(answer.body)) answer.body.onClose(() => inFlight.remove(place));
        else inFlight.remove(place);
        try {
          this.#answer(exchange, reading, answer, label);
        } catch (error) {
          // A mistake of ours costs one call, never the gateway.
          if (isStream(answer.body)) answer.body.cancel(error as Error);
          this.#refuse(exchange, error, label);
        }
      },
      error => {
        inFlight.remove(place);
        if (isStream(body)) body.cancel(error as Error);
        this.#refuse(exchange, error, label);
      },
    );
  }

  #answer(exchange: Exchange, reading: Reading, reply: Reply, label: string): void {
    if (reply.failure !== undefined) return this.#answerFailure(exchange, reply, label);
    const { status, body } = reply;
    const isCounted = !isStream(body) && (exchange.head.method !== 'HEAD' || body.length > 0);
    const answer = reading.answerHead(reply.headers, isCounted);
    if ('invalid' in answer) return this.#answerInvalid(exchange, reply, label, answer.invalid);
    exchange.respond({
      status,
      headers: answer.headers,
      mayRepeat: reading.remembers(answer),
      ownHeaders: ['X-Call-Id', label],
      body,
    });
  }

  #answerInvalid(exchange: Exchange, reply: Reply, label: string, what: string): void {
    if (isStream(reply.body)) reply.body.cancel(brokenHeader);
    const message = `the function answered with what HTTP cannot carry: ${what}`;
    this.#answerFailure(exchange, failedReply({ reason: 'reply-invalid', message }), label);
  }

  #answerFailure(exchange: Exchange, reply: Reply, label: string): void {
    const failure = reply.failure!;
    const code = failure.reason === 'timeout' ? 'CALL_DEADLINE_EXCEEDED' : 'FUNCTION_FAILED';
    const type = failure.type === undefined ? '' : `${failure.type}: `;
    const place =
      failure.file === undefined
        ? ''
        : ` (${failure.file}${failure.line === undefined ? '' : `:${failure.line}`})`;
    const error = new GatewayError(code, `${type}${failure.message}${place}`, {
      ...(failure.log !== undefined && { log: failure.log }),
    });
    const problem = { ...toProblem(error, label), reason: failure.reason };
    this.#send(exchange, problem, label, ['X-Fnway-Failure', failure.reason]);
  }

  #refuse(exchange: Exchange, error: unknown, label?: string): void {
    const requestId = label ?? newId('req', this.#options.clock.now());
    const problem = toProblem(error, requestId);
    this.#options.metrics.refused(problem.code);
    if (problem.code === 'INTERNAL')
      this.#options.log.error('a request broke the gateway', { requestId, error });
    const headers: string[] = [];
    if (problem.status === 401) headers.push('WWW-Authenticate', 'Bearer');
    if (problem.status === 405) headers.push('Allow', 'POST');
    const retryAfterMs = (error as GatewayError).retryAfterMs;
    if (retryAfterMs !== undefined)
      headers.push('Retry-After', String(Math.ceil(retryAfterMs / 1000)));
    this.#send(exchange, problem, requestId, headers);
  }

  #send(
    exchange: Exchange,
    problem: ReturnType<typeof toProblem>,
    label: string,
    headers: HeaderPairs,
  ): void {
    exchange.respond({
      status: problem.status,
      headers: ['Content-Type', 'application/problem+json', ...headers],
      mayRepeat: false,
      ownHeaders: ['X-Call-Id', label],
      body: Buffer.from(`${JSON.stringify(problem)}\n`),
    });
  }
}

const brokenHeader = new GatewayError(
  'FUNCTION_FAILED',
  'the answer has a header that HTTP cannot carry',
);

const clientLeft = new GatewayError(
  'CALL_CANCELLED',
  'the client left before the answer was complete',
);

function notReady(entry: FunctionEntry): GatewayError {
  return new GatewayError('VERSION_NOT_READY', `no version of ${entry.row.name} is ready yet`, {
    retryAfterMs: 1000,
  });
}
