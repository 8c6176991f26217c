/**
 * All partitions of one kind, oldest first: the newest is written, any may be read, and what is too old or too much goes
 * as whole files. Runs in the records' worker.
 */
import { mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Sealer } from '../../auth/seal.ts';
import type { Retention } from '../../config.ts';
import type { ItemKind } from './items.ts';
import {
  type Block,
  type BlockFilter,
  blocksOf,
  type FoundBlock,
  Partition,
  removeDatabase,
  sizeOf,
} from './partition.ts';

/** A series is so many partitions long when it is full: what goes at once is one of them. */
const partitionsMin = 8;
const spanMsMax = 86_400_000;
const partitionBytesLargest = 256 * 1024 ** 2;

export class Series {
  readonly #kind: ItemKind;
  readonly #directory: string;
  readonly #sealer: Sealer;
  readonly #retention: Retention;
  readonly #onTrouble: (what: string) => void;
  #partitions: Partition[] = [];

  constructor(options: {
    kind: ItemKind;
    directory: string;
    sealer: Sealer;
    retention: Retention;
    /** A file that cannot be read is set aside: no call waits for its records. */
    onTrouble(what: string): void;
  }) {
    this.#kind = options.kind;
    this.#directory = options.directory;
    this.#sealer = options.sealer;
    this.#retention = options.retention;
    this.#onTrouble = options.onTrouble;
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 });
    const found = readdirSync(this.#directory)
      .map(name => new RegExp(`^${this.#kind}-(\\d{13})\\.db$`).exec(name)?.[1])
      .filter(start => start !== undefined)
      .map(Number)
      .sort((a, b) => a - b);
    for (const startMs of found) {
      const partition = this.#open(startMs);
      if (partition !== undefined) this.#partitions.push(partition);
    }
  }

  insert(blocks: Block[], nowMs: number): void {
    this.#writable(nowMs).insert(blocks);
  }

  /** Newest first over all partitions, by the time of their last item. */
  *find(filter: BlockFilter): Generator<FoundBlock> {
    const heads = this.#partitions.map(partition => {
      const blocks = partition.find(filter);
      return { blocks, next: blocks.next() };
    });
    try {
      while (true) {
        let newest: (typeof heads)[number] | undefined;
        for (const head of heads) {
          if (head.next.done) continue;
          // Of the same time, the later partition's.
          if (newest?.next.done !== false || head.next.value.lastMs >= newest.next.value.lastMs)
            newest = head;
        }
        if (newest === undefined || newest.next.done) return;
        yield newest.next.value;
        newest.next = newest.blocks.next();
      }
    } finally {
      // A statement that is not read to its end would keep the file's log from being folded in.
      for (const { blocks } of heads) blocks.return(undefined);
    }
  }

  /** Drops what is beyond the retention. The newest partition stays unless it is too old. */
  retain(nowMs: number): void {
    const { keptMs, bytesMax } = this.#retention;
    const sizes = this.#partitions.map(({ file }) => sizeOf(file));
    let bytes = sizes.reduce((sum, size) => sum + size, 0);
    while (this.#partitions.length > 0) {
      const [oldest, next] = this.#partitions;
      // All that it has was written before the next one was begun.
      const isOld = (next?.startMs ?? oldest!.startMs + this.#spanMs) < nowMs - keptMs;
      const isTooMuch = bytes > bytesMax && next !== undefined;
      if (!isOld && !isTooMuch) return;
      bytes -= sizes.shift()!;
      oldest!.close();
      // What does not go now is found by the next start.
      removeDatabase(oldest!.file).catch(error =>
        this.#onTrouble(`${oldest!.file} could not be removed: ${(error as Error).message}`),
      );
      this.#partitions.shift();
    }
  }

  close(): void {
    for (const partition of this.#partitions) partition.close();
    this.#partitions = [];
  }

  get #spanMs(): number {
    return Math.max(1000, Math.min(spanMsMax, this.#retention.keptMs / partitionsMin));
  }

  #writable(nowMs: number): Partition {
    const newest = this.#partitions.at(-1);
    const bytesMax = Math.min(partitionBytesLargest, this.#retention.bytesMax / partitionsMin);
    if (newest !== undefined) {
      const isFull = newest.bytes > bytesMax || newest.startMs + this.#spanMs <= nowMs;
      if (!isFull) return newest;
    }
    // Also where the clock went back: names stay in order.
    const startMs = Math.max(nowMs, (newest?.startMs ?? 0) + 1);
    const partition = this.#open(startMs) ?? this.#open(startMs + 1);
    if (partition === undefined) throw new Error('no partition can be made');
    this.#partitions.push(partition);
    this.retain(nowMs);
    return partition;
  }

  #open(startMs: number): Partition | undefined {
    const name = `${this.#kind}-${String(startMs).padStart(13, '0')}.db`;
    const file = join(this.#directory, name);
    try {
      return new Partition({ file, startMs, sealer: this.#sealer });
    } catch (error) {
      const { message, code, errcode } = error as Error & { code?: string; errcode?: number };
      // A full disk or a missing right is no damage of the file.
      const isDamaged = errcode === 11 || errcode === 26 || code === undefined;
      if (isDamaged) {
        renameSync(file, `${file}.damaged`);
        // Its log belongs to nothing any more.
        for (const part of [`${file}-wal`, `${file}-shm`, blocksOf(file)])
          rmSync(part, { force: true });
        this.#onTrouble(`${name} cannot be read and is set aside as ${name}.damaged: ${message}`);
        return undefined;
      }
      throw error;
    }
  }
}
