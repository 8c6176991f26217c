/** An instance that is a linked process: its calls go over the link, its output into the function's log. */

import type { Clock } from '../../clock.ts';
import {
  type Call,
  type CallSignal,
  failedReply,
  type Reply,
  type Version,
} from '../../invoke/invoke.ts';
import { LineSplitter, type OutputLog, readMark } from '../../telemetry/output.ts';
import type { Exit, Instance } from '../driver.ts';
import type { Bound } from './memory.ts';
import type { Linked } from './warm.ts';

/** Lines of output that explain a crash. */
export const crashLinesMax = 20;

export interface LinkInstanceOptions {
  id: string;
  version: Version;
  linked: Linked;
  wholeBodies: boolean;
  clock: Clock;
  /** Its memory's limit, in force since it loads; released by whoever made it. */
  bound: Bound;
  output: OutputLog;
  only: OnlyCall;
}

/** The call that an instance has, while it may have no other: what nobody marked is then this one's. */
export interface OnlyCall {
  id: string | undefined;
}

export class LinkInstance implements Instance {
  readonly id: string;
  readonly wholeBodies: boolean;
  readonly exited: Promise<Exit>;
  readonly #options: LinkInstanceOptions;
  readonly #bound: Bound;
  #alive = true;
  #ending: Exit['reason'] = 'crashed';
  /** The process knows that it is to finish its calls and exit. */
  #told = false;

  constructor(options: LinkInstanceOptions) {
    this.#options = options;
    this.id = options.id;
    this.wholeBodies = options.wholeBodies;
    const { linked, bound } = options;
    this.#bound = bound;
    linked.link.obituary = () => this.#explain();
    this.exited = linked.link.closed.then(async broken => {
      this.#alive = false;
      if (this.#bound.exceeded()) this.#ending = 'out-of-memory';
      // The link is the instance: whatever is left of the process goes with it.
      linked.kill();
      const status = await linked.exited;
      if (broken !== undefined) this.#note(`the instance was ended: ${broken.message}`);
      return { reason: this.#ending, ...(status !== undefined && { status }) };
    });
  }

  get alive(): boolean {
    return this.#alive;
  }

  invoke(call: Call, signal: CallSignal, done: () => void): Promise<Reply> {
    const remainingMs =
      call.deadlineMs === Number.POSITIVE_INFINITY
        ? 0
        : Math.max(1, Math.round(call.deadlineMs - this.#options.clock.monotonicMs()));
    const { link } = this.#options.linked;
    if (this.#options.version.concurrency > 1) return link.call(call, signal, remainingMs, done);
    return this.#callAlone(call, signal, remainingMs, done);
  }

  /** Its place is free only when what it wrote before it ended has been read as well. */
  #callAlone(
    call: Call,
    signal: CallSignal,
    remainingMs: number,
    done: () => void,
  ): Promise<Reply> {
    const { linked, only } = this.#options;
    only.id = call.id;
    let isSent = false;
    const reply = linked.link.call(call, signal, remainingMs, () => {
      const end = () => {
        if (only.id === call.id) only.id = undefined;
        done();
      };
      // All that can be read by now is read in this turn of the event loop.
      if (isSent) setImmediate(end);
      else end();
    });
    isSent = true;
    return reply;
  }

  stop(graceMs: number): Promise<Exit> {
    const { linked, clock } = this.#options;
    this.#alive = false;
    if (this.#ending === 'crashed') this.#ending = 'stopped';
    if (graceMs <= 0) linked.kill();
    else {
      if (!this.#told) linked.link.stop();
      this.#told = true;
      const timer = clock.after(graceMs, () => linked.kill());
      void this.exited.then(() => timer.cancel());
    }
    return this.exited;
  }

  /** What each of the calls that were in it is answered. */
  async #explain(): Promise<(call: string) => Reply> {
    const { output, version, linked } = this.#options;
    if (this.#bound.exceeded()) this.#ending = 'out-of-memory';
    const status = await linked.exited;
    // What another call has written is not for this one's caller.
    const logOf = (call: string) =>
      output
        .tail(version.functionId, { linesMax: crashLinesMax, instance: this.id, call })
        .map(line => line.text);
    if (this.#ending === 'out-of-memory') {
      const message = overLimit(version);
      return call => failedReply({ reason: 'out-of-memory', message, log: logOf(call) });
    }
    const how = status === undefined ? '' : ` (${status})`;
    const message =
      this.#ending === 'stopped'
        ? `the instance was stopped${how}`
        : `the instance ended${how} while it worked on the call`;
    return call =>
      failedReply({
        ...{ reason: 'crashed', message, log: logOf(call) },
        ...(status !== undefined && { exit: status }),
      });
  }

  #note(text: string): void {
    const { output, version } = this.#options;
    output.append(version, {
      version: version.number,
      instance: this.id,
      stream: 'stderr',
      text,
    });
  }
}

/** What is said of an instance that took more memory than it may. */
export function overLimit({ spec }: Version): string {
  return `the instance used more than its ${Math.round(spec.memoryBytes / 1024 ** 2)} MiB of memory`;
}

/** Sends both streams of a linked process to the function's log, line by line, each to the call that wrote it. */
export function captureOutput(
  linked: Linked,
  options: { id: string; version: Version; output: OutputLog; clock: Clock; only: OnlyCall },
): void {
  const { id, version, output, only } = options;
  const splitter = (stream: 'stdout' | 'stderr') =>
    new LineSplitter(
      line => {
        const { call = only.id, text } = readMark(line);
        output.append(version, {
          ...{ version: version.number, instance: id, stream, text },
          ...(call !== undefined && { call }),
        });
      },
      () => options.clock.monotonicMs(),
    );
  const stdout = splitter('stdout');
  const stderr = splitter('stderr');
  linked.output(
    chunk => stdout.push(chunk),
    chunk => stderr.push(chunk),
  );
  void linked.exited.then(() => {
    stdout.end();
    stderr.end();
  });
}
