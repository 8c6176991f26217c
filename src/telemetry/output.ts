/**
 * What instances write to standard output and standard error: the last lines of each function, in memory, with
 * followers. Lines longer than the limit are cut and marked; memory is bounded per function and in all.
 */
import { StringDecoder } from 'node:string_decoder';

export const outputLimits = {
  linesMax: 1000,
  lineCharsMax: 16_384,
  /** Of the lines that are kept of one function. */
  keptBytesMax: 512 * 1024,
  /** Of all functions: beyond, those that have written nothing for longest lose their lines. */
  keptBytesTotalMax: 16 * 1024 ** 2,
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

export interface Follower {
  onLine(line: OutputLine): void;
  /** The function was removed: nothing comes any more. */
  onEnd(): void;
}

interface FunctionOutput {
  lines: OutputLine[];
  bytes: number;
}

export class OutputLog {
  /** Those that wrote last are last. */
  readonly #functions = new Map<string, FunctionOutput>();
  readonly #followers = new Map<string, Set<Follower>>();
  /** The last ones: their instances are gone within seconds. */
  readonly #removed = new Set<string>();
  readonly #now: () => number;
  #bytes = 0;

  constructor(now: () => number) {
    this.#now = now;
  }

  append(functionId: string, line: Omit<OutputLine, 'timeMs'>): void {
    // What instances of a removed function still say is dropped.
    if (this.#removed.has(functionId)) return;
    const entry = { timeMs: this.#now(), ...line };
    const output = this.#functions.get(functionId) ?? { lines: [], bytes: 0 };
    this.#functions.delete(functionId);
    this.#functions.set(functionId, output);
    output.lines.push(entry);
    output.bytes += sizeOf(entry);
    this.#bytes += sizeOf(entry);
    // Cut in steps: shifting an array on every line would cost more than the line.
    const { linesMax, keptBytesMax, keptBytesTotalMax } = outputLimits;
    if (output.lines.length > linesMax * 1.25 || output.bytes > keptBytesMax * 1.25) {
      this.#bytes -= cut(output);
    }
    for (const [id, oldest] of this.#functions) {
      if (this.#bytes <= keptBytesTotalMax || oldest === output) break;
      this.#functions.delete(id);
      this.#bytes -= oldest.bytes;
    }
    const followers = this.#followers.get(functionId);
    if (followers !== undefined) for (const { onLine } of followers) onLine(entry);
  }

  /** The last lines, oldest first. */
  tail(functionId: string, options: { linesMax: number; instance?: string }): OutputLine[] {
    const lines = this.#functions.get(functionId)?.lines ?? [];
    const wanted =
      options.instance === undefined ? lines : lines.filter(l => l.instance === options.instance);
    return options.linesMax === 0 ? [] : wanted.slice(-options.linesMax);
  }

  /** Tells `follower` every line from now on, until the returned function is called. */
  follow(functionId: string, follower: Follower): () => void {
    if (this.#removed.has(functionId)) {
      follower.onEnd();
      return () => {};
    }
    const followers = this.#followers.get(functionId) ?? new Set();
    this.#followers.set(functionId, followers);
    followers.add(follower);
    return () => {
      followers.delete(follower);
      if (followers.size === 0 && this.#followers.get(functionId) === followers)
        this.#followers.delete(functionId);
    };
  }

  remove(functionId: string): void {
    this.#bytes -= this.#functions.get(functionId)?.bytes ?? 0;
    this.#functions.delete(functionId);
    this.#removed.add(functionId);
    if (this.#removed.size > removedMax) this.#removed.delete(this.#removed.values().next().value!);
    const followers = this.#followers.get(functionId);
    this.#followers.delete(functionId);
    if (followers !== undefined) for (const { onEnd } of followers) onEnd();
  }
}

/** What a line takes in memory, about: text of letters beyond Latin-1 has two bytes for each unit. */
function sizeOf({ text }: OutputLine): number {
  return 128 + 2 * text.length;
}

/** Drops the oldest lines until what is left is within the limits; gives the bytes that went. */
function cut(output: FunctionOutput): number {
  const { lines, bytes } = output;
  let first = Math.max(0, lines.length - outputLimits.linesMax);
  for (let i = 0; i < first; i++) output.bytes -= sizeOf(lines[i]!);
  while (output.bytes > outputLimits.keptBytesMax && first < lines.length - 1)
    output.bytes -= sizeOf(lines[first++]!);
  output.lines = lines.slice(first);
  return bytes - output.bytes;
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
    if (this.#rest.length > outputLimits.lineCharsMax) {
      if (!this.#cutting) this.#onLine(shortened(this.#rest));
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
    this.#onLine(clean.length > outputLimits.lineCharsMax ? shortened(clean) : clean);
  }
}

/** A text of its own: a slice would keep all of the line in memory. */
function shortened(line: string): string {
  const kept = Buffer.from(line.slice(0, outputLimits.lineCharsMax)).toString();
  return `${kept} … (line cut)`;
}
