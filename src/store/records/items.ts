/**
 * Records, lines and bodies as bytes: how they wait to be written, and what a block of a partition holds once it is
 * opened. All begin with the same header, so that a batch can be sorted into blocks without reading the rest:
 *
 *   0 length of all · 4 kind · 5 outcome or stream · 6 status · 8 subject's number · 12 version · 16 time (f64, ms)
 *
 * Integers are little-endian. The bytes never leave the data directory; a change of them is a new `formatVersion`.
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

export const itemHeaderBytes = 24;
const recordBytes = 92;
const lineBytes = 51;
const idChars = 26;

/** What succeeded, failed by kind, or was cancelled: one number, so that a block can say which it holds. */
const outcomes = ['succeeded', ...failureKinds, 'cancelled'] as const;

export interface ItemHeader {
  bytes: number;
  kind: ItemKind;
  subject: number;
  version: number;
  status: number;
  timeMs: number;
  /** A bit for its outcome and one for its origin; 0 unless it is a record. */
  mask: number;
}

export function readHeader(buffer: Buffer, at: number): ItemHeader {
  const kind = itemKinds[buffer[at + 4]!]!;
  return {
    bytes: buffer.readUInt32LE(at),
    kind,
    subject: buffer.readUInt32LE(at + 8),
    version: buffer.readUInt32LE(at + 12),
    status: buffer.readUInt16LE(at + 6),
    timeMs: buffer.readDoubleLE(at + 16),
    mask: kind === 'records' ? outcomeBit(buffer[at + 5]!) | originBit(buffer[at + 34]!) : 0,
  };
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

  constructor(bytesMax: number) {
    this.bytes = Buffer.allocUnsafeSlow(bytesMax);
  }

  /** False when there is no room. Text beyond Latin-1 is in the details only. */
  record(record: InvocationRecord, subject: number): boolean {
    const { bytes } = this;
    const start = this.used;
    const { method, target, failure, instance } = record;
    const lineLength = method.length + 1 + target.length;
    const details = detailsOf(record);
    const room = recordBytes + lineLength + (details === undefined ? 0 : details.length * 3);
    if (start + room > bytes.length) return false;
    bytes[start + 4] = 0;
    bytes[start + 5] =
      record.state === 'succeeded'
        ? 0
        : outcomes.indexOf(record.state === 'failed' ? failure!.kind : record.state);
    bytes[start + 6] = record.status & 0xff;
    bytes[start + 7] = record.status >> 8;
    writeU32(bytes, start + 8, subject);
    writeU32(bytes, start + 12, record.version);
    writeDouble(bytes, start + 16, timeOfId(record.id) ?? 0);
    writeDouble(bytes, start + 24, record.durationMs);
    bytes[start + 32] = record.attempt & 0xff;
    bytes[start + 33] = record.attempt >> 8;
    bytes[start + 34] = record.origin === 'http' ? 0 : origins.indexOf(record.origin);
    bytes[start + 35] = callers.indexOf(record.caller);
    bytes[start + 36] = lineLength & 0xff;
    bytes[start + 37] = lineLength >> 8;
    bytes[start + 38] = instance === undefined ? 0 : 1;
    bytes[start + 39] = 0;
    // In one piece: each call into the runtime costs as much as all the numbers.
    const where = instance === undefined ? noInstance : tailOf(instance);
    writeLatin1(bytes, `${tailOf(record.id)}${where}${method} ${target}`, start + 40);
    let end = start + recordBytes + lineLength;
    if (details !== undefined) end += bytes.write(details, end, 'utf8');
    return this.#finish(start, end);
  }

  line(line: LogLine, subject: number): boolean {
    const { bytes } = this;
    const start = this.used;
    const room = lineBytes + line.instance.length + line.text.length * 3;
    if (start + room > bytes.length) return false;
    this.#header(start, 1, line.stream === 'stderr' ? 1 : 0, subject, line.version, line.timeMs);
    bytes[start + 24] = (line.call === undefined ? 0 : 1) | (line.instance.length << 1);
    if (line.call !== undefined) bytes.write(line.call.slice(-idChars), start + 25, 'latin1');
    bytes.write(line.instance, start + lineBytes, 'latin1');
    let end = start + lineBytes + line.instance.length;
    end += bytes.write(line.text, end, 'utf8');
    return this.#finish(start, end);
  }

  bodies(kept: RecordedBodies, subject: number): boolean {
    const { bytes } = this;
    const start = this.used;
    const { input, output, subject: _, ...rest } = kept;
    const head = Buffer.from(JSON.stringify(rest));
    const end = start + itemHeaderBytes + 8 + head.length + input.length + output.length;
    if (end > bytes.length) return false;
    this.#header(start, 2, 0, subject, 0, timeOfId(kept.id) ?? 0);
    let at = bytes.writeUInt32LE(head.length, start + itemHeaderBytes);
    at = bytes.writeUInt32LE(input.length, at);
    for (const part of [head, input, output]) {
      bytes.set(part, at);
      at += part.length;
    }
    return this.#finish(start, end);
  }

  #header(
    start: number,
    kind: number,
    detail: number,
    subject: number,
    version: number,
    timeMs: number,
  ): void {
    const { bytes } = this;
    bytes[start + 4] = kind;
    bytes[start + 5] = detail;
    bytes.writeUInt16LE(0, start + 6);
    bytes.writeUInt32LE(subject, start + 8);
    bytes.writeUInt32LE(version, start + 12);
    bytes.writeDoubleLE(timeMs, start + 16);
  }

  #finish(start: number, end: number): true {
    writeU32(this.bytes, start, end - start);
    this.used = end;
    return true;
  }
}

const noInstance = '\0'.repeat(idChars);
const prefixChars = 4;

/** Of `inv_…` and `ins_…`: what tells them apart. */
function tailOf(id: string): string {
  return id.length === prefixChars + idChars ? id.slice(prefixChars) : id.slice(-idChars);
}

/** What `buffer.write(text, at, 'latin1')` comes to, after it has looked at its arguments. */
function writeLatin1(bytes: Buffer, text: string, at: number): void {
  (bytes as Buffer & { latin1Write(text: string, at: number): number }).latin1Write(text, at);
}

function writeU32(bytes: Buffer, at: number, value: number): void {
  bytes[at] = value;
  bytes[at + 1] = value >>> 8;
  bytes[at + 2] = value >>> 16;
  bytes[at + 3] = value >>> 24;
}

const double = new Float64Array(1);
const doubleBytes = new Uint8Array(double.buffer);

/** Little-endian, as are all machines that Node runs on. */
function writeDouble(bytes: Buffer, at: number, value: number): void {
  double[0] = value;
  for (let i = 0; i < 8; i++) bytes[at + i] = doubleBytes[i]!;
}

/** Room that bodies take, at most. */
export function bodiesRoom({
  input,
  output,
  requestHeaders,
  replyHeaders,
}: RecordedBodies): number {
  const headers = [...requestHeaders, ...replyHeaders].reduce((sum, text) => sum + text.length, 0);
  return itemHeaderBytes + 16_384 + headers * 6 + input.length + output.length;
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
  const textEnd = at + recordBytes + bytes.readUInt16LE(at + 36);
  const line = bytes.toString('latin1', at + recordBytes, textEnd);
  const space = line.indexOf(' ');
  const details = textEnd === end ? {} : JSON.parse(bytes.toString('utf8', textEnd, end));
  return {
    id: `inv_${bytes.toString('latin1', at + 40, at + 40 + idChars)}`,
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
    ...((bytes.readUInt16LE(at + 38) & 1) === 1 && {
      instance: `ins_${bytes.toString('latin1', at + 66, at + 66 + idChars)}`,
    }),
    ...details,
  };
}

export function decodeLine(
  bytes: Buffer,
  at: number,
  end: number,
  subject: RecordSubject,
): LogLine {
  const flags = bytes[at + 24]!;
  const textStart = at + lineBytes + (flags >> 1);
  return {
    subject,
    timeMs: bytes.readDoubleLE(at + 16),
    version: bytes.readUInt32LE(at + 12),
    instance: bytes.toString('latin1', at + lineBytes, textStart),
    stream: bytes[at + 5] === 1 ? 'stderr' : 'stdout',
    ...((flags & 1) === 1 && {
      call: `inv_${bytes.toString('latin1', at + 25, at + 25 + idChars)}`,
    }),
    text: bytes.toString('utf8', textStart, end),
  };
}

export function decodeBodies(
  bytes: Buffer,
  at: number,
  end: number,
  subject: RecordSubject,
): RecordedBodies {
  const headStart = at + itemHeaderBytes + 8;
  const headEnd = headStart + bytes.readUInt32LE(at + itemHeaderBytes);
  const inputEnd = headEnd + bytes.readUInt32LE(at + itemHeaderBytes + 4);
  return {
    ...JSON.parse(bytes.toString('utf8', headStart, headEnd)),
    subject,
    input: bytes.subarray(headEnd, inputEnd),
    output: bytes.subarray(inputEnd, end),
  };
}

/** Of an id, what `isOfCall` compares. */
export function callBytes(id: string): Buffer {
  return Buffer.from(id.slice(-idChars).padEnd(idChars, '\0'), 'latin1');
}

/** Whether a line is of a call, without reading the rest of it. */
export function isOfCall(bytes: Buffer, at: number, call: Buffer): boolean {
  return (bytes[at + 24]! & 1) === 1 && bytes.compare(call, 0, idChars, at + 25, at + 51) === 0;
}
