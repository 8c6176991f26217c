/**
 * What instances write to standard output and standard error: the last lines of each function, in memory, with
 * followers. Lines longer than the limit are cut and marked; memory per function is bounded.
 */
import { StringDecoder } from 'node:string_decoder';

export const outputLimits = {
  linesMax: 1000,
  lineBytesMax: 16_384,
  /** Of one stream of one instance; beyond, a function that floods its log would slow the others down. */
  linesPerSecondMax: 2000,
} as const;

export interface OutputLine {
  timeMs: number;
  version: number;
  instance: string;
  stream: 'stdout' | 'stderr';
  text: string;
}

const removedMax = 1000;

type Follower = (line: OutputLine) => void;

interface FunctionOutput {
  lines: OutputLine[];
  followers: Set<Follower>;
}

export class OutputLog {
  readonly #functions = new Map<string, FunctionOutput>();
  /** The last ones: their instances are gone within seconds. */
  readonly #removed = new Set<string>();
  readonly #now: () => number;

  constructor(now: () => number) {
    this.#now = now;
  }

  append(functionId: string, line: Omit<OutputLine, 'timeMs'>): void {
    // What instances of a removed function still say is dropped.
    if (this.#removed.has(functionId)) return;
    const output = this.#of(functionId);
    const entry = { timeMs: this.#now(), ...line };
    output.lines.push(entry);
    // Cut in steps: shifting an array on every line would cost more than the line.
    if (output.lines.length > outputLimits.linesMax * 1.25) {
      output.lines = output.lines.slice(-outputLimits.linesMax);
    }
    for (const follow of output.followers) follow(entry);
  }

  /** The last lines, oldest first. */
  tail(functionId: string, options: { linesMax: number; instance?: string }): OutputLine[] {
    const lines = this.#functions.get(functionId)?.lines ?? [];
    const wanted =
      options.instance === undefined ? lines : lines.filter(l => l.instance === options.instance);
    return options.linesMax === 0 ? [] : wanted.slice(-options.linesMax);
  }

  /** Calls `fn` for every line from now on, until the returned function is called. */
  follow(functionId: string, fn: Follower): () => void {
    const output = this.#of(functionId);
    output.followers.add(fn);
    return () => output.followers.delete(fn);
  }

  remove(functionId: string): void {
    this.#functions.delete(functionId);
    this.#removed.add(functionId);
    if (this.#removed.size > removedMax) this.#removed.delete(this.#removed.values().next().value!);
  }

  #of(functionId: string): FunctionOutput {
    let output = this.#functions.get(functionId);
    if (output === undefined) {
      output = { lines: [], followers: new Set() };
      this.#functions.set(functionId, output);
    }
    return output;
  }
}

/** Splits a byte stream into lines of text; a line over the limit is cut and marked. */
export class LineSplitter {
  readonly #onLine: (text: string) => void;
  readonly #monotonicMs: () => number;
  readonly #decoder = new StringDecoder('utf8');
  #second = -1;
  #lines = 0;
  #rest = '';
  #cutting = false;

  constructor(onLine: (text: string) => void, monotonicMs: () => number) {
    this.#onLine = onLine;
    this.#monotonicMs = monotonicMs;
  }

  push(chunk: Buffer): void {
    let at = 0;
    for (let end = chunk.indexOf(10); end !== -1; end = chunk.indexOf(10, at)) {
      if (!this.#hasRoom()) {
        // A flood: the rest of the chunk is not even looked at.
        at = chunk.lastIndexOf(10) + 1;
        this.#rest = '';
        break;
      }
      this.#line(this.#rest + this.#decoder.write(chunk.subarray(at, end)));
      at = end + 1;
    }
    this.#rest += this.#decoder.write(chunk.subarray(at));
    if (this.#rest.length > outputLimits.lineBytesMax) {
      if (!this.#cutting)
        this.#onLine(`${this.#rest.slice(0, outputLimits.lineBytesMax)} … (line cut)`);
      this.#cutting = true;
      this.#rest = '';
    }
  }

  /** Whether another line of this second is taken; says once a second that others were not. */
  #hasRoom(): boolean {
    const second = Math.floor(this.#monotonicMs() / 1000);
    if (second !== this.#second) {
      this.#second = second;
      this.#lines = 0;
    }
    this.#lines++;
    if (this.#lines === outputLimits.linesPerSecondMax + 1) {
      this.#onLine(
        `… (more than ${outputLimits.linesPerSecondMax} lines a second: the rest is left out)`,
      );
    }
    return this.#lines <= outputLimits.linesPerSecondMax;
  }

  end(): void {
    this.#rest += this.#decoder.end();
    if (this.#rest !== '') this.#line(this.#rest);
  }

  #line(text: string): void {
    this.#rest = '';
    if (this.#cutting) {
      this.#cutting = false;
      return;
    }
    const clean = text.endsWith('\r') ? text.slice(0, -1) : text;
    this.#onLine(
      clean.length > outputLimits.lineBytesMax
        ? `${clean.slice(0, outputLimits.lineBytesMax)} … (line cut)`
        : clean,
    );
  }
}
