/**
 * The thread that writes and reads records, so that no call waits for a disk or for a long search. It knows the three
 * series and nothing of calls; sqlite.ts is its other end.
 */
import { isMainThread, parentPort, workerData } from 'node:worker_threads';
import { openSealer } from '../../auth/seal.ts';
import type { Retention } from '../../config.ts';
import type { InvocationRecord, LogLine, RecordSubject } from '../../domain/record.ts';
import type { LineQuery, RecordedBodies, RecordPage, RecordQuery } from '../records.ts';
import { headerReader, type ItemHeader, type ItemKind, itemKinds } from './items.ts';
import { type Block, emptyBlock } from './partition.ts';
import { findBodies, findLines, findRecord, listRecords } from './search.ts';
import { Series } from './series.ts';

export interface WorkerSettings {
  directory: string;
  keyFile: string;
  retention: Record<ItemKind, Retention>;
  /** What became too old while no gateway ran goes at once. */
  nowMs: number;
}

export type ToWorker =
  | {
      kind: 'batch';
      bytes: ArrayBuffer;
      used: number;
      /** Those that the batches so far have not named: their numbers go on from there. */
      subjects: RecordSubject[];
      nowMs: number;
    }
  | { kind: 'retain'; nowMs: number }
  | { kind: 'ask'; id: number; question: Question }
  | { kind: 'close' };

export type Question =
  | { about: 'list'; query: RecordQuery }
  | { about: 'get'; id: string }
  | { about: 'lines'; query: LineQuery }
  | { about: 'bodies'; id: string };

export type Answer = RecordPage | InvocationRecord | LogLine[] | RecordedBodies | undefined;

export type FromWorker =
  | { kind: 'written'; used: number; failed?: Record<ItemKind, number> }
  | { kind: 'answer'; id: number; value?: Answer; error?: string }
  | { kind: 'trouble'; what: string }
  | { kind: 'closed' };

class RecordsWorker {
  readonly #series: Record<ItemKind, Series>;
  readonly #subjects: RecordSubject[] = [];
  readonly #post: (message: FromWorker) => void;

  constructor(settings: WorkerSettings, post: (message: FromWorker) => void) {
    this.#post = post;
    const { directory, keyFile, retention, nowMs } = settings;
    const sealer = openSealer(keyFile);
    const open = (kind: ItemKind) =>
      new Series({
        ...{ kind, directory, sealer },
        retention: retention[kind],
        onTrouble: what => post({ kind: 'trouble', what }),
      });
    this.#series = { records: open('records'), lines: open('lines'), bodies: open('bodies') };
    for (const kind of itemKinds) this.#series[kind].retain(nowMs);
  }

  receive(message: ToWorker): void {
    switch (message.kind) {
      case 'batch':
        this.#subjects.push(...message.subjects);
        return this.#write(Buffer.from(message.bytes, 0, message.used), message.nowMs);
      case 'retain':
        for (const kind of itemKinds) this.#series[kind].retain(message.nowMs);
        return;
      case 'ask':
        return this.#answer(message.id, message.question);
      case 'close':
        for (const kind of itemKinds) this.#series[kind].close();
        return this.#post({ kind: 'closed' });
    }
  }

  #write(bytes: Buffer, nowMs: number): void {
    const blocks = sortIntoBlocks(bytes, this.#subjects);
    const failed = { records: 0, lines: 0, bodies: 0 };
    for (const kind of itemKinds) {
      const own = [...blocks[kind].values()];
      if (own.length === 0) continue;
      try {
        this.#series[kind].insert(own, nowMs);
      } catch (error) {
        failed[kind] += own.reduce((sum, { items }) => sum + items, 0);
        this.#post({
          kind: 'trouble',
          what: `${kind} could not be written: ${(error as Error).message}`,
        });
      }
    }
    const hasFailed = failed.records + failed.lines + failed.bodies > 0;
    this.#post({ kind: 'written', used: bytes.length, ...(hasFailed && { failed }) });
  }

  #answer(id: number, question: Question): void {
    try {
      this.#post({ kind: 'answer', id, value: this.#find(question) });
    } catch (error) {
      this.#post({ kind: 'answer', id, error: (error as Error).message });
    }
  }

  #find(question: Question): Answer {
    const { records, lines, bodies } = this.#series;
    switch (question.about) {
      case 'list':
        return listRecords(records, question.query);
      case 'get':
        return findRecord(records, question.id);
      case 'lines':
        return findLines(lines, question.query);
      case 'bodies':
        return findBodies(bodies, question.id);
    }
  }
}

/** One block for each function and kind, with what its header says. */
export function sortIntoBlocks(
  bytes: Buffer,
  subjects: readonly RecordSubject[],
): Record<ItemKind, Map<number, Block>> {
  const blocks = { records: new Map(), lines: new Map(), bodies: new Map() } as Record<
    ItemKind,
    Map<number, Block>
  >;
  const readHeader = headerReader(bytes);
  // Items of one function that follow one another are one part: of a function that is called alone, nothing is copied.
  let block: Block | undefined;
  let partStart = 0;
  const endPart = (at: number) => block?.parts.push(bytes.subarray(partStart, at));
  let kind: ItemKind | undefined;
  let subject = -1;
  for (let at = 0; at < bytes.length; ) {
    const header = readHeader(at);
    if (header.kind !== kind || header.subject !== subject) {
      endPart(at);
      partStart = at;
      ({ kind, subject } = header);
      block = blocks[kind].get(subject);
      if (block === undefined) {
        block = { subject: subjects[subject]!, ...emptyBlock() };
        blocks[kind].set(subject, block);
      }
    }
    addToBlock(block!, header);
    at += header.bytes;
  }
  endPart(bytes.length);
  return blocks;
}

function addToBlock(block: Block, header: ItemHeader): void {
  const { firstMs, lastMs, version, status } = header;
  block.bytes += header.bytes;
  block.items += header.count;
  if (firstMs < block.firstMs) block.firstMs = firstMs;
  if (lastMs > block.lastMs) block.lastMs = lastMs;
  if (version < block.versionMin) block.versionMin = version;
  if (version > block.versionMax) block.versionMax = version;
  block.mask |= header.mask;
  if (status !== 0) block.statuses.add(status);
}

if (!isMainThread && parentPort !== null) {
  const port = parentPort;
  const worker = new RecordsWorker(workerData as WorkerSettings, message =>
    port.postMessage(message),
  );
  port.on('message', message => worker.receive(message as ToWorker));
}
