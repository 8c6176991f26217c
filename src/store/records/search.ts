/** Finds records, lines and bodies among the blocks of a series. */
import {
  type InvocationRecord,
  type LogLine,
  timeOfId,
  timesOfPrefix,
} from '../../domain/record.ts';
import { encodeTime } from '../../ids.ts';
import {
  isLineWanted,
  isWanted,
  type LineQuery,
  type RecordedBodies,
  type RecordPage,
  type RecordQuery,
} from '../records.ts';
import {
  decodeBodies,
  decodeItems,
  decodeLine,
  idBytes,
  isOfCall,
  maskOf,
  masksWanted,
  recordsIn,
} from './items.ts';
import type { BlockFilter, FoundBlock } from './partition.ts';
import type { Series } from './series.ts';

/** Blocks that one search opens: a search that finds little does not keep writing waiting for long. */
export const openedBlocksMax = 1000;

export function listRecords(series: Series, query: RecordQuery): RecordPage {
  const filter = filterOf(query);
  if (filter === undefined) return { items: [] };
  const items: InvocationRecord[] = [];
  /** Found, but a block not yet opened may have newer ones. */
  let held: InvocationRecord[] = [];
  let opened = 0;
  for (const block of series.find(filter)) {
    const isNewer = (record: InvocationRecord) => timeOfId(record.id)! > block.lastMs;
    if (held.length > 0) {
      items.push(...held.filter(isNewer).sort(newestFirst));
      held = held.filter(record => !isNewer(record));
    }
    if (items.length > query.limit) break;
    // All that begins later than this block's last has been given.
    // Blocks that reach beyond the page's beginning would lead back to it: they are opened, however many.
    const isFurther = block.lastMs + 1 < filter.untilMs!;
    if (opened++ >= openedBlocksMax && isFurther && items.length <= query.limit)
      return { items, next: `inv_${encodeTime(block.lastMs + 1)}` };
    held.push(...wantedIn(block, query, filter));
  }
  items.push(...held.sort(newestFirst));
  const page = items.slice(0, query.limit);
  return { items: page, ...(items.length > query.limit && { next: page.at(-1)!.id }) };
}

function newestFirst(a: InvocationRecord, b: InvocationRecord): number {
  return a.id < b.id ? 1 : -1;
}

function wantedIn(block: FoundBlock, query: RecordQuery, filter: BlockFilter): InvocationRecord[] {
  const found: InvocationRecord[] = [];
  const isRunWanted = (bytes: Buffer, at: number) => {
    if (query.version !== undefined && bytes.readUInt32LE(at + 12) !== query.version) return false;
    if (query.status !== undefined && bytes.readUInt16LE(at + 6) !== query.status) return false;
    if (filter.masks === undefined) return true;
    const mask = maskOf(bytes, at);
    return (mask & filter.masks.outcomes) !== 0 && (mask & filter.masks.origins) !== 0;
  };
  for (const record of recordsIn(block.open(), block.subject, isRunWanted))
    if (isWanted(record, query)) found.push(record);
  return found;
}

/** Undefined when nothing can be found. */
function filterOf(query: RecordQuery): BlockFilter | undefined {
  const { functionId, namespace, version, status, statusClass, state, kind, origin } = query;
  const times = query.idPrefix === undefined ? undefined : timesOfPrefix(query.idPrefix);
  if (query.idPrefix !== undefined && times === undefined) return undefined;
  const afterMs = query.after === undefined ? undefined : timeOfId(query.after.padEnd(14, '0'));
  return {
    namespace,
    ...(functionId !== undefined && { functionId }),
    sinceMs: Math.max(query.sinceMs ?? 0, times?.fromMs ?? 0),
    untilMs: Math.min(
      query.untilMs ?? Number.MAX_SAFE_INTEGER,
      times?.toMs ?? Number.MAX_SAFE_INTEGER,
      afterMs ?? Number.MAX_SAFE_INTEGER,
    ),
    ...(version !== undefined && { version }),
    ...(status !== undefined && { status }),
    ...(statusClass !== undefined && { statusClass }),
    ...((state ?? kind ?? origin) !== undefined && { masks: masksWanted(query) }),
  };
}

export function findRecord(series: Series, id: string): InvocationRecord | undefined {
  const timeMs = timeOfId(id);
  if (timeMs === undefined) return undefined;
  for (const block of series.find({ sinceMs: timeMs, untilMs: timeMs })) {
    const [found] = recordsIn(block.open(), block.subject, () => true, idBytes(id));
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Oldest first; the newest `limit` of them. */
export function findLines(series: Series, query: LineQuery): LogLine[] {
  const { functionId, sinceMs, untilMs, version, limit } = query;
  const filter = {
    functionId,
    ...(sinceMs !== undefined && { sinceMs }),
    ...(untilMs !== undefined && { untilMs }),
    ...(version !== undefined && { version }),
  };
  const call = query.call === undefined ? undefined : idBytes(query.call);
  const found: LogLine[][] = [];
  let count = 0;
  let opened = 0;
  for (const block of series.find(filter)) {
    if (count >= limit || opened++ === openedBlocksMax) break;
    const lines = decodeItems(block.open(), (bytes, at) => {
      if (call !== undefined && !isOfCall(bytes, at, call)) return undefined;
      const line = decodeLine(bytes, at, block.subject);
      return isLineWanted(line, query) ? line : undefined;
    });
    found.push(lines);
    count += lines.length;
  }
  return found.reverse().flat().slice(-limit);
}

export function findBodies(series: Series, id: string): RecordedBodies | undefined {
  const timeMs = timeOfId(id);
  if (timeMs === undefined) return undefined;
  for (const block of series.find({ sinceMs: timeMs, untilMs: timeMs })) {
    const [found] = decodeItems(block.open(), (bytes, at) => {
      if (bytes.readDoubleLE(at + 16) !== timeMs) return undefined;
      const kept = decodeBodies(bytes, at, block.subject);
      return kept.id === id ? kept : undefined;
    });
    if (found !== undefined) return found;
  }
  return undefined;
}
