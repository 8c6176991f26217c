/**
 * What the queue and its thread hand one another. A structured clone of objects takes longer than all else that is done with
 * most jobs: each has its keys written and read, and each piece of bytes is memory of its own. So they go as cells, which
 * are values without keys, and all bytes as one piece, which changes hands without being copied.
 */
import type { LeasedJob, NewJob, Settlement } from '../jobs.ts';
import type { NewMessage } from '../messages.ts';

export interface Parcel {
  cells: unknown[];
  bytes: Uint8Array<ArrayBuffer>;
}

/** How a value goes: as it is, as bytes, key by key, or each of a list. */
type Form = 'cell' | 'bytes' | ObjectForm | ListForm;
type ListForm = { readonly each: ObjectForm };

class ObjectForm {
  readonly keys: ReadonlyArray<readonly [key: string, form: Form]>;

  constructor(forms: Record<string, Form>) {
    this.keys = Object.entries(forms);
  }
}

/** Every key, whichever variant has it. */
type Keys<T> = T extends T ? keyof T : never;

/** A key that is forgotten here would be lost on its way. */
function formOf<T>(forms: { [K in Keys<T>]-?: Form }): ObjectForm {
  return new ObjectForm(forms);
}

const newJob = formOf<NewJob>({
  ...{ id: 'cell', kind: 'cell', namespace: 'cell', functionId: 'cell', priority: 'cell' },
  lane: formOf<NewJob['lane']>({ id: 'cell', runningMax: 'cell', waitingMax: 'cell' }),
  ...{ acceptedMs: 'cell', dueMs: 'cell', orderKey: 'cell', parent: 'cell', message: 'cell' },
  ...{ sealedInput: 'bytes', inputBlob: 'cell', idempotency: 'cell', redrives: 'cell' },
});

const newMessage = formOf<NewMessage>({
  ...{ id: 'cell', topic: 'cell', publishedMs: 'cell', keepUntilMs: 'cell' },
  ...{ sealed: 'bytes', blob: 'cell' },
});

const settlement = formOf<Settlement>({
  ...{ id: 'cell', lease: 'cell', nowMs: 'cell', isCounted: 'cell', sealedStory: 'bytes' },
  outcome: formOf<Settlement['outcome']>({
    ...{ kind: 'cell', dueMs: 'cell', state: 'cell', status: 'cell', cause: 'cell' },
    ...{ sealedResult: 'bytes', resultBlob: 'cell', keepsInput: 'cell' },
  }),
  ...{ next: { each: newJob }, messages: { each: newMessage } },
});

const leasedJob = formOf<LeasedJob>({
  ...{ id: 'cell', kind: 'cell', namespace: 'cell', functionId: 'cell', lane: 'cell' },
  ...{ priority: 'cell', acceptedMs: 'cell', orderKey: 'cell', parent: 'cell', message: 'cell' },
  ...{ sealedInput: 'bytes', inputBlob: 'cell', sealedStory: 'bytes' },
  ...{ lease: 'cell', attempts: 'cell', lost: 'cell' },
});

/** What goes often, by the method: its first argument, and its answer. All else goes as it is. */
const argumentForms: Record<string, Form> = {
  enqueue: { each: newJob },
  settle: { each: settlement },
  publish: new ObjectForm({ messages: { each: newMessage }, deliveries: { each: newJob } }),
};
const answerForms: Record<string, Form> = {
  claim: new ObjectForm({ jobs: { each: leasedJob }, nextMs: 'cell' }),
};

export class Packer {
  readonly #cells: unknown[] = [];
  readonly #pieces: Uint8Array[] = [];
  #length = 0;

  arguments(method: string, [first, ...more]: readonly unknown[]): void {
    this.#put(argumentForms[method] ?? 'cell', first);
    this.#cells.push(more);
  }

  answer(method: string, value: unknown): void {
    this.#put(answerForms[method] ?? 'cell', value);
  }

  cell(value: unknown): void {
    this.#cells.push(value);
  }

  /** To be sent with `bytes.buffer` in the list of what changes hands. */
  parcel(): Parcel {
    // Not of the pool: what changes hands is gone here.
    const bytes = new Uint8Array(Buffer.allocUnsafeSlow(this.#length).buffer as ArrayBuffer);
    let at = 0;
    for (const piece of this.#pieces) {
      bytes.set(piece, at);
      at += piece.length;
    }
    return { cells: this.#cells, bytes };
  }

  #put(form: Form, value: unknown): void {
    if (form === 'cell' || value === undefined) this.#cells.push(value);
    else if (form === 'bytes') {
      const piece = value as Uint8Array;
      this.#cells.push(piece.length);
      this.#pieces.push(piece);
      this.#length += piece.length;
    } else if (form instanceof ObjectForm) this.#putObject(form, value as Record<string, unknown>);
    else {
      const list = value as Array<Record<string, unknown>>;
      this.#cells.push(list.length);
      for (const item of list) this.#putObject(form.each, item);
    }
  }

  #putObject({ keys }: ObjectForm, object: Record<string, unknown>): void {
    for (const [key, form] of keys) this.#put(form, object[key]);
  }
}

export class Unpacker {
  readonly #cells: readonly unknown[];
  readonly #bytes: Uint8Array;
  readonly #copies: boolean;
  #cellAt = 0;
  #byteAt = 0;

  /** `copies`: its bytes are kept for longer than the others of the parcel. */
  constructor({ cells, bytes }: Parcel, { copies = false } = {}) {
    this.#cells = cells;
    this.#bytes = bytes;
    this.#copies = copies;
  }

  arguments(method: string): unknown[] {
    const first = this.#take(argumentForms[method] ?? 'cell');
    return [first, ...(this.cell() as unknown[])];
  }

  answer(method: string): unknown {
    return this.#take(answerForms[method] ?? 'cell');
  }

  cell(): unknown {
    return this.#cells[this.#cellAt++];
  }

  #take(form: Form): unknown {
    if (form instanceof ObjectForm) return this.#takeObject(form);
    const cell = this.cell();
    if (form === 'cell' || cell === undefined) return cell;
    if (form === 'bytes') {
      const from = this.#byteAt;
      this.#byteAt += cell as number;
      const piece = this.#bytes.subarray(from, this.#byteAt);
      return this.#copies ? copyOf(piece) : piece;
    }
    const list: unknown[] = [];
    for (let left = cell as number; left > 0; left--) list.push(this.#takeObject(form.each));
    return list;
  }

  #takeObject({ keys }: ObjectForm): Record<string, unknown> {
    const object: Record<string, unknown> = {};
    for (const [key, form] of keys) {
      const value = this.#take(form);
      if (value !== undefined) object[key] = value;
    }
    return object;
  }
}

/** In the pool where it is short: many small pieces of memory are what is dear. */
function copyOf(piece: Uint8Array): Uint8Array {
  const { buffer, byteOffset, length } = Buffer.from(piece);
  return new Uint8Array(buffer, byteOffset, length);
}
