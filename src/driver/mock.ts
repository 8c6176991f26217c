/**
 * The mock driver: runs nothing, behaves as the function's definition says, and takes its time from the clock that
 * it is given. For tests of everything above the driver port, and for trying a gateway without processes.
 *
 * A version's env steers it; a call's header of the same name (`mock-run-ms: 5`) wins over the env for that call:
 *   MOCK_START_DELAY_MS     start takes this long
 *   MOCK_START_ERROR        start rejects with INSTANCE_NOT_STARTED and this text: the platform's fault
 *   MOCK_LOAD_ERROR         start gives LOAD_FAILED with this text: the user's mistake
 *   MOCK_START_FAILURES     only so many starts of the version fail; the next ones succeed
 *   MOCK_EXIT_AFTER_MS      the instance crashes this long after its start
 *   MOCK_WHOLE_BODIES       `true`: the handler needs request bodies whole
 *   MOCK_RUN_MS             time to the reply's head; `never` gives none
 *   MOCK_REPLY_STATUS       200 unless said
 *   MOCK_REPLY_BODY         text of the reply; `{instance}` is the instance's id
 *   MOCK_ECHO               `true`: the reply's body is the request's, piece by piece
 *   MOCK_STREAM_CHUNKS      the reply is a stream of so many numbered lines; `endless` does not end it
 *   MOCK_STREAM_DELAY_MS    time between two of them
 *   MOCK_BREAK_OFF          `true`: the stream fails in place of its end
 *   MOCK_FAIL               the function fails with `threw` and this text
 *   MOCK_REFUSE             `true`: the call cannot be sent; it is done before `invoke` returns
 *   MOCK_CRASH_AFTER_MS     the instance crashes this long after the call began
 *   MOCK_IGNORE_ABORT       `true`: an aborted call works on until its time is over, as a busy loop does
 */
import { PushedBody } from '../body.ts';
import { type Clock, sleep, type Timer } from '../clock.ts';
import { definitionDefaults } from '../domain/function.ts';
import { GatewayError } from '../errors.ts';
import { newId } from '../ids.ts';
import {
  type Call,
  type CallSignal,
  emptyBody,
  failedReply,
  isStream,
  type Reply,
  type Version,
} from '../invoke/invoke.ts';
import type { Driver, Exit, Instance, Started } from './driver.ts';

export interface MockDriver extends Driver {
  /** Instances that have not ended, oldest first. */
  readonly instances: ReadonlySet<MockInstance>;
  /** How often `start` was called. */
  readonly starts: number;
}

export interface MockDriverOptions {
  clock: Clock;
  /** Which versions it runs; all of them unless said. */
  runs?: (version: Version) => boolean;
}

export function createMockDriver(options: MockDriverOptions): MockDriver {
  return new Mock(options);
}

class Mock implements MockDriver {
  readonly instances = new Set<MockInstance>();
  starts = 0;
  readonly #options: MockDriverOptions;
  readonly #failures = new Map<Version, number>();
  #closed = false;

  constructor(options: MockDriverOptions) {
    this.#options = options;
  }

  runs(version: Version): boolean {
    return this.#options.runs?.(version) ?? true;
  }

  async start(version: Version): Promise<Started> {
    this.starts++;
    const { clock } = this.#options;
    const { env } = version.spec;
    if (env.MOCK_START_DELAY_MS !== undefined) await sleep(clock, Number(env.MOCK_START_DELAY_MS));
    if (this.#closed) throw new GatewayError('INSTANCE_NOT_STARTED', 'the driver is closed');
    if (this.#failsNow(version)) {
      if (env.MOCK_START_ERROR !== undefined)
        throw new GatewayError('INSTANCE_NOT_STARTED', env.MOCK_START_ERROR);
      return { ok: false, failure: { code: 'LOAD_FAILED', message: env.MOCK_LOAD_ERROR! } };
    }
    const instance = new MockInstance(version, clock);
    this.instances.add(instance);
    void instance.exited.then(() => this.instances.delete(instance));
    return { ok: true, instance };
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.instances].map(instance => instance.kill('stopped')));
  }

  #failsNow(version: Version): boolean {
    const { env } = version.spec;
    if (env.MOCK_START_ERROR === undefined && env.MOCK_LOAD_ERROR === undefined) return false;
    const failed = this.#failures.get(version) ?? 0;
    this.#failures.set(version, failed + 1);
    return failed < Number(env.MOCK_START_FAILURES ?? Number.POSITIVE_INFINITY);
  }
}

export class MockInstance implements Instance {
  readonly id: string;
  readonly version: Version;
  readonly wholeBodies: boolean;
  readonly exited: Promise<Exit>;
  readonly #clock: Clock;
  readonly #calls = new Set<MockCall>();
  readonly #ownEnd: Timer | undefined;
  #onExit!: (exit: Exit) => void;
  alive = true;
  #over = false;

  constructor(version: Version, clock: Clock) {
    const { env } = version.spec;
    this.id = newId('ins', clock.now());
    this.version = version;
    this.wholeBodies = env.MOCK_WHOLE_BODIES === 'true';
    this.#clock = clock;
    this.exited = new Promise(resolve => {
      this.#onExit = resolve;
    });
    if (env.MOCK_EXIT_AFTER_MS !== undefined)
      this.#ownEnd = clock.after(Number(env.MOCK_EXIT_AFTER_MS), () => void this.kill('crashed'));
  }

  /** Calls that the instance works on, aborted ones included. */
  /** A call in it has timed out and works on: the pool gives it no other. */
  get isLate(): boolean {
    return [...this.#calls].some(call => call.isLate);
  }

  get inFlight(): number {
    return this.#calls.size;
  }

  invoke(call: Call, signal: CallSignal, done: () => void): Promise<Reply> {
    if (this.#over) {
      done();
      return Promise.reject(new GatewayError('INSTANCE_NOT_STARTED', 'the instance has ended'));
    }
    if (settingOf(call, 'REFUSE') === 'true') {
      done();
      return Promise.reject(new GatewayError('HEADERS_TOO_LARGE', 'the call cannot be sent'));
    }
    const running = new MockCall({ instance: this, clock: this.#clock, call, signal }, () => {
      this.#calls.delete(running);
      done();
      if (!this.alive && this.#calls.size === 0) void this.kill('stopped');
    });
    this.#calls.add(running);
    return running.reply();
  }

  stop(graceMs: number): Promise<Exit> {
    this.alive = false;
    if (graceMs <= 0 || this.#calls.size === 0) return this.kill('stopped');
    const grace = this.#clock.after(graceMs, () => void this.kill('stopped'));
    void this.exited.then(() => grace.cancel());
    return this.exited;
  }

  /** Ends the instance now, with every call in it. */
  kill(reason: Exit['reason']): Promise<Exit> {
    if (this.#over) return this.exited;
    this.#over = true;
    this.alive = false;
    this.#ownEnd?.cancel();
    for (const call of [...this.#calls]) call.lose();
    this.#onExit({ status: reason === 'stopped' ? 'status 0' : 'signal SIGKILL', reason });
    return this.exited;
  }
}

interface MockCallOptions {
  instance: MockInstance;
  clock: Clock;
  call: Call;
  signal: CallSignal;
}

/** One call. Ends once: with its answer, its failure, its abort, or the instance's end. */
class MockCall {
  readonly #options: MockCallOptions;
  readonly #onEnd: () => void;
  readonly #ending = new AbortController();
  #body: PushedBody | undefined;
  #resolve!: (reply: Reply) => void;
  #reject!: (error: Error) => void;
  #over = false;

  constructor(options: MockCallOptions, onEnd: () => void) {
    this.#options = options;
    this.#onEnd = onEnd;
  }

  get isLate(): boolean {
    return this.#options.signal.reason?.code === 'CALL_DEADLINE_EXCEEDED';
  }

  reply(): Promise<Reply> {
    const { signal, clock, instance } = this.#options;
    const crashAfterMs = this.#setting('CRASH_AFTER_MS');
    if (crashAfterMs !== undefined) {
      const timer = clock.after(Number(crashAfterMs), () => void instance.kill('crashed'));
      this.#ending.signal.addEventListener('abort', () => timer.cancel());
    }
    return new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
      void this.#run().catch(error => this.#abort(error));
      signal.onAbort(reason => this.#abort(reason));
    });
  }

  /** The instance has ended. */
  lose(): void {
    const message = 'the instance ended while it worked on the call';
    const exit = 'signal SIGKILL';
    this.#end();
    this.#resolve(failedReply({ reason: 'crashed', message, exit }));
    this.#body?.fail(new GatewayError('FUNCTION_FAILED', message));
  }

  async #run(): Promise<void> {
    const { instance } = this.#options;
    await this.#pass(this.#setting('RUN_MS'));
    const status = Number(this.#setting('REPLY_STATUS') ?? 200);
    const failure = this.#setting('FAIL');
    if (failure !== undefined)
      return this.#finish(failedReply({ reason: 'threw', message: failure }));
    const headers = ['content-type', 'text/plain', 'x-instance', instance.id];
    const isStreamed = this.#setting('STREAM_CHUNKS') !== undefined;
    if (!isStreamed && this.#setting('ECHO') !== 'true') {
      const text = this.#setting('REPLY_BODY') ?? '';
      const body = Buffer.from(text.replaceAll('{instance}', instance.id));
      return this.#finish({ status, headers, body: body.length === 0 ? emptyBody : body });
    }
    const body = new PushedBody({ onRead() {}, onCancel: reason => this.#giveUp(reason) });
    this.#body = body;
    this.#resolve({ status, headers, body });
    await (isStreamed ? this.#sendLines(body) : this.#sendRequest(body));
    this.#end();
    if (this.#setting('BREAK_OFF') === 'true')
      body.fail(new GatewayError('FUNCTION_FAILED', 'the function broke off its answer'));
    else body.end();
  }

  async #sendLines(body: PushedBody): Promise<void> {
    const wanted = this.#setting('STREAM_CHUNKS')!;
    const count = wanted === 'endless' ? Number.POSITIVE_INFINITY : Number(wanted);
    const delayMs = this.#setting('STREAM_DELAY_MS') ?? (wanted === 'endless' ? '10' : undefined);
    for (let n = 1; n <= count && !this.#over; n++) {
      if (n > 1) await this.#pass(delayMs);
      body.push(Buffer.from(`chunk ${n}\n`));
    }
  }

  async #sendRequest(body: PushedBody): Promise<void> {
    const request = this.#options.call.body;
    if (isStream(request)) for await (const chunk of request) body.push(chunk);
    else body.push(request);
  }

  /** Rejects when the call is over meanwhile. */
  async #pass(delay: string | undefined): Promise<void> {
    if (delay === undefined) return;
    const { signal } = this.#ending;
    if (delay !== 'never') return sleep(this.#options.clock, Number(delay), signal);
    await new Promise((_, reject) => signal.addEventListener('abort', reject, { once: true }));
  }

  #abort(reason: Error): void {
    if (this.#over) return;
    this.#reject(reason);
    this.#giveUp(reason);
    this.#body?.fail(reason);
  }

  /** Nobody waits for the answer any more. */
  #giveUp(reason: Error): void {
    const { body } = this.#options.call;
    if (isStream(body)) body.cancel(reason);
    // Later, as a process would: whoever aborts a call does not find it gone at once.
    if (this.#setting('IGNORE_ABORT') !== 'true') queueMicrotask(() => this.#end());
  }

  #finish(reply: Reply): void {
    this.#end();
    this.#resolve(reply);
  }

  #end(): void {
    if (this.#over) return;
    this.#over = true;
    this.#ending.abort();
    this.#onEnd();
  }

  #setting(name: string): string | undefined {
    return settingOf(this.#options.call, name);
  }
}

function settingOf({ headers, version }: Call, name: string): string | undefined {
  const header = `mock-${name.toLowerCase().replaceAll('_', '-')}`;
  for (let i = 0; i < headers.length; i += 2) if (headers[i] === header) return headers[i + 1];
  return version.spec.env[`MOCK_${name}`];
}

let versionNumber = 0;

/** A version that the mock driver runs as `env` says. */
export function mockVersion(
  env: Record<string, string> = {},
  parts: {
    concurrency?: number;
    min?: number;
    max?: number;
    idleMs?: number;
    timeoutMs?: number;
  } = {},
): Version {
  const { concurrency = 1, min = 0, max = 4, idleMs = 10_000, timeoutMs = 60_000 } = parts;
  return {
    functionId: 'fn_mock',
    namespace: 'default',
    name: 'mock',
    number: ++versionNumber,
    concurrency,
    spec: {
      kind: 'script',
      env,
      buildEnv: {},
      timeoutMs,
      memoryBytes: definitionDefaults.memoryBytes,
      stream: false,
      allowScripts: false,
    },
    settings: {
      auth: 'none',
      concurrency,
      instances: { min, max, idleMs },
      labels: {},
      description: '',
    },
  };
}

/** A call to a version. */
export function mockCall(
  version: Version,
  parts: Partial<Pick<Call, 'id' | 'method' | 'target' | 'headers' | 'ownHeaders' | 'body'>> = {},
): Call {
  return {
    id: 'call_mock',
    version,
    attempt: 1,
    method: 'POST',
    target: '/',
    headers: [],
    ownHeaders: [],
    body: emptyBody,
    origin: 'http',
    caller: 'admin',
    label: undefined,
    parent: undefined,
    deadlineMs: Number.POSITIVE_INFINITY,
    gathering: false,
    instance: undefined,
    ...parts,
  };
}
