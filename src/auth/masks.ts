/**
 * Hides the values of secrets in what functions say: every value that an instance of a function was ever given since the
 * gateway started, so that one that was rotated stays hidden too.
 */
import { formsOf, maskedCharsMin } from '../domain/secret.ts';

export const mask = '***';

export class Masks {
  readonly #known = new Map<string, { values: Set<string>; forms: string[]; pattern: RegExp }>();

  /** From now on `value` is hidden in what the function says. */
  add(functionId: string, value: string): void {
    const known = this.#known.get(functionId) ?? { values: new Set(), forms: [], pattern: /(?!)/ };
    if (known.values.has(value)) return;
    known.values.add(value);
    // Longest first over all values: one may be a part of another.
    known.forms = [...new Set([...known.forms, ...formsOf(value)])].sort(
      (a, b) => b.length - a.length,
    );
    // One way through a text, however many there are. Without any, as for values that are too short, nothing matches.
    if (known.forms.length > 0)
      known.pattern = new RegExp(known.forms.map(form => escaped(form)).join('|'), 'g');
    this.#known.set(functionId, known);
  }

  /** Whether there is anything to hide: most functions have no secrets. */
  has(functionId: string): boolean {
    return this.#known.has(functionId);
  }

  /** `isCut`: the text goes on behind its end, and what of a value is left there is hidden too. */
  hide(functionId: string, text: string, options?: { isCut: boolean }): string {
    const known = this.#known.get(functionId);
    if (known === undefined) return text;
    const hidden = text.replace(known.pattern, mask);
    if (options?.isCut !== true) return hidden;
    const begun = Math.max(0, ...known.forms.map(form => beginningAtEnd(hidden, form)));
    return begun === 0 ? hidden : hidden.slice(0, -begun) + mask;
  }

  /** The same value with all its texts, however deep, hidden. For failures. */
  hideIn<T>(functionId: string, value: T): T {
    if (!this.has(functionId)) return value;
    if (typeof value === 'string') return this.hide(functionId, value) as T;
    if (Array.isArray(value)) return value.map(item => this.hideIn(functionId, item)) as T;
    if (value === null || typeof value !== 'object') return value;
    const entries = Object.entries(value).map(([key, item]) => [
      key,
      this.hideIn(functionId, item),
    ]);
    return Object.fromEntries(entries) as T;
  }

  /** A record whose failure says nothing of them; the same one where there is nothing to hide. */
  hideInRecord<T extends { subject: { functionId: string }; failure?: object | undefined }>(
    record: T,
  ): T {
    const { functionId } = record.subject;
    if (record.failure === undefined || !this.has(functionId)) return record;
    return { ...record, failure: this.hideIn(functionId, record.failure) };
  }

  remove(functionId: string): void {
    this.#known.delete(functionId);
  }
}

/** How much of a value the text ends with, where that is enough to tell something of it. */
function beginningAtEnd(text: string, value: string): number {
  for (let length = Math.min(value.length - 1, text.length); length >= maskedCharsMin; length--)
    if (text.endsWith(value.slice(0, length))) return length;
  return 0;
}

/** A text as a pattern that matches it and nothing else. */
function escaped(text: string): string {
  return text.replaceAll(/[\\^$.*+?()[\]{}|/-]/g, '\\$&');
}
