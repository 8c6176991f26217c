/**
 * What instances write to standard output and standard error, line by line: to the records, to whoever follows, and the
 * last of each function into memory, for the reports of crashes. Lines longer than the limit are cut and marked; memory
 * is bounded per function and in all.
 */
import { StringDecoder } from 'node:string_decoder';
import type { LogLine, RecordSubject } from '../domain/record.ts';

export const outputLimits = {
  linesMax: 1000,
  lineCharsMax: 16_384,
  /** Of the lines that are kept of one function. */
  keptBytesMax: 512 * 1024,
  /** Of all functions: beyond, those that have written nothing for longest lose their lines. */
  keptBytesTotalMax: 16 * 1024 ** 2,
  /** Of one stream of one instance, at length; beyond, a function that floods its log would slow the others down. */
  linesPerSecondMax: 2000,
  /** That it may be ahead of it: many calls may each have something to say at once. */
  linesAtOnceMax: 50_000,
  /** The same for bytes. */
  outputBytesPerSecondMax: 2 * 1024 ** 2,
  outputBytesAtOnceMax: 32 * 1024 ** 2,
} as const;

export type OutputLine = Omit<LogLine, 'subject'>;

const removedMax = 1000;

export interface Follower {
  onLine(line: OutputLine): void;
  /** The function was removed: nothing comes any more. */
  onEnd(): void;
}

/** Takes out of a text what nobody may read; `isCut`: also what only begins at its end. */
export type Hide = (functionId: string, text: string, options?: { isCut: boolean }) => string;

const cutMark = ' … (line cut)';

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
  readonly #keep: ((line: LogLine) => void) | undefined;
  readonly #hide: Hide;
  #bytes = 0;

  /** `keep` is given every line, for good; `hide` takes out of it what nobody may read. */
  constructor(now: () => number, keep?: (line: LogLine) => void, hide: Hide = (_, text) => text) {
    this.#now = now;
    this.#keep = keep;
    this.#hide = hide;
  }

  append(subject: RecordSubject, line: Omit<OutputLine, 'timeMs'>): void {
    const { functionId } = subject;
    // What instances of a removed function still say is dropped.
    if (this.#removed.has(functionId)) return;
    const text = line.text.endsWith(cutMark)
      ? this.#hide(functionId, line.text.slice(0, -cutMark.length), { isCut: true }) + cutMark
      : this.#hide(functionId, line.text);
    const entry = { timeMs: this.#now(), ...line, text };
    this.#keep?.({ subject, ...entry });
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

  /** The last lines, oldest first. With a call: its own, and those that are no call's. */
  tail(
    functionId: string,
    options: { linesMax: number; instance?: string; call?: string },
  ): OutputLine[] {
    const lines = this.#functions.get(functionId)?.lines ?? [];
    const { instance, call } = options;
    const wanted = lines.filter(
      line =>
        (instance === undefined || line.instance === instance) &&
        (call === undefined || line.call === undefined || line.call === call),
    );
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
  /** What may still be taken, as of `#filledMs`. */
  #linesLeft: number = outputLimits.linesAtOnceMax;
  #bytesLeft: number = outputLimits.outputBytesAtOnceMax;
  #filledMs: number;
  /** A flood: nothing is taken until then. */
  #dryUntilMs = Number.NEGATIVE_INFINITY;
  #rest = '';
  #cutting = false;

  constructor(onLine: (text: string) => void, monotonicMs: () => number) {
    this.#onLine = onLine;
    this.#monotonicMs = monotonicMs;
    this.#filledMs = monotonicMs();
  }

  push(chunk: Buffer): void {
    let at = 0;
    for (let end = chunk.indexOf(10); end !== -1; end = chunk.indexOf(10, at)) {
      if (!this.#hasRoom(end - at)) {
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

  /** Whether another line is taken; says once a second that others are not. */
  #hasRoom(bytes: number): boolean {
    if (this.#linesLeft < 1 || this.#bytesLeft < bytes) this.#refill();
    const nowDry = this.#dryUntilMs !== Number.NEGATIVE_INFINITY;
    if (nowDry && this.#monotonicMs() < this.#dryUntilMs) return false;
    this.#dryUntilMs = Number.NEGATIVE_INFINITY;
    if (this.#linesLeft < 1 || this.#bytesLeft < Math.min(bytes, outputLimits.lineCharsMax)) {
      this.#dryUntilMs = this.#monotonicMs() + 1000;
      const { linesPerSecondMax, outputBytesPerSecondMax } = outputLimits;
      this.#onLine(
        `… (more than ${linesPerSecondMax} lines or ${outputBytesPerSecondMax} bytes a second: some are left out)`,
      );
      return false;
    }
    this.#linesLeft--;
    this.#bytesLeft -= bytes;
    return true;
  }

  #refill(): void {
    const nowMs = this.#monotonicMs();
    const seconds = (nowMs - this.#filledMs) / 1000;
    this.#filledMs = nowMs;
    const { linesAtOnceMax, linesPerSecondMax } = outputLimits;
    const { outputBytesAtOnceMax, outputBytesPerSecondMax } = outputLimits;
    this.#linesLeft = Math.min(linesAtOnceMax, this.#linesLeft + seconds * linesPerSecondMax);
    this.#bytesLeft = Math.min(
      outputBytesAtOnceMax,
      this.#bytesLeft + seconds * outputBytesPerSecondMax,
    );
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
  return kept + cutMark;
}

/**
 * A line that a runtime marked as a call's: 0x1E, the 26 characters of the invocation's id behind `inv_`, 0x1F, and the
 * text (docs/reference/link.md). Any other line is the instance's.
 */
export function readMark(line: string): { call?: string; text: string } {
  if (line.charCodeAt(0) !== 0x1e || line.charCodeAt(27) !== 0x1f) return { text: line };
  const id = line.slice(1, 27);
  return /^[0-9a-z]{26}$/.test(id) ? { call: `inv_${id}`, text: line.slice(28) } : { text: line };
}
