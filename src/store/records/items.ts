/**
 * Records, lines and bodies as bytes: how they wait to be written, and what a block of a partition holds once it is
 * opened. All begin with the same header, so that a batch can be sorted into blocks without reading the rest:
 *
 *   0 length of all · 4 kind · 5 outcome or stream · 6 status · 8 subject's number · 12 version · 16 time (f64, ms)
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
} from '../../domain/record.ts';
import type { RecordedBodies } from '../records.ts';

export const formatVersion = 1;

export const itemKinds = ['records', 'lines', 'bodies'] as const;
export type ItemKind = (typeof itemKinds)[number];

/**
 * Behind the header: of a record 24 duration (f64, ms) · 32 attempt · 34 origin · 35 caller · 36 length of method and
 * target · 38 has an instance, has details · 40 id, instance, method and target · details, as JSON;
 */
const recordBytes = 40;
/** of a line 24 has a call · 25 length of the instance's id · 28 length of the text · 32 call · instance · text; */
const lineBytes = 32;
/** of bodies 24 length of the head · 28 of the input · 32 of the output · 40 head, as JSON · input · output. */
const bodiesBytes = 40;
const idChars = 30;
const noInstance = '\0'.repeat(idChars);
const hasInstance = 1;
const hasDetails = 2;

/** What succeeded, failed by kind, or was cancelled: one number, so that a block can say which it holds. */
const outcomes = ['succeeded', ...failureKinds, 'cancelled'] as const;

export interface ItemHeader {
  bytes: number;
  kind: ItemKind;
  subject: number;
  version: number;
  status: number;
  timeMs: number;
  /** See maskOf; 0 unless it is a record. */
  mask: number;
}

/** Reads the header at a place of these bytes: in the object that it gave before. */
export function headerReader(buffer: Buffer): (at: number) => ItemHeader {
  const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.length);
  const header: ItemHeader = {
    ...{ bytes: 0, kind: 'records', subject: 0, version: 0, status: 0, timeMs: 0, mask: 0 },
  };
  return at => {
    const kind = itemKinds[view.getUint8(at + 4)]!;
    header.bytes = view.getUint32(at, true);
    header.kind = kind;
    header.subject = view.getUint32(at + 8, true);
    header.version = view.getUint32(at + 12, true);
    header.status = view.getUint16(at + 6, true);
    header.timeMs = view.getFloat64(at + 16, true);
    header.mask = kind === 'records' ? maskOf(buffer, at) : 0;
    return header;
  };
}

/** Of a record: a bit for its outcome and one for its origin. */
export function maskOf(bytes: Buffer, at: number): number {
  return outcomeBit(bytes[at + 5]!) | originBit(bytes[at + 34]!);
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
  used = 0;
  readonly #words: Uint32Array;
  readonly #doubles: Float64Array;

  constructor(bytesMax: number) {
    this.bytes = Buffer.allocUnsafeSlow(padded(bytesMax));
    this.#words = new Uint32Array(this.bytes.buffer);
    this.#doubles = new Float64Array(this.bytes.buffer);
  }

  /** False when there is no room. Text beyond Latin-1 is in the details only. */
  record(record: InvocationRecord, subject: number): boolean {
    const start = this.used;
    const { id, method, target, instance, state } = record;
    const lineLength = method.length + 1 + target.length;
    const details = detailsOf(record);
    const textEnd = start + recordBytes + 2 * idChars + lineLength;
    const room = textEnd + (details === undefined ? 0 : details.length * 3);
    if (room + padding > this.bytes.length) return false;
    const outcome =
      state === 'succeeded'
        ? 0
        : outcomes.indexOf(state === 'failed' ? record.failure!.kind : state);
    const flags =
      (instance === undefined ? 0 : hasInstance) | (details === undefined ? 0 : hasDetails);
    this.#header(
      start,
      (outcome << 8) | (record.status << 16),
      subject,
      record.version,
      timeOfId(id),
    );
    this.#doubles[(start >>> 3) + 3] = record.durationMs;
    const words = this.#words;
    const word = start >>> 2;
    const origin = record.origin === 'http' ? 0 : origins.indexOf(record.origin);
    words[word + 8] = record.attempt | (origin << 16) | (callers.indexOf(record.caller) << 24);
    words[word + 9] = lineLength | (flags << 16);
    // In one piece: each call into the runtime costs as much as all the numbers.
    const text = `${id}${instance ?? noInstance}${method} ${target}`;
    writeLatin1(this.bytes, text, start + recordBytes);
    if (details === undefined) return this.#finish(start, textEnd);
    return this.#finish(start, textEnd + this.bytes.write(details, textEnd, 'utf8'));
  }

  line(line: LogLine, subject: number): boolean {
    const { bytes } = this;
    const { call, instance, text, stream } = line;
    const start = this.used;
    const textStart = start + lineBytes + idChars + instance.length;
    if (textStart + text.length * 3 + padding > bytes.length) return false;
    const detail = stream === 'stderr' ? 1 : 0;
    this.#header(start, 1 | (detail << 8), subject, line.version, line.timeMs);
    const textBytes = bytes.write(text, textStart, 'utf8');
    this.#words[(start >>> 2) + 6] = (call === undefined ? 0 : 1) | (instance.length << 8);
    this.#words[(start >>> 2) + 7] = textBytes;
    if (call !== undefined) bytes.write(call, start + lineBytes, idChars, 'latin1');
    bytes.write(instance, start + lineBytes + idChars, 'latin1');
    return this.#finish(start, textStart + textBytes);
  }

  bodies(kept: RecordedBodies, subject: number): boolean {
    const { bytes } = this;
    const start = this.used;
    const { input, output, subject: _, ...rest } = kept;
    const parts = [Buffer.from(JSON.stringify(rest)), input, output];
    const length = parts.reduce((sum, part) => sum + part.length, 0);
    if (start + bodiesBytes + length + padding > bytes.length) return false;
    this.#header(start, 2, subject, 0, timeOfId(kept.id));
    let at = start + bodiesBytes;
    for (const [i, part] of parts.entries()) {
      this.#words[(start >>> 2) + 6 + i] = part.length;
      bytes.set(part, at);
      at += part.length;
    }
    return this.#finish(start, at);
  }

  /** `kinds`: kind, outcome or stream, and status, as they lie. */
  #header(start: number, kinds: number, subject: number, version: number, timeMs = 0): void {
    const words = this.#words;
    const word = start >>> 2;
    words[word + 1] = kinds;
    words[word + 2] = subject;
    words[word + 3] = version;
    this.#doubles[(start >>> 3) + 2] = timeMs;
  }

  #finish(start: number, end: number): true {
    const paddedEnd = padded(end);
    this.#words[start >>> 2] = paddedEnd - start;
    // Details end with what JSON allows behind them.
    for (let at = end; at < paddedEnd; at++) this.bytes[at] = 0x20;
    this.used = paddedEnd;
    return true;
  }
}

const padding = 7; // at most
const padded = (bytes: number) => (bytes + padding) & ~padding;

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

export function decodeRecord(
  bytes: Buffer,
  at: number,
  end: number,
  subject: RecordSubject,
): InvocationRecord {
  const outcome = outcomes[bytes[at + 5]!]!;
  const flags = bytes[at + 38]!;
  const idEnd = at + recordBytes + idChars;
  const lineStart = idEnd + idChars;
  const lineEnd = lineStart + bytes.readUInt16LE(at + 36);
  const line = bytes.toString('latin1', lineStart, lineEnd);
  const space = line.indexOf(' ');
  return {
    id: bytes.toString('latin1', at + recordBytes, idEnd),
    subject,
    version: bytes.readUInt32LE(at + 12),
    status: bytes.readUInt16LE(at + 6),
    state: outcome === 'succeeded' || outcome === 'cancelled' ? outcome : 'failed',
    origin: origins[bytes[at + 34]!]!,
    caller: callers[bytes[at + 35]!]!,
    attempt: bytes.readUInt16LE(at + 32),
    durationMs: bytes.readDoubleLE(at + 24),
    method: line.slice(0, space),
    target: line.slice(space + 1),
    ...((flags & hasInstance) !== 0 && { instance: bytes.toString('latin1', idEnd, lineStart) }),
    ...((flags & hasDetails) !== 0 && JSON.parse(bytes.toString('utf8', lineEnd, end))),
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

/** Of an id, what `isOfCall` compares. */
export function callBytes(id: string): Buffer {
  return Buffer.from(id.slice(0, idChars).padEnd(idChars, '\0'), 'latin1');
}

/** Whether a line is of a call, without reading the rest of it. */
export function isOfCall(bytes: Buffer, at: number, call: Buffer): boolean {
  const callStart = at + lineBytes;
  return (
    bytes[at + 24] === 1 && bytes.compare(call, 0, idChars, callStart, callStart + idChars) === 0
  );
}
