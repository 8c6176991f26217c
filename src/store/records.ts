/**
 * The port for what fnway remembers of its calls: a record of every invocation, the lines that it wrote, and, where a
 * function asks for it, its input and output. Written behind: nothing waits for it, a crash may lose the last second,
 * and under pressure records of successful calls are dropped first, and counted. Reading sees what was written before.
 * Implementations: records/sqlite.ts, records/memory.ts (the executable specification). Suite: records/contract.ts.
 */
import {
  type FailureKind,
  type InvocationRecord,
  type LogLine,
  type Origin,
  type RecordState,
  type RecordSubject,
  timeOfId,
  timesOfPrefix,
} from '../domain/record.ts';

/** What went in and came out of one call. Headers are names and values in turn. */
export interface RecordedBodies {
  id: string;
  subject: RecordSubject;
  method: string;
  target: string;
  requestHeaders: readonly string[];
  input: Uint8Array;
  status: number;
  replyHeaders: readonly string[];
  output: Uint8Array;
}

export interface RecordQuery {
  namespace: string;
  functionId?: string;
  version?: number;
  status?: number;
  /** 5 for 500 to 599. */
  statusClass?: number;
  state?: RecordState;
  kind?: FailureKind;
  origin?: Origin;
  /** Of their beginnings; both included. */
  sinceMs?: number;
  untilMs?: number;
  /** The beginning of an id, `inv_` included. */
  idPrefix?: string;
  /** Those that come after this id: older ones. */
  after?: string;
  limit: number;
}

export interface LineQuery {
  functionId: string;
  call?: string;
  instance?: string;
  version?: number;
  sinceMs?: number;
  untilMs?: number;
  /** The newest so many. */
  limit: number;
}

export interface RecordPage {
  items: InvocationRecord[];
  /** Pass as `after` for what is older; absent when there is nothing. */
  next?: string;
}

export interface RecordStore {
  /** Never throws, never waits. */
  record(record: InvocationRecord): void;
  line(line: LogLine): void;
  bodies(bodies: RecordedBodies): void;
  /** Newest first, by the time at which they began. A page may have fewer than `limit` and yet a `next`. */
  list(query: RecordQuery): Promise<RecordPage>;
  get(id: string): Promise<InvocationRecord | undefined>;
  /** Oldest first. */
  lines(query: LineQuery): Promise<LogLine[]>;
  bodiesOf(id: string): Promise<RecordedBodies | undefined>;
  /** What had no room, since the start. */
  readonly dropped: { records: number; lines: number; bodies: number };
  /** Writes what waits. Idempotent. */
  close(): Promise<void>;
}

/** The same rule for every store: whether a record is among those that a query asks for. */
export function isWanted(record: InvocationRecord, query: RecordQuery): boolean {
  const { subject, failure } = record;
  const startMs = timeOfId(record.id) ?? 0;
  return (
    subject.namespace === query.namespace &&
    (query.functionId === undefined || subject.functionId === query.functionId) &&
    (query.version === undefined || record.version === query.version) &&
    (query.status === undefined || record.status === query.status) &&
    (query.statusClass === undefined || Math.floor(record.status / 100) === query.statusClass) &&
    (query.state === undefined || record.state === query.state) &&
    (query.kind === undefined || failure?.kind === query.kind) &&
    (query.origin === undefined || record.origin === query.origin) &&
    (query.sinceMs === undefined || startMs >= query.sinceMs) &&
    (query.untilMs === undefined || startMs <= query.untilMs) &&
    (query.idPrefix === undefined ||
      (timesOfPrefix(query.idPrefix) !== undefined && record.id.startsWith(query.idPrefix))) &&
    (query.after === undefined || record.id < query.after)
  );
}

export function isLineWanted(line: LogLine, query: LineQuery): boolean {
  return (
    line.subject.functionId === query.functionId &&
    (query.call === undefined || line.call === query.call) &&
    (query.instance === undefined || line.instance === query.instance) &&
    (query.version === undefined || line.version === query.version) &&
    (query.sinceMs === undefined || line.timeMs >= query.sinceMs) &&
    (query.untilMs === undefined || line.timeMs <= query.untilMs)
  );
}
