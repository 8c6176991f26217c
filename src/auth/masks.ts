/**
 * Hides the values of secrets in what functions say: the values that instances of a function were given since the
 * gateway started, the last few hundred of them, so that one that was rotated stays hidden too.
 */
import { formsOf, maskedCharsMin } from '../domain/secret.ts';

export const mask = '***';

/** What of a failure may be the function's own words. */
interface Told {
  message?: string | undefined;
  type?: string | undefined;
  file?: string | undefined;
  stack?: string | undefined;
  log?: readonly string[] | undefined;
}

/** Of runtimes/node/link.mjs; the Python runtime marks nothing. */
const runtimeCutMark = ' …';

/** Values of one function: beyond, the oldest is told apart no more. Instances that had it are long gone. */
export const rememberedValuesMax = 300;

/** Texts from this length on may have been cut where they were made, as runtimes do with long messages. */
const cutCharsMin = 4000;

/** Those that begin with the same two characters. */
interface Forms {
  texts: Set<string>;
  /** Longest first: one may be a part of another. */
  lengths: number[];
}

class Hidden {
  /** Oldest first. */
  readonly #forms = new Map<string, string[]>();
  #byStart = new Map<number, Forms>();

  add(value: string): void {
    const known = this.#forms.get(value);
    this.#forms.delete(value);
    this.#forms.set(value, known ?? formsOf(value));
    if (known !== undefined) return;
    const oldest = this.#forms.keys().next().value!;
    if (this.#forms.size > rememberedValuesMax) this.#forms.delete(oldest);
    this.#byStart = new Map();
    for (const form of new Set([...this.#forms.values()].flat())) {
      const start = startOf(form, 0);
      const forms = this.#byStart.get(start) ?? { texts: new Set(), lengths: [] };
      forms.texts.add(form);
      if (!forms.lengths.includes(form.length)) forms.lengths.push(form.length);
      this.#byStart.set(start, forms);
    }
    for (const { lengths } of this.#byStart.values()) lengths.sort((a, b) => b - a);
  }

  /** One way through the text, however many there are. (A pattern of all of them may be too long for one.) */
  hide(text: string, isCut: boolean): string {
    let hidden = '';
    let copied = 0;
    for (let at = 0; at < text.length - 1; ) {
      const forms = this.#byStart.get(startOf(text, at));
      const length = forms === undefined ? 0 : lengthAt(text, at, { forms, isCut });
      if (length === 0) at++;
      else {
        hidden += text.slice(copied, at) + mask;
        at += length;
        copied = at;
      }
    }
    return copied === 0 ? text : hidden + text.slice(copied);
  }
}

function startOf(text: string, at: number): number {
  return text.charCodeAt(at) | (text.charCodeAt(at + 1) << 16);
}

/** How long what stands there is: a form, or, where the text is cut, the beginning of one at its end. */
function lengthAt(
  text: string,
  at: number,
  { forms, isCut }: { forms: Forms; isCut: boolean },
): number {
  const rest = text.length - at;
  const found = forms.lengths.find(
    length => length <= rest && forms.texts.has(text.slice(at, at + length)),
  );
  if (found !== undefined) return found;
  if (!isCut || rest < maskedCharsMin || rest >= forms.lengths[0]!) return 0;
  const end = text.slice(at);
  for (const form of forms.texts) if (form.startsWith(end)) return rest;
  return 0;
}

export class Masks {
  readonly #known = new Map<string, Hidden>();

  /** From now on `value` is hidden in what the function says. */
  add(functionId: string, value: string): void {
    const known = this.#known.get(functionId) ?? new Hidden();
    known.add(value);
    this.#known.set(functionId, known);
  }

  /** Whether there is anything to hide: most functions have no secrets. */
  has(functionId: string): boolean {
    return this.#known.has(functionId);
  }

  /** `isCut`: the text goes on behind its end, and what of a value is left there is hidden too. */
  hide(functionId: string, text: string, options?: { isCut: boolean }): string {
    return this.#known.get(functionId)?.hide(text, options?.isCut === true) ?? text;
  }

  /** A failure that says nothing of them. Its words of ours, such as its reason, stay. */
  hideIn<T extends Told>(functionId: string, failure: T): T {
    const known = this.#known.get(functionId);
    if (known === undefined) return failure;
    const hide = (text: string) => {
      // Runtimes mark what they cut.
      const end = text.endsWith(runtimeCutMark) ? text.length - runtimeCutMark.length : text.length;
      return known.hide(text.slice(0, end), end >= cutCharsMin) + text.slice(end);
    };
    const hidden: Told = { ...failure };
    for (const key of ['message', 'type', 'file', 'stack'] as const)
      if (failure[key] !== undefined) hidden[key] = hide(failure[key]);
    if (failure.log !== undefined) hidden.log = failure.log.map(hide);
    return hidden as T;
  }

  /** A record whose failure says nothing of them; the same one where there is nothing to hide. */
  hideInRecord<T extends { subject: { functionId: string }; failure?: Told | undefined }>(
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
