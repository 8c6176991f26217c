/**
 * Records, lines and bodies as bytes: how they wait to be written, and what a block of a partition holds once it is
 * opened. Records that follow one another and differ in little are one item, a run: what a record costs, here and in the
 * thread that writes it, is its bytes. All items begin with the same header, so that a batch can be sorted into blocks
 * without reading the rest:
 *
 *   0 length of all · 4 kind · 5 outcome or stream · 6 status · 8 subject's number · 12 version
 *
 * and have a length that 8 divides, so that numbers are written whole, into views of the same memory: byte by byte they
 * cost more than all the rest of a record. Numbers are little-endian, as are all machines that Node runs on. The bytes
 * never leave the data directory; a change of them is a new `formatVersion`.
 */
import {
  callers,
  failureKinds,
  type InvocationRecord,
  type LogLine,
  origins,
  type RecordFailure,
  type RecordSubject,
  timeOfId,
  timeOfIdBytes,
} from '../../domain/record.ts';
import type { RecordedBodies } from '../records.ts';

export const formatVersion = 2;

export const itemKinds = ['records', 'lines', 'bodies'] as const;
export type ItemKind = (typeof itemKinds)[number];

/** Behind the header: of a run 16 attempt · 18 origin · 19 caller · 20 length of details · 24 entries · details, as JSON; */
const runBytes = 24;
/**
 * of each entry of a run 0 duration (f64, ms) · 8 length of the text, 0 where it is the same as before · 10 id · 40 text:
 * the instance, or as many zeros, method and target;
 */
const entryBytes = 40;
/** of a line 16 time (f64, ms) · 24 has a call · 25 length of the instance's id · 28 length of the text · 32 call · instance · text; */
const lineBytes = 32;
/** of bodies 16 time (f64, ms) · 24 length of the head · 28 of the input · 32 of the output · 40 head, as JSON · input · output. */
const bodiesBytes = 40;
const idChars = 30;
const noInstance = '\0'.repeat(idChars);

/** What succeeded, failed by kind, or was cancelled: one number, so that a block can say which it holds. */
const outcomes = ['succeeded', ...failureKinds, 'cancelled'] as const;

export interface ItemHeader {
  bytes: number;
  kind: ItemKind;
  subject: number;
  version: number;
  status: number;
  /** Of the earliest and the latest that the item holds. */
  firstMs: number;
  lastMs: number;
  /** More than one only in a run of records. */
  count: number;
  /** See maskOf; 0 unless it is of records. */
  mask: number;
}

/** Reads the header at a place of these bytes: in the object that it gave before. */
export function headerReader(buffer: Buffer): (at: number) => ItemHeader {
  const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.length);
  const header: ItemHeader = {
    ...{ bytes: 0, kind: 'records', subject: 0, version: 0, status: 0 },
    ...{ firstMs: 0, lastMs: 0, count: 1, mask: 0 },
  };
  return at => {
    const kind = itemKinds[view.getUint8(at + 4)]!;
    header.bytes = view.getUint32(at, true);
    header.kind = kind;
    header.subject = view.getUint32(at + 8, true);
    header.version = view.getUint32(at + 12, true);
    header.status = view.getUint16(at + 6, true);
    if (kind === 'records') {
      header.mask = maskOf(buffer, at);
      readTimes(buffer, at, header);
    } else {
      header.mask = 0;
      header.count = 1;
      header.firstMs = header.lastMs = view.getFloat64(at + 16, true);
    }
    return header;
  };
}

function readTimes(bytes: Buffer, run: number, header: ItemHeader): void {
  const end = entriesEnd(bytes, run);
  header.count = 0;
  header.firstMs = Number.MAX_SAFE_INTEGER;
  header.lastMs = 0;
  for (let at = run + runBytes; at < end; at = nextEntry(bytes, at)) {
    const ms = timeOfIdBytes(bytes, at + 10);
    header.count++;
    if (ms < header.firstMs) header.firstMs = ms;
    if (ms > header.lastMs) header.lastMs = ms;
  }
}

const entriesEnd = (bytes: Buffer, run: number) =>
  run + bytes.readUInt32LE(run) - padded(bytes.readUInt32LE(run + 20));
const nextEntry = (bytes: Buffer, at: number) =>
  at + entryBytes + padded(bytes[at + 8]! | (bytes[at + 9]! << 8));

/** Of a run: a bit for its outcome and one for its origin. */
export function maskOf(bytes: Buffer, at: number): number {
  return outcomeBit(bytes[at + 5]!) | originBit(bytes[at + 18]!);
}

const outcomeBit = (outcome: number) => 1 << outcome;
const originBit = (origin: number) => 1 << (8 + origin);
const allOutcomes = 0xff;
const allOrigins = 0xffff00;

/** The outcomes and the origins that are asked for, as bits: what is wanted has one of each. */
export function masksWanted(query: {
  state?: InvocationRecord['state'];
  kind?: RecordFailure['kind'];
  origin?: InvocationRecord['origin'];
}): { outcomes: number; origins: number } {
  const { state, kind, origin } = query;
  let outcomeBits = 0;
  for (const [index, outcome] of outcomes.entries()) {
    const stateOf = outcome === 'succeeded' || outcome === 'cancelled' ? outcome : 'failed';
    if ((state === undefined || state === stateOf) && (kind === undefined || kind === outcome))
      outcomeBits |= outcomeBit(index);
  }
  return {
    outcomes: state === undefined && kind === undefined ? allOutcomes : outcomeBits,
    origins: origin === undefined ? allOrigins : originBit(origins.indexOf(origin)),
  };
}

/** Collects items in one piece of memory. */
export class ItemWriter {
  readonly bytes: Buffer;
  #used = 0;
  readonly #words: Uint32Array;
  readonly #doubles: Float64Array;
  /** The last record, while another may follow it in its run: nothing has been written behind it. */
  #last: InvocationRecord | undefined;
  #run = 0;

  constructor(bytesMax: number) {
    this.bytes = Buffer.allocUnsafeSlow(padded(bytesMax));
    this.#words = new Uint32Array(this.bytes.buffer);
    this.#doubles = new Float64Array(this.bytes.buffer);
  }

  get used(): number {
    return this.#used;
  }

  clear(): void {
    this.#used = 0;
    this.#last = undefined;
  }

  /** False when there is no room. Text beyond Latin-1 is in the details only. */
  record(record: InvocationRecord, subject: number): boolean {
    const last = this.#last;
    if (last === undefined || !isOfOneRun(last, record)) return this.#beginRun(record, subject);
    const at = this.#used;
    const { instance, target, method } = record;
    if (instance === last.instance && target === last.target && method === last.method) {
      if (at + entryBytes > this.bytes.length) return false;
      writeLatin1(this.bytes, record.id, at + 10);
      this.#words[(at >>> 2) + 2]! &= 0xffff0000;
      this.#doubles[at >>> 3] = record.durationMs;
      this.#used = at + entryBytes;
    } else {
      if (!this.#entry(record, at)) return false;
      this.#last = record;
    }
    this.#words[this.#run >>> 2] = this.#used - this.#run;
    return true;
  }

  #beginRun(record: InvocationRecord, subject: number): boolean {
    const start = this.#used;
    const details = detailsOf(record);
    const detailsRoom = details === undefined ? 0 : details.length * 3 + padding;
    if (!this.#entry(record, start + runBytes, detailsRoom)) return false;
    const { state, status, version, attempt } = record;
    const outcome =
      state === 'succeeded'
        ? 0
        : outcomes.indexOf(state === 'failed' ? record.failure!.kind : state);
    this.#header(start, (outcome << 8) | (status << 16), subject, version);
    const words = this.#words;
    const word = start >>> 2;
    const origin = origins.indexOf(record.origin);
    words[word + 4] = attempt | (origin << 16) | (callers.indexOf(record.caller) << 24);
    const end = this.#used;
    const detailsBytes = details === undefined ? 0 : this.bytes.write(details, end, 'utf8');
    words[word + 5] = detailsBytes;
    this.#finish(start, end + detailsBytes);
    this.#run = start;
    this.#last = details === undefined ? record : undefined;
    return true;
  }

  /** With instance, method and target. */
  #entry(record: InvocationRecord, at: number, roomBehind = 0): boolean {
    const { id, instance, method, target, durationMs } = record;
    // In one piece: each call into the runtime costs as much as all the numbers.
    const text = `${id}${instance ?? noInstance}${method} ${target}`;
    const textLength = text.length - id.length;
    const end = at + entryBytes + padded(textLength);
    if (end + roomBehind > this.bytes.length) return false;
    writeLatin1(this.bytes, text, at + 10);
    this.bytes[at + 8] = textLength & 0xff;
    this.bytes[at + 9] = textLength >>> 8;
    this.#doubles[at >>> 3] = durationMs;
    // What was in this memory before is nobody's to keep.
    for (let pad = at + entryBytes + textLength; pad < end; pad++) this.bytes[pad] = 0;
    this.#used = end;
    return true;
  }

  line(line: LogLine, subject: number): boolean {
    const { bytes } = this;
    const { call, instance, text, stream } = line;
    const start = this.#used;
    const textStart = start + lineBytes + idChars + instance.length;
    if (textStart + text.length * 3 + padding > bytes.length) return false;
    const detail = stream === 'stderr' ? 1 : 0;
    this.#header(start, 1 | (detail << 8), subject, line.version);
    this.#doubles[(start >>> 3) + 2] = line.timeMs;
    const textBytes = bytes.write(text, textStart, 'utf8');
    this.#words[(start >>> 2) + 6] = (call === undefined ? 0 : 1) | (instance.length << 8);
    this.#words[(start >>> 2) + 7] = textBytes;
    if (call !== undefined) bytes.write(call, start + lineBytes, idChars, 'latin1');
    bytes.write(instance, start + lineBytes + idChars, 'latin1');
    return this.#finish(start, textStart + textBytes);
  }

  bodies(kept: RecordedBodies, subject: number): boolean {
    const { bytes } = this;
    const start = this.#used;
    const { input, output, subject: _, ...rest } = kept;
    const parts = [Buffer.from(JSON.stringify(rest)), input, output];
    const length = parts.reduce((sum, part) => sum + part.length, 0);
    if (start + bodiesBytes + length + padding > bytes.length) return false;
    this.#header(start, 2, subject, 0);
    this.#doubles[(start >>> 3) + 2] = timeOfId(kept.id) ?? 0;
    let at = start + bodiesBytes;
    for (const [i, part] of parts.entries()) {
      this.#words[(start >>> 2) + 6 + i] = part.length;
      bytes.set(part, at);
      at += part.length;
    }
    return this.#finish(start, at);
  }

  /** `kinds`: kind, outcome or stream, and status, as they lie. */
  #header(start: number, kinds: number, subject: number, version: number): void {
    const words = this.#words;
    const word = start >>> 2;
    words[word + 1] = kinds;
    words[word + 2] = subject;
    words[word + 3] = version;
    this.#last = undefined;
  }

  #finish(start: number, end: number): true {
    const paddedEnd = padded(end);
    this.#words[start >>> 2] = paddedEnd - start;
    // Details end with what JSON allows behind them.
    for (let at = end; at < paddedEnd; at++) this.bytes[at] = 0x20;
    this.#used = paddedEnd;
    return true;
  }
}

const padding = 7; // at most
const padded = (bytes: number) => (bytes + padding) & ~padding;

/** Whether a record can follow another in its run: all that is said once of a run is the same. */
function isOfOneRun(a: InvocationRecord, b: InvocationRecord): boolean {
  return (
    a.subject === b.subject &&
    a.status === b.status &&
    a.version === b.version &&
    a.state === b.state &&
    a.origin === b.origin &&
    a.caller === b.caller &&
    a.attempt === b.attempt &&
    b.failure === undefined &&
    b.label === undefined &&
    b.parent === undefined
  );
}

/** What `buffer.write(text, at, 'latin1')` comes to, after it has looked at its arguments. */
function writeLatin1(bytes: Buffer, text: string, at: number): void {
  (bytes as Buffer & { latin1Write(text: string, at: number): number }).latin1Write(text, at);
}

/** Room that bodies take, at most. */
export function bodiesRoom({
  target,
  input,
  output,
  requestHeaders,
  replyHeaders,
}: RecordedBodies): number {
  const headers = [...requestHeaders, ...replyHeaders].reduce((sum, text) => sum + text.length, 0);
  return bodiesBytes + 16_384 + (headers + target.length) * 6 + input.length + output.length;
}

/** What few records have, as JSON. */
function detailsOf(record: InvocationRecord): string | undefined {
  const { parent, label, failure } = record;
  if (parent === undefined && label === undefined && failure === undefined) return undefined;
  return JSON.stringify({ parent, label, failure });
}

/** The items of a block for which `decode` gives something. */
export function decodeItems<T>(
  block: Buffer,
  decode: (block: Buffer, at: number, end: number) => T | undefined,
): T[] {
  const found: T[] = [];
  for (let at = 0; at < block.length; ) {
    const end = at + block.readUInt32LE(at);
    const item = decode(block, at, end);
    if (item !== undefined) found.push(item);
    at = end;
  }
  return found;
}

/** The records of a block in the order in which they ended, of the runs that are wanted. */
export function* recordsIn(
  block: Buffer,
  subject: RecordSubject,
  isRunWanted: (block: Buffer, at: number) => boolean,
  /** Only the one with this id. */
  id?: Buffer,
): Generator<InvocationRecord> {
  for (let run = 0; run < block.length; run += block.readUInt32LE(run)) {
    if (!isRunWanted(block, run)) continue;
    const end = entriesEnd(block, run);
    let textOf = 0;
    for (let at = run + runBytes; at < end; at = nextEntry(block, at)) {
      if (block.readUInt16LE(at + 8) !== 0) textOf = at;
      if (id !== undefined && block.compare(id, 0, idChars, at + 10, at + 10 + idChars) !== 0)
        continue;
      yield decodeRecord(block, { run, at, textOf, end }, subject);
    }
  }
}

function decodeRecord(
  bytes: Buffer,
  { run, at, textOf, end }: { run: number; at: number; textOf: number; end: number },
  subject: RecordSubject,
): InvocationRecord {
  const outcome = outcomes[bytes[run + 5]!]!;
  const detailsLength = bytes.readUInt32LE(run + 20);
  const textStart = textOf + entryBytes;
  const textEnd = textStart + bytes.readUInt16LE(textOf + 8);
  const lineStart = textStart + idChars;
  const line = bytes.toString('latin1', lineStart, textEnd);
  const space = line.indexOf(' ');
  return {
    id: bytes.toString('latin1', at + 10, at + 10 + idChars),
    subject,
    version: bytes.readUInt32LE(run + 12),
    status: bytes.readUInt16LE(run + 6),
    state: outcome === 'succeeded' || outcome === 'cancelled' ? outcome : 'failed',
    origin: origins[bytes[run + 18]!]!,
    caller: callers[bytes[run + 19]!]!,
    attempt: bytes.readUInt16LE(run + 16),
    durationMs: bytes.readDoubleLE(at),
    method: line.slice(0, space),
    target: line.slice(space + 1),
    ...(bytes[textStart] !== 0 && { instance: bytes.toString('latin1', textStart, lineStart) }),
    ...(detailsLength > 0 && JSON.parse(bytes.toString('utf8', end, end + detailsLength))),
  };
}

export function decodeLine(bytes: Buffer, at: number, subject: RecordSubject): LogLine {
  const instanceStart = at + lineBytes + idChars;
  const textStart = instanceStart + bytes[at + 25]!;
  return {
    subject,
    timeMs: bytes.readDoubleLE(at + 16),
    version: bytes.readUInt32LE(at + 12),
    instance: bytes.toString('latin1', instanceStart, textStart),
    stream: bytes[at + 5] === 1 ? 'stderr' : 'stdout',
    ...(bytes[at + 24] === 1 && {
      call: bytes.toString('latin1', at + lineBytes, instanceStart),
    }),
    text: bytes.toString('utf8', textStart, textStart + bytes.readUInt32LE(at + 28)),
  };
}

export function decodeBodies(bytes: Buffer, at: number, subject: RecordSubject): RecordedBodies {
  const headStart = at + bodiesBytes;
  const inputStart = headStart + bytes.readUInt32LE(at + 24);
  const outputStart = inputStart + bytes.readUInt32LE(at + 28);
  return {
    ...JSON.parse(bytes.toString('utf8', headStart, inputStart)),
    subject,
    input: bytes.subarray(inputStart, outputStart),
    output: bytes.subarray(outputStart, outputStart + bytes.readUInt32LE(at + 32)),
  };
}

/** Of an id, what `recordsIn` and `isOfCall` compare. */
export function idBytes(id: string): Buffer {
  return Buffer.from(id.slice(0, idChars).padEnd(idChars, '\0'), 'latin1');
}

/** Whether a line is of a call, without reading the rest of it. */
export function isOfCall(bytes: Buffer, at: number, call: Buffer): boolean {
  const callStart = at + lineBytes;
  return (
    bytes[at + 24] === 1 && bytes.compare(call, 0, idChars, callStart, callStart + idChars) === 0
  );
}
