/**
 * What commands print. Results go to standard output, everything else to standard error, so that a
 * result can be piped. Colour and the spinner only on a terminal. With --json a result is one JSON
 * value and a failure its problem document; there is no progress then.
 */
import picocolors from 'picocolors';
import type { Problem } from '../../client/errors.ts';
import { problemLines } from './failure.ts';

/** Until then a command is quick, and progress would only flicker. */
const progressAfterMs = 1000;
const spinnerFrameMs = 80;
/** Where there is no terminal, a sign of life this often. */
const plainLineMs = 10_000;
const spinnerFrames = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];

export interface Stream {
  write(text: string): unknown;
  isTTY?: boolean;
}

export interface OutputOptions {
  json: boolean;
  stdout: Stream;
  stderr: Stream;
  env: Readonly<Record<string, string | undefined>>;
}

export type Colors = ReturnType<typeof picocolors.createColors>;

export class Output {
  readonly json: boolean;
  readonly #stdout: Stream;
  readonly #stderr: Stream;
  /** Of results, and of messages: either may be a file while the other is a terminal. */
  readonly colors: Colors;
  readonly errorColors: Colors;
  readonly #progress: Progress;

  constructor({ json, stdout, stderr, env }: OutputOptions) {
    this.json = json;
    this.#stdout = stdout;
    this.#stderr = stderr;
    const allowed = !env.NO_COLOR && env.TERM !== 'dumb' && !json;
    this.colors = picocolors.createColors(allowed && stdout.isTTY === true);
    this.errorColors = picocolors.createColors(allowed && stderr.isTTY === true);
    this.#progress = new Progress({ stderr, silent: json, colors: this.errorColors });
  }

  /** A line of the result, for people. */
  line(text = ''): void {
    this.#progress.clear();
    this.#stdout.write(`${text}\n`);
  }

  /** A line about the work; not part of the result. */
  note(text: string): void {
    this.#progress.clear();
    this.#stderr.write(`${text}\n`);
  }

  /** The result, for programs. */
  value(value: unknown): void {
    this.#progress.clear();
    this.#stdout.write(`${JSON.stringify(value, undefined, 2)}\n`);
  }

  /** One of a series of values, a line each. */
  row(value: unknown): void {
    this.#stdout.write(`${JSON.stringify(value)}\n`);
  }

  /** Columns as wide as their widest cell. The first row is the head. */
  table(rows: readonly (readonly string[])[]): void {
    const widths: number[] = [];
    for (const row of rows) {
      for (const [column, cell] of row.entries()) {
        widths[column] = Math.max(widths[column] ?? 0, cell.length);
      }
    }
    for (const [index, row] of rows.entries()) {
      const cells = row.map((cell, column) => cell.padEnd(widths[column]!));
      const text = cells.join('  ').trimEnd();
      this.line(index === 0 ? this.colors.dim(text) : text);
    }
  }

  /** Shows `label` while the work takes long. */
  async during<T>(label: string, work: () => Promise<T>): Promise<T> {
    const finish = this.#progress.begin(label);
    try {
      return await work();
    } finally {
      finish();
    }
  }

  problem(problem: Problem): void {
    this.#progress.clear();
    if (this.json) {
      this.#stderr.write(`${JSON.stringify(problem)}\n`);
      return;
    }
    const { title, why, next } = problemLines(problem);
    const colors = this.errorColors;
    this.#stderr.write(`${colors.red('✗')} ${colors.bold(printable(title))}\n`);
    for (const line of why) this.#stderr.write(`  ${printable(line).replaceAll('\n', '\n  ')}\n`);
    if (next !== undefined) this.#stderr.write(`  ${colors.cyan('→')} ${printable(next)}\n`);
  }
}

/** Text of others without what a terminal would obey: clearing it, moving about, naming its window. */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what it is about
  return text.replace(/[\0-\x08\x0b-\x1f\x7f-\x9f]/g, '\ufffd');
}

/** What is being waited for: a spinner on a terminal, else a line now and then. */
class Progress {
  readonly #stderr: Stream;
  readonly #silent: boolean;
  readonly #colors: Colors;
  readonly #active = new Map<symbol, { label: string; sinceMs: number }>();
  #timer: NodeJS.Timeout | undefined;
  #frame = 0;
  #plainAtMs = 0;
  #shown = false;

  constructor(options: { stderr: Stream; silent: boolean; colors: Colors }) {
    this.#stderr = options.stderr;
    this.#silent = options.silent;
    this.#colors = options.colors;
  }

  begin(label: string): () => void {
    if (this.#silent) return () => {};
    const key = Symbol(label);
    this.#active.set(key, { label, sinceMs: performance.now() });
    this.#timer ??= setInterval(() => this.#tick(), spinnerFrameMs).unref();
    return () => {
      this.#active.delete(key);
      if (this.#active.size > 0) return;
      clearInterval(this.#timer);
      this.#timer = undefined;
      this.#plainAtMs = 0;
      this.clear();
    };
  }

  /** Takes the spinner away, so that a line can be printed; it comes back by itself. */
  clear(): void {
    if (!this.#shown) return;
    this.#stderr.write('\r\x1b[2K');
    this.#shown = false;
  }

  #tick(): void {
    const nowMs = performance.now();
    const late = [...this.#active.values()].filter(a => nowMs - a.sinceMs >= progressAfterMs);
    if (late.length === 0) return this.clear();
    const seconds = Math.floor((nowMs - Math.min(...late.map(a => a.sinceMs))) / 1000);
    const names = late.map(a => a.label);
    const shown =
      names.length > 3
        ? `${names.slice(0, 3).join(', ')} and ${names.length - 3} more`
        : names.join(', ');
    if (this.#stderr.isTTY !== true) {
      if (nowMs < this.#plainAtMs) return;
      this.#plainAtMs = nowMs + plainLineMs;
      this.#stderr.write(`… ${shown} (${seconds} s)\n`);
      return;
    }
    this.#frame = (this.#frame + 1) % spinnerFrames.length;
    const frame = this.#colors.cyan(spinnerFrames[this.#frame]!);
    this.#stderr.write(
      `\r\x1b[2K${frame} ${shown.slice(0, 100)} ${this.#colors.dim(`${seconds} s`)}`,
    );
    this.#shown = true;
  }
}
