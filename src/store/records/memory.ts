/** Records in memory: what the port says, in the fewest words. For tests, and for comparing others with. */
import type { InvocationRecord, LogLine } from '../../domain/record.ts';
import { isLineWanted, isWanted, type RecordedBodies, type RecordStore } from '../records.ts';

export function createMemoryRecords(): RecordStore {
  const records = new Map<string, InvocationRecord>();
  const lines: LogLine[] = [];
  const bodies = new Map<string, RecordedBodies>();
  return {
    dropped: { records: 0, lines: 0, bodies: 0 },
    record: record => void records.set(record.id, record),
    line: line => void lines.push(line),
    bodies: kept => void bodies.set(kept.id, kept),
    async list(query) {
      const found = [...records.values()]
        .filter(record => isWanted(record, query))
        .sort((a, b) => (a.id < b.id ? 1 : -1));
      const items = found.slice(0, query.limit);
      return { items, ...(found.length > query.limit && { next: items.at(-1)!.id }) };
    },
    get: async id => records.get(id),
    lines: async query => lines.filter(line => isLineWanted(line, query)).slice(-query.limit),
    bodiesOf: async id => bodies.get(id),
    close: async () => {},
  };
}
