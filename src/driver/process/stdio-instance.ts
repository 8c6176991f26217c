/**
 * An instance of a `stdio` runtime: nothing runs between calls, each call is one process. The request body goes to
 * its standard input, its standard output is the reply, and an exit status other than 0 is a failure of the
 * function. The request's head is in the environment, in the names of CGI (RFC 3875).
 */

import { type BodyStream, collect, drained, PushedBody } from '../../body.ts';
import type { Clock } from '../../clock.ts';
import { argumentsOf, isAllowedExit, scriptResult } from '../../domain/operation.ts';
import { GatewayError } from '../../errors.ts';
import {
  type Call,
  type CallSignal,
  failedReply,
  isStream,
  type Reply,
  type Version,
} from '../../invoke/invoke.ts';
import { LineSplitter, type OutputLog } from '../../telemetry/output.ts';
import type { Exit, Instance } from '../driver.ts';
import { type Child, startChild } from './child.ts';
import type { Keeper } from './keeper.ts';
import type { Bound, MemoryLimits } from './memory.ts';
import type { Users } from './users.ts';

export interface StdioInstanceOptions {
  id: string;
  version: Version;
  command: string[];
  env: Record<string, string>;
  cwd: string;
  clock: Clock;
  keeper: Keeper;
  memory: MemoryLimits;
  users: Users;
  output: OutputLog;
  /** Takes the function's secrets out of a text. */
  hide(text: string): string;
  bufferedBodyBytesMax: number;
}

const stderrTailBytes = 2000;

export class StdioInstance implements Instance {
  readonly id: string;
  readonly wholeBodies = true;
  readonly exited: Promise<Exit>;
  readonly #options: StdioInstanceOptions;
  readonly #children = new Set<Child>();
  #alive = true;
  #onExit!: (exit: Exit) => void;

  constructor(options: StdioInstanceOptions) {
    this.#options = options;
    this.id = options.id;
    this.exited = new Promise(resolve => {
      this.#onExit = resolve;
    });
  }

  get alive(): boolean {
    return this.#alive;
  }

  async invoke(call: Call, signal: CallSignal, done: () => void): Promise<Reply> {
    const { users, version } = this.#options;
    const uid = version.files?.identity?.uid;
    const release = uid === undefined ? undefined : users.hold(uid);
    let child: Child;
    try {
      if (!this.#alive) throw new GatewayError('INSTANCE_NOT_STARTED', 'the instance has ended');
      const args = await this.#argumentsOf(call);
      if (signal.reason !== undefined) throw signal.reason;
      child = await this.#start(call, args);
    } catch (error) {
      release?.();
      done();
      throw error;
    }
    const run = new Run(this.#options, child, call, signal);
    if (!this.#alive && this.#children.size === 0) child.kill();
    this.#children.add(child);
    void child.exited.then(() => {
      this.#children.delete(child);
      // With the last call of a function goes what its calls left behind.
      release?.();
      if (!this.#alive && this.#children.size === 0) this.#onExit({ reason: 'stopped' });
      done();
    });
    return run.reply();
  }

  stop(graceMs: number): Promise<Exit> {
    this.#alive = false;
    if (this.#children.size === 0) this.#onExit({ reason: 'stopped' });
    if (graceMs <= 0) for (const child of this.#children) child.kill();
    else {
      const timer = this.#options.clock.after(graceMs, () => {
        for (const child of this.#children) child.kill();
      });
      void this.exited.then(() => timer.cancel());
    }
    return this.exited;
  }

  /** They are words of their own to the script, whatever is in them: no shell reads them. */
  async #argumentsOf(call: Call): Promise<readonly string[]> {
    const { spec } = this.#options.version;
    if (spec.argKeys === undefined) return spec.args ?? [];
    if (isStream(call.body)) call.body = await this.#whole(call.body);
    return argumentsOf(spec, call.body);
  }

  async #whole(body: BodyStream): Promise<Uint8Array> {
    const { bufferedBodyBytesMax } = this.#options;
    const whole = await collect(body, bufferedBodyBytesMax);
    if (whole !== undefined) return whole;
    const detail = `the body is longer than ${bufferedBodyBytesMax} bytes`;
    throw new GatewayError('BODY_TOO_LARGE', detail);
  }

  #start(call: Call, args: readonly string[]): Promise<Child> {
    const { version, command, env, cwd, keeper, clock } = this.#options;
    const identity = version.files?.identity;
    return startChild({
      command: args.length === 0 ? command : [...command, ...args],
      env: { ...cgiEnvironment(call), ...env },
      cwd,
      keeper,
      clock,
      stdin: 'pipe',
      ...(identity !== undefined && { identity }),
    });
  }
}

/** One process of one call. */
class Run {
  readonly #options: StdioInstanceOptions;
  readonly #child: Child;
  readonly #call: Call;
  readonly #signal: CallSignal;
  readonly #bound: Bound;
  #stderrTail = '';
  #outOfMemory = false;
  #tooLarge = false;
  /** Why the request's body broke off. */
  #bodyError: Error | undefined;

  constructor(options: StdioInstanceOptions, child: Child, call: Call, signal: CallSignal) {
    this.#options = options;
    this.#child = child;
    this.#call = call;
    this.#signal = signal;
    this.#bound = options.memory.bound({
      pid: child.pid,
      memoryBytes: options.version.spec.memoryBytes,
      onOverLimit: () => child.kill(),
    });
    void child.exited.then(() => {
      this.#outOfMemory = this.#bound.exceeded();
      this.#bound.release();
    });
    signal.onAbort(() => child.kill());
    this.#captureStderr();
    void this.#sendBody();
  }

  reply(): Promise<Reply> {
    return this.#options.version.spec.stream ? this.#streamedReply() : this.#wholeReply();
  }

  async #wholeReply(): Promise<Reply> {
    const { spec } = this.#options.version;
    const chunks: Buffer[] = [];
    let bytes = 0;
    let overflow = false;
    const keep = (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > this.#options.bufferedBodyBytesMax) {
        overflow = true;
        this.#child.kill();
      } else chunks.push(chunk);
    };
    this.#child.stdout.on('data', keep);
    // A result has both, as they came.
    if (spec.result !== undefined) this.#child.stderr.on('data', keep);
    const status = await this.#child.exited;
    if (overflow) {
      return failedReply({
        reason: 'reply-invalid',
        message: `the script wrote more than ${this.#options.bufferedBodyBytesMax} bytes; set stream: true for long answers`,
      });
    }
    const failure = this.#failure(status);
    if (failure !== undefined) return failedReply(failure);
    const body = Buffer.concat(chunks);
    const headers = status === 'status 0' ? [] : ['x-exit-status', status.slice('status '.length)];
    if (spec.result === undefined)
      return { status: 200, headers: ['content-type', contentTypeOf(body), ...headers], body };
    const result = Buffer.from(scriptResult(spec.result, { output: body.toString(), status }));
    return { status: 200, headers: ['content-type', 'application/json', ...headers], body: result };
  }

  async #streamedReply(): Promise<Reply> {
    const { stdout } = this.#child;
    const body = new PushedBody({
      onRead: () => stdout.resume(),
      onCancel: () => this.#child.kill(),
    });
    stdout.on('data', (chunk: Buffer) => {
      stdout.pause();
      body.push(chunk);
    });
    const ended = new Promise<void>(resolve => stdout.once('end', resolve));
    const first = await Promise.race([
      new Promise<'data'>(resolve => stdout.once('data', () => resolve('data'))),
      this.#child.exited,
    ]);
    if (first !== 'data') {
      const failure = this.#failure(first);
      if (failure !== undefined) return failedReply(failure);
    }
    void this.#child.exited.then(async status => {
      stdout.resume();
      await Promise.race([ended, new Promise<void>(resolve => stdout.once('close', resolve))]);
      if (this.#signal.reason !== undefined) body.fail(this.#signal.reason);
      else if (!isAllowedExit(this.#options.version.spec, status))
        body.fail(new GatewayError('FUNCTION_FAILED', `the script ended with ${status}`));
      else body.end();
    });
    return { status: 200, headers: ['content-type', 'application/octet-stream'], body };
  }

  /** Throws what is not the function's doing. */
  #failure(status: string) {
    if (this.#tooLarge) {
      throw new GatewayError(
        'BODY_TOO_LARGE',
        `the body is longer than ${this.#options.bufferedBodyBytesMax} bytes`,
      );
    }
    if (this.#signal.reason !== undefined) throw this.#signal.reason;
    if (this.#bodyError !== undefined) throw this.#bodyError;
    if (this.#outOfMemory) {
      const mebibytes = Math.round(this.#options.version.spec.memoryBytes / 1024 ** 2);
      return {
        reason: 'out-of-memory' as const,
        message: `the script used more than its ${mebibytes} MiB of memory`,
      };
    }
    if (isAllowedExit(this.#options.version.spec, status)) return undefined;
    const log = this.#stderrTail
      .trim()
      .split('\n')
      .filter(line => line !== '');
    const reason = status.startsWith('signal') ? ('crashed' as const) : ('exit' as const);
    return { reason, message: `the script ended with ${status}`, exit: status, log };
  }

  #captureStderr(): void {
    const { output, version, id, clock } = this.#options;
    const place = { version: version.number, instance: id, stream: 'stderr' as const };
    const lines = new LineSplitter(
      text => output.append(version, { ...place, call: this.#call.id, text }),
      () => clock.monotonicMs(),
    );
    this.#child.stderr.on('data', (chunk: Buffer) => {
      // Hidden before it is cut: half a secret is one too.
      const text = this.#options.hide(this.#stderrTail + chunk.toString('utf8'));
      this.#stderrTail = text.slice(-stderrTailBytes);
      lines.push(chunk);
    });
    void this.#child.exited.then(() => lines.end());
  }

  async #sendBody(): Promise<void> {
    const stdin = this.#child.stdin!;
    const body = this.#call.body;
    if (!isStream(body)) {
      stdin.end(body);
      return;
    }
    let bytes = 0;
    try {
      for await (const chunk of body) {
        bytes += chunk.length;
        if (bytes > this.#options.bufferedBodyBytesMax) {
          this.#tooLarge = true;
          this.#child.kill();
          return;
        }
        // A script may end without reading its input; that is its right.
        if (stdin.destroyed) return;
        if (!stdin.write(chunk)) {
          await drained(stdin);
        }
      }
      stdin.end();
    } catch (error) {
      this.#bodyError = error as Error;
      this.#child.kill();
    }
  }
}

function contentTypeOf(body: Buffer): string {
  try {
    new TextDecoder('utf-8', { fatal: true }).decode(body);
    return 'text/plain; charset=utf-8';
  } catch {
    return 'application/octet-stream';
  }
}

/** The request's head as CGI variables. `Proxy` is left out: HTTP_PROXY would steer the script's own requests. */
function cgiEnvironment(call: Call): Record<string, string> {
  const mark = call.target.indexOf('?');
  const env: Record<string, string> = {
    GATEWAY_INTERFACE: 'CGI/1.1',
    REQUEST_METHOD: call.method,
    PATH_INFO: mark === -1 ? call.target : call.target.slice(0, mark),
    QUERY_STRING: mark === -1 ? '' : call.target.slice(mark + 1),
    FNWAY_CALL_ID: call.id,
  };
  const headers = [...call.headers, ...call.ownHeaders];
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i]!.toUpperCase().replaceAll('-', '_');
    const value = headers[i + 1]!;
    if (name === 'PROXY') continue;
    const key = name === 'CONTENT_TYPE' || name === 'CONTENT_LENGTH' ? name : `HTTP_${name}`;
    env[key] = key in env ? `${env[key]}, ${value}` : value;
  }
  return env;
}
