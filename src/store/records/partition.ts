/**
 * One part of a series: sealed blocks, each the items of one function that were written together, one behind another in a
 * file; and a database that says whose they are, when they were, which outcomes and statuses are among them, and where they
 * lie. (In the database themselves, they cost three times as much: each page is written twice, and summed up.)
 *
 * Small blocks of a function that follow one another are merged, so that what is called rarely does not cost a row a call.
 */
import { closeSync, fstatSync, openSync, readSync, statSync, writeSync, writevSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import type { Sealer } from '../../auth/seal.ts';
import type { RecordSubject } from '../../domain/record.ts';
import { formatVersion } from './items.ts';

export interface Block {
  subject: RecordSubject;
  firstMs: number;
  lastMs: number;
  versionMin: number;
  versionMax: number;
  items: number;
  mask: number;
  statuses: Set<number>;
  parts: Buffer[];
  bytes: number;
}

export interface BlockFilter {
  functionId?: string;
  namespace?: string;
  sinceMs?: number;
  untilMs?: number;
  version?: number;
  status?: number;
  statusClass?: number;
  masks?: { outcomes: number; origins: number };
}

/** A block as it lies in the file; `open` gives its items. */
export interface FoundBlock {
  readonly lastMs: number;
  readonly subject: RecordSubject;
  open(): Buffer;
}

/** Below, a block waits to be merged with those that follow. */
const smallBytes = 8192;
/** So many small ones make one. */
const mergedBlocks = 64;

const schema = `
  CREATE TABLE subjects (
    number INTEGER PRIMARY KEY,
    function_id TEXT NOT NULL UNIQUE,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL
  ) STRICT;
  CREATE TABLE blocks (
    number INTEGER PRIMARY KEY,
    subject INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    first_ms INTEGER NOT NULL,
    version_min INTEGER NOT NULL,
    version_max INTEGER NOT NULL,
    items INTEGER NOT NULL,
    mask INTEGER NOT NULL,
    statuses TEXT NOT NULL,
    offset INTEGER NOT NULL,
    length INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX blocks_time ON blocks
    (last_ms, number, subject, first_ms, version_min, version_max, mask, statuses);
  CREATE INDEX blocks_subject ON blocks
    (subject, last_ms, number, first_ms, version_min, version_max, mask, statuses);
  PRAGMA user_version = ${formatVersion};
`;

export class Partition {
  readonly file: string;
  readonly startMs: number;
  readonly #db: DatabaseSync;
  readonly #sealer: Sealer;
  readonly #insert: StatementSync;
  readonly #subjects = new Map<string, number>();
  readonly #subjectsByNumber = new Map<number, RecordSubject>();
  /** Numbers of the small blocks at the end of each function's. */
  readonly #small = new Map<number, number[]>();
  readonly #blocks: number;
  /** Where the next block goes: behind whatever is there. */
  #end: number;
  bytes: number;

  /** Makes the file when it is not there. Throws when it cannot be used. */
  constructor(options: { file: string; startMs: number; sealer: Sealer }) {
    this.file = options.file;
    this.startMs = options.startMs;
    this.#sealer = options.sealer;
    // Before SQLite opens it, which would make it readable to all.
    closeSync(openSync(this.file, 'a', 0o600));
    this.#db = new DatabaseSync(this.file);
    this.#db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;');
    const { user_version: version } = this.#db.prepare('PRAGMA user_version').get()!;
    if (version === 0) this.#db.exec(`BEGIN; ${schema} COMMIT;`);
    else if (version !== formatVersion) throw new Error(`format ${version} is not known`);
    this.#insert = this.#db.prepare(`
      INSERT INTO blocks
        (subject, last_ms, first_ms, version_min, version_max, items, mask, statuses, offset, length)
      VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`);
    this.#readSubjects();
    this.#blocks = openSync(blocksOf(this.file), 'a+', 0o600);
    this.#end = fstatSync(this.#blocks).size;
    this.bytes = sizeOf(this.file);
  }

  /** All of them, or none. */
  insert(blocks: Iterable<Block>): void {
    this.#db.exec('BEGIN');
    try {
      for (const block of blocks) this.#insertOne(block);
      this.#db.exec('COMMIT');
    } catch (error) {
      if (this.#db.isTransaction) this.#db.exec('ROLLBACK');
      this.#small.clear();
      // What was written for nothing, perhaps in part, is a gap.
      this.#end = fstatSync(this.#blocks).size;
      this.#readSubjects();
      throw error;
    }
  }

  /** Newest first by their last item. To be read to its end before the next insert. */
  *find(filter: BlockFilter): Generator<FoundBlock> {
    const where: string[] = ['last_ms >= ?', 'first_ms <= ?'];
    const values: Array<number | string> = [
      filter.sinceMs ?? 0,
      filter.untilMs ?? Number.MAX_SAFE_INTEGER,
    ];
    if (filter.functionId !== undefined) {
      const number = this.#subjects.get(filter.functionId);
      if (number === undefined) return;
      where.push('subject = ?');
      values.push(number);
    }
    if (filter.version !== undefined) {
      where.push('version_min <= ? AND version_max >= ?');
      values.push(filter.version, filter.version);
    }
    if (filter.status !== undefined) {
      where.push('instr(statuses, ?) > 0');
      values.push(` ${filter.status} `);
    }
    if (filter.statusClass !== undefined) {
      where.push('instr(statuses, ?) > 0');
      values.push(` ${filter.statusClass}`);
    }
    if (filter.masks !== undefined) {
      where.push('(mask & ?) <> 0 AND (mask & ?) <> 0');
      values.push(filter.masks.outcomes, filter.masks.origins);
    }
    const rows = this.#db
      .prepare(
        `SELECT number, subject, last_ms FROM blocks WHERE ${where.join(' AND ')}
         ORDER BY last_ms DESC, number DESC`,
      )
      .iterate(...values);
    for (const row of rows) {
      const subject = this.#subjectsByNumber.get(row.subject as number)!;
      if (filter.namespace !== undefined && subject.namespace !== filter.namespace) continue;
      yield {
        lastMs: row.last_ms as number,
        subject,
        open: () => this.#open(row.number as number),
      };
    }
  }

  close(): void {
    if (!this.#db.isOpen) return;
    this.#db.close();
    closeSync(this.#blocks);
  }

  #insertOne(block: Block): void {
    const subject = this.#numberOf(block.subject);
    const [only, ...others] = block.parts;
    const items = others.length === 0 ? only! : Buffer.concat(block.parts, block.bytes);
    // First: a row never names what is not there. What is written for nothing is a gap.
    const offset = this.#end;
    this.#end += writeAll(this.#blocks, this.#sealer.sealParts(items));
    const length = this.#end - offset;
    const { lastInsertRowid } = this.#insert.run(
      subject,
      block.lastMs,
      block.firstMs,
      block.versionMin,
      block.versionMax,
      block.items,
      block.mask,
      ` ${[...block.statuses].join(' ')} `,
      offset,
      length,
    );
    this.bytes += length;
    if (block.bytes >= smallBytes) {
      this.#small.delete(subject);
      return;
    }
    const small = this.#small.get(subject);
    if (small === undefined) this.#small.set(subject, [Number(lastInsertRowid)]);
    else if (small.push(Number(lastInsertRowid)) >= mergedBlocks) this.#merge(subject, small);
  }

  #merge(subject: number, numbers: number[]): void {
    const list = numbers.join(',');
    const rows = this.#db
      .prepare(`SELECT * FROM blocks WHERE number IN (${list}) ORDER BY number`)
      .all();
    const merged: Block = {
      subject: this.#subjectsByNumber.get(subject)!,
      ...emptyBlock(),
    };
    for (const row of rows) {
      const part = this.#read(row.offset as number, row.length as number);
      merged.parts.push(part);
      merged.bytes += part.length;
      merged.firstMs = Math.min(merged.firstMs, row.first_ms as number);
      merged.lastMs = Math.max(merged.lastMs, row.last_ms as number);
      merged.versionMin = Math.min(merged.versionMin, row.version_min as number);
      merged.versionMax = Math.max(merged.versionMax, row.version_max as number);
      merged.items += row.items as number;
      merged.mask |= row.mask as number;
      for (const status of (row.statuses as string).trim().split(' '))
        if (status !== '') merged.statuses.add(Number(status));
    }
    this.#db.exec(`DELETE FROM blocks WHERE number IN (${list})`);
    this.#small.delete(subject);
    this.#insertOne(merged);
  }

  #open(number: number): Buffer {
    const row = this.#db.prepare('SELECT offset, length FROM blocks WHERE number = ?').get(number)!;
    return this.#read(row.offset as number, row.length as number);
  }

  /** Empty where it cannot be read: a machine that lost its power may have kept the row and not the block. */
  #read(offset: number, length: number): Buffer {
    const sealed = Buffer.allocUnsafe(length);
    const read = readSync(this.#blocks, sealed, 0, length, offset);
    try {
      return this.#sealer.open(sealed.subarray(0, read));
    } catch {
      return Buffer.alloc(0);
    }
  }

  #numberOf(subject: RecordSubject): number {
    const known = this.#subjects.get(subject.functionId);
    if (known !== undefined) return known;
    const { lastInsertRowid } = this.#db
      .prepare('INSERT INTO subjects (function_id, namespace, name) VALUES (?, ?, ?)')
      .run(subject.functionId, subject.namespace, subject.name);
    this.#keep(Number(lastInsertRowid), subject);
    return Number(lastInsertRowid);
  }

  #readSubjects(): void {
    this.#subjects.clear();
    this.#subjectsByNumber.clear();
    for (const row of this.#db
      .prepare('SELECT number, function_id AS functionId, namespace, name FROM subjects')
      .all())
      this.#keep(row.number as number, row as unknown as RecordSubject);
  }

  #keep(number: number, { functionId, namespace, name }: RecordSubject): void {
    this.#subjects.set(functionId, number);
    this.#subjectsByNumber.set(number, { functionId, namespace, name });
  }
}

/** How many bytes that were. */
function writeAll(fd: number, parts: readonly Uint8Array[]): number {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  let written = writevSync(fd, parts);
  if (written === length) return length;
  // A part of it, as where the disk is nearly full: the rest, or why not.
  const all = Buffer.concat(parts);
  while (written < length) written += writeSync(fd, all, written);
  return length;
}

export function emptyBlock(): Omit<Block, 'subject'> {
  return {
    firstMs: Number.MAX_SAFE_INTEGER,
    lastMs: 0,
    versionMin: Number.MAX_SAFE_INTEGER,
    versionMax: 0,
    items: 0,
    mask: 0,
    statuses: new Set(),
    parts: [],
    bytes: 0,
  };
}

/** Beside `….db`: `….blocks`. */
export function blocksOf(file: string): string {
  return file.replace(/\.db$/, '.blocks');
}

export function sizeOf(file: string): number {
  return [file, `${file}-wal`, blocksOf(file)]
    .map(part => statSync(part, { throwIfNoEntry: false })?.size ?? 0)
    .reduce((sum, size) => sum + size, 0);
}

/** A file of a quarter of a gigabyte takes the file system a fifth of a second: nobody waits for it. */
export async function removeDatabase(file: string): Promise<void> {
  const parts = [file, `${file}-wal`, `${file}-shm`, blocksOf(file)];
  await Promise.all(parts.map(part => rm(part, { force: true })));
}
