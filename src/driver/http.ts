/**
 * The http driver: a function that is a server which already runs. One instance stands for the server; calls go
 * to it over kept-alive connections. The path and query of a call are appended to the address.
 */
import type { Dispatcher, Pool as UndiciPool } from 'undici';
import { PushedBody } from '../body.ts';
import type { Clock } from '../clock.ts';
import { GatewayError, isGatewayError } from '../errors.ts';
import { newId } from '../ids.ts';
import {
  type Call,
  type CallSignal,
  type HeaderPairs,
  isStream,
  type Reply,
  type Version,
} from '../invoke/invoke.ts';
import type { Driver, Exit, Instance, Started } from './driver.ts';
import { OperationInstance } from './http-operation.ts';

/** Kept-alive connections to one server. */
const connectionsMax = 128;

export function createHttpDriver(options: { clock: Clock }): Driver {
  const instances = new Set<HttpInstance>();
  return {
    runs: version => version.spec.kind === 'http',
    async start(version: Version): Promise<Started> {
      // Loaded when the first such function is called: it costs the gateway 20 MiB.
      const { Pool } = await import('undici');
      const url = new URL(version.spec.url!);
      const pool = new Pool(url.origin, {
        connections: connectionsMax,
        headersTimeout: 0,
        bodyTimeout: 0,
        pipelining: 1,
      });
      const instance = new HttpInstance(url, pool, options.clock);
      instances.add(instance);
      void instance.exited.then(() => instances.delete(instance));
      const isOperation = version.spec.convention === 'operation';
      return { ok: true, instance: isOperation ? new OperationInstance(instance) : instance };
    },
    async close() {
      await Promise.all([...instances].map(instance => instance.stop(0)));
    },
  };
}

class HttpInstance implements Instance {
  readonly id: string;
  readonly wholeBodies = false;
  readonly exited: Promise<Exit>;
  readonly #url: URL;
  readonly #pool: UndiciPool;
  readonly #clock: Clock;
  #alive = true;
  #onExit!: (exit: Exit) => void;

  constructor(url: URL, pool: UndiciPool, clock: Clock) {
    this.id = newId('ins', clock.now());
    this.#clock = clock;
    this.#url = url;
    this.#pool = pool;
    this.exited = new Promise(resolve => {
      this.#onExit = resolve;
    });
  }

  get alive(): boolean {
    return this.#alive;
  }

  invoke(call: Call, signal: CallSignal, done: () => void): Promise<Reply> {
    return new Promise((resolve, reject) => {
      const exchange = new Exchange(this.#url.origin, { resolve, reject, done });
      signal.onAbort(reason => exchange.abort(reason));
      this.#pool.dispatch(
        {
          path: this.#pathOf(call),
          method: call.method as Dispatcher.HttpMethod,
          headers: [...forwarded(call.headers), ...call.ownHeaders],
          body: isStream(call.body)
            ? (call.body as unknown as Dispatcher.DispatchOptions['body'])
            : call.body.length > 0
              ? call.body
              : null,
        },
        exchange,
      );
    });
  }

  stop(graceMs: number): Promise<Exit> {
    if (this.#alive) {
      this.#alive = false;
      void this.#pool.close().then(() => this.#onExit({ reason: 'stopped' }));
    }
    const destroy = () => {
      void this.#pool.destroy().then(() => this.#onExit({ reason: 'stopped' }));
    };
    if (graceMs > 0) {
      const cut = this.#clock.after(graceMs, destroy);
      void this.exited.then(() => cut.cancel());
    } else destroy();
    return this.exited;
  }

  #pathOf(call: Call): string {
    const base = this.#url.pathname.endsWith('/')
      ? this.#url.pathname.slice(0, -1)
      : this.#url.pathname;
    const mark = call.target.indexOf('?');
    const path = mark === -1 ? call.target : call.target.slice(0, mark);
    const query = [this.#url.search.slice(1), mark === -1 ? '' : call.target.slice(mark + 1)]
      .filter(part => part !== '')
      .join('&');
    const whole = path === '/' ? base || '/' : base + path;
    return query === '' ? whole : `${whole}?${query}`;
  }
}

/** The server's own name is the host it is called by; the client's is in X-Forwarded-Host. */
function forwarded(headers: HeaderPairs): string[] {
  const kept: string[] = [];
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i]!.toLowerCase();
    if (name === 'host' || name === 'expect') continue;
    kept.push(headers[i]!, headers[i + 1]!);
  }
  return kept;
}

interface Settle {
  resolve(reply: Reply): void;
  reject(error: Error): void;
  done(): void;
}

/** One request to the server; undici calls the `on…` methods. */
class Exchange implements Dispatcher.DispatchHandler {
  readonly #origin: string;
  readonly #settle: Settle;
  #controller: Dispatcher.DispatchController | undefined;
  #reason: GatewayError | undefined;
  #body: PushedBody | undefined;
  #over = false;

  constructor(origin: string, settle: Settle) {
    this.#origin = origin;
    this.#settle = settle;
  }

  abort(reason: GatewayError): void {
    if (this.#over) return;
    this.#reason = reason;
    this.#settle.reject(reason);
    this.#body?.fail(reason);
    this.#controller?.abort(reason);
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#reason !== undefined) controller.abort(this.#reason);
  }

  onResponseStart(controller: Dispatcher.DispatchController, status: number): void {
    if (status < 200) return;
    const headers: HeaderPairs =
      (controller.rawHeaders as Buffer[] | undefined)?.map(part => part.toString('latin1')) ?? [];
    this.#body = new PushedBody({
      onRead: () => controller.resume(),
      onCancel: reason => controller.abort(reason),
    });
    this.#settle.resolve({ status, headers, body: this.#body });
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    // undici may deliver nothing when it resumes: pausing for that would be for ever.
    if (chunk.length === 0) return;
    controller.pause();
    this.#body?.push(chunk);
  }

  onResponseEnd(): void {
    this.#finish();
    this.#body?.end();
  }

  onResponseError(_controller: Dispatcher.DispatchController, cause: Error): void {
    this.#finish();
    // A request body that broke off is the caller's doing, not the server's.
    const own = isGatewayError(cause) ? cause : undefined;
    const error =
      this.#reason ??
      own ??
      new GatewayError(
        'UPSTREAM_UNREACHABLE',
        `${this.#origin} does not answer: ${cause.message}`,
        { cause },
      );
    this.#settle.reject(error);
    this.#body?.fail(error);
  }

  #finish(): void {
    if (this.#over) return;
    this.#over = true;
    this.#settle.done();
  }
}
