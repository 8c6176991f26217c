/**
 * What was measured, as one Markdown table: a row a measure, with the median of its samples, the
 * smallest and the largest, and, for what has a target, whether the median meets it.
 */
import { cpus, release, totalmem } from 'node:os';
import { median } from './statistics.ts';

export interface Row {
  measure: string;
  samples: readonly number[];
  unit: string;
  target?: { atLeast: number } | { atMost: number };
}

export interface Report {
  row(row: Row): void;
  /** Something that the numbers do not show. */
  note(text: string): void;
}

export class Table implements Report {
  readonly #suites: Array<{ suite: string; rows: Row[] }> = [];
  readonly #notes: string[] = [];

  begin(suite: string): void {
    this.#suites.push({ suite, rows: [] });
  }

  row(row: Row): void {
    this.#suites.at(-1)!.rows.push(row);
  }

  note(text: string): void {
    const suite = this.#suites.at(-1)?.suite;
    this.#notes.push(suite === undefined ? text : `${suite}: ${text}`);
  }

  toMarkdown(): string {
    const head = ['suite', 'measure', 'median', 'min–max', 'unit', 'target', 'result'];
    const lines = [head, head.map(() => '')];
    for (const { suite, rows } of this.#suites)
      for (const row of rows) lines.push([suite, ...cellsOf(row)]);
    const widths = head.map((_, i) => Math.max(3, ...lines.map(cells => cells[i]!.length)));
    const text = lines.map((cells, at) => {
      const padded = cells.map((cell, i) =>
        at === 1 ? '-'.repeat(widths[i]!) : cell.padEnd(widths[i]!),
      );
      return `| ${padded.join(' | ')} |`;
    });
    return [...text, ...this.#notes.map((note, i) => `${i === 0 ? '\n' : ''}- ${note}`)].join('\n');
  }
}

function cellsOf({ measure, samples, unit, target }: Row): string[] {
  const middle = median(samples);
  const range =
    samples.length === 1
      ? 'one sample'
      : `${digits(Math.min(...samples))}–${digits(Math.max(...samples))}`;
  if (target === undefined) return [measure, digits(middle), range, unit, '', ''];
  const meets = 'atLeast' in target ? middle >= target.atLeast : middle <= target.atMost;
  const bound = 'atLeast' in target ? `≥ ${target.atLeast}` : `≤ ${target.atMost}`;
  return [measure, digits(middle), range, unit, bound, meets ? 'pass' : '**fail**'];
}

/** Three significant digits, and no exponent. */
function digits(value: number): string {
  if (Math.abs(value) >= 100) return String(Math.round(value));
  return String(Number(value.toPrecision(3)));
}

/** The machine in one line: ratios travel, numbers do not. */
export function machine(): string {
  const [first] = cpus();
  const memoryGib = Math.round(totalmem() / 1024 ** 3);
  return (
    `${cpus().length} × ${first?.model ?? 'unknown processor'}, ${memoryGib} GiB, ` +
    `Linux ${release().split('.').slice(0, 2).join('.')}, Node ${process.versions.node}`
  );
}
