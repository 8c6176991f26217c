/** Jobs in memory: the executable specification of the facet. Lists that are searched from end to end. */
import { assertEnqueue, assertSettle, idRule } from './job-rules.ts';
import type {
  DeadCount,
  EndState,
  JobStore,
  Lane,
  LeasedJob,
  NewJob,
  Settlement,
  StoredJob,
} from './jobs.ts';
import type { NewMessage } from './messages.ts';

interface Live {
  job: NewJob;
  state: 'waiting' | 'running';
  dueMs: number;
  lease: number;
  leaseUntilMs: number;
  attempts: number;
  lost: number;
  sealedStory?: Uint8Array;
}

export function createMemoryJobs(): MemoryJobs {
  return new MemoryJobs();
}

export class MemoryJobs implements JobStore {
  /** In the order of acceptance. */
  readonly #live: Live[] = [];
  readonly #ended = new Map<string, StoredJob>();
  readonly #lanes = new Map<string, Lane & { servedAt: number }>();
  readonly #keys = new Map<string, { id: string; digest: string; untilMs: number }>();
  readonly #messages = new Map<string, NewMessage>();
  #served = 0;

  async enqueue(jobs: NewJob[], nowMs: number) {
    for (const job of jobs) assertEnqueue(job);
    return jobs.map(job => this.#enqueue(job, nowMs));
  }

  /** Whether so many may wait. For other facets. */
  hasRoom(jobs: readonly NewJob[]): boolean {
    return jobs.every(({ lane }) => {
      const more = jobs.filter(job => job.lane.id === lane.id).length;
      return this.#waiting(lane.id) + more <= lane.waitingMax;
    });
  }

  /** However many wait. */
  accept(job: NewJob, nowMs: number): void {
    assertEnqueue(job);
    this.#enqueue({ ...job, lane: { ...job.lane, waitingMax: Number.MAX_SAFE_INTEGER } }, nowMs);
  }

  isLive(id: string): boolean {
    return this.#find(id) !== undefined;
  }

  #enqueue(job: NewJob, nowMs: number) {
    const { idempotency, lane } = job;
    const known = idempotency && this.#keys.get(idempotency.key);
    if (known !== undefined && known.untilMs > nowMs)
      return known.digest === idempotency!.digest ? { first: known.id } : ('conflict' as const);
    const same = this.#live.find(
      live => job.message !== undefined && isDelivery(live, lane.id, job.message),
    );
    if (same !== undefined) return { first: same.job.id };
    const redriven = job.redrives === undefined ? undefined : this.#ended.get(job.redrives);
    if (job.redrives !== undefined && !isOpen(redriven)) return 'gone' as const;
    if (job.message !== undefined && !this.#messages.has(job.message)) return 'gone' as const;
    if (this.#waiting(lane.id) >= lane.waitingMax) return 'full' as const;
    if (this.#find(job.id) !== undefined || this.#ended.has(job.id)) throw new Error(idRule);
    const there = this.#lanes.get(lane.id);
    const said = job.kind === 'delivery' ? there?.runningMax : undefined;
    const runningMax = said ?? lane.runningMax;
    this.#lanes.set(lane.id, { ...lane, runningMax, servedAt: there?.servedAt ?? 0 });
    if (idempotency !== undefined) this.#keys.set(idempotency.key, { id: job.id, ...idempotency });
    if (redriven !== undefined) redriven.redriven = job.id;
    this.#live.push({
      job: copy(job),
      ...{ state: 'waiting', dueMs: job.dueMs, lease: 0, leaseUntilMs: 0, attempts: 0, lost: 0 },
    });
    return 'accepted' as const;
  }

  async claim({ limit, nowMs, leaseMs, lane }: Parameters<JobStore['claim']>[0]) {
    for (const live of this.#live)
      if (live.state === 'running' && live.leaseUntilMs <= nowMs) this.#giveBack(live, nowMs);
    const jobs: LeasedJob[] = [];
    while (jobs.length < limit) {
      const next = this.#next(nowMs, lane);
      if (next === undefined) break;
      next.state = 'running';
      next.lease++;
      next.leaseUntilMs = nowMs + leaseMs;
      if (lane === undefined) this.#lanes.get(next.job.lane.id)!.servedAt = ++this.#served;
      jobs.push(this.#leased(next));
    }
    const times = this.#live
      .filter(live => live.state === 'running' || (live.dueMs > nowMs && !this.#isBlocked(live)))
      .map(live => (live.state === 'running' ? live.leaseUntilMs : live.dueMs));
    return { jobs, ...(times.length > 0 && { nextMs: Math.min(...times) }) };
  }

  /** The first of the lane that was served longest ago, or of the one that is asked for. */
  #next(nowMs: number, only: string | undefined): Live | undefined {
    const ready = this.#live.filter(
      live => live.state === 'waiting' && live.dueMs <= nowMs && !this.#isBlocked(live),
    );
    const lanes = [...this.#lanes.values()]
      .filter(({ id, runningMax }) =>
        only === undefined ? this.#running(id) < runningMax : id === only,
      )
      .filter(lane => ready.some(({ job }) => job.lane.id === lane.id))
      .sort((a, b) => a.servedAt - b.servedAt || (a.id < b.id ? -1 : 1));
    return ready
      .filter(({ job }) => job.lane.id === lanes[0]?.id)
      .sort((a, b) => b.job.priority - a.job.priority)[0];
  }

  #isBlocked({ job }: Live): boolean {
    if (job.orderKey === undefined) return false;
    const first = this.#live.find(
      other => other.job.lane.id === job.lane.id && other.job.orderKey === job.orderKey,
    );
    return first!.job !== job;
  }

  #giveBack(live: Live, nowMs: number): void {
    live.state = 'waiting';
    // Whoever pulled it had its try.
    if (this.#lanes.get(live.job.lane.id)!.runningMax === 0) live.attempts++;
    else live.lost++;
    live.dueMs = Math.min(live.dueMs, nowMs);
  }

  async extend(leases: ReadonlyArray<{ id: string; lease: number }>, untilMs: number) {
    return leases.map(({ id, lease }) => {
      const live = this.#held(id, lease);
      if (live !== undefined) live.leaseUntilMs = untilMs;
      return live !== undefined;
    });
  }

  async settle(settlements: Settlement[]) {
    for (const settlement of settlements) assertSettle(settlement);
    return settlements.map(settlement => this.#settle(settlement));
  }

  #settle(settlement: Settlement): 'settled' | 'lost' {
    const { id, lease, nowMs, outcome, isCounted, sealedStory, next } = settlement;
    const live = this.#held(id, lease);
    if (live === undefined) return 'lost';
    if (sealedStory !== undefined) live.sealedStory = Uint8Array.from(sealedStory);
    if (isCounted) live.attempts++;
    if (outcome.kind === 'retry') {
      live.state = 'waiting';
      live.dueMs = outcome.dueMs;
    } else {
      const { state, keepsInput, kind: _, ...result } = outcome;
      this.#end(live, { state, nowMs, keepsInput, result });
    }
    for (const message of settlement.messages ?? []) this.addMessage(message);
    // What belongs to an end is never too much.
    for (const job of next) this.accept(job, nowMs);
    return 'settled';
  }

  #end(
    live: Live,
    end: { state: EndState; nowMs: number; keepsInput: boolean; result?: Partial<StoredJob> },
  ): void {
    this.#live.splice(this.#live.indexOf(live), 1);
    const { dueMs: _, ...stored } = storedOf(live);
    if (!end.keepsInput) {
      delete stored.sealedInput;
      delete stored.inputBlob;
      delete stored.message;
    }
    this.#ended.set(live.job.id, {
      ...stored,
      ...{ state: end.state, endedMs: end.nowMs },
      ...end.result,
    });
    this.#release(live.job.message, end.nowMs);
  }

  async cancel(id: string, { nowMs }: { nowMs: number }) {
    const live = this.#find(id);
    if (live === undefined) return this.#ended.has(id) ? 'ended' : 'missing';
    if (live.state === 'running') return 'running';
    this.#end(live, { state: 'cancelled', nowMs, keepsInput: true });
    return 'cancelled';
  }

  async setRoom(lanes: ReadonlyArray<{ id: string; runningMax: number }>) {
    for (const { id, runningMax } of lanes) {
      const lane = this.#lanes.get(id);
      if (lane !== undefined) lane.runningMax = runningMax;
    }
  }

  async recover(nowMs: number) {
    const running = this.#live.filter(
      ({ state, job }) => state === 'running' && this.#lanes.get(job.lane.id)!.runningMax > 0,
    );
    for (const live of running) this.#giveBack(live, nowMs);
    return running.length;
  }

  async find(id: string) {
    const live = this.#find(id);
    const job = live === undefined ? this.#ended.get(id) : storedOf(live);
    return job && this.#withInput(job);
  }

  async list({
    namespace,
    functionId,
    kind,
    state,
    lanes,
    cause,
    isOpen: needsOpen,
    after,
    limit,
  }: Parameters<JobStore['list']>[0]) {
    return [...this.#live.map(storedOf), ...this.#ended.values()]
      .filter(
        job =>
          job.namespace === namespace &&
          (functionId === undefined || job.functionId === functionId) &&
          (kind === undefined || job.kind === kind) &&
          (state === undefined || job.state === state) &&
          (lanes === undefined || lanes.includes(job.lane)) &&
          (cause === undefined || (job.cause ?? '') === cause) &&
          (!needsOpen || job.redriven === undefined) &&
          (after === undefined || job.id < after),
      )
      .sort((a, b) => (a.id < b.id ? 1 : -1))
      .slice(0, limit)
      .map(({ sealedInput: _, sealedResult: __, sealedStory: ___, ...job }) => job);
  }

  async counts() {
    return [...this.#lanes.keys()]
      .map(lane => ({ lane, waiting: this.#waiting(lane), running: this.#running(lane) }))
      .filter(({ waiting, running }) => waiting + running > 0)
      .sort((a, b) => (a.lane < b.lane ? -1 : 1));
  }

  async dead(namespace: string) {
    const groups = new Map<string, DeadCount>();
    for (const job of this.#ended.values()) {
      const isCounted = job.namespace === namespace && job.state === 'dead';
      if (!isCounted || job.redriven !== undefined) continue;
      const { lane, kind, cause = '', endedMs } = job;
      const key = JSON.stringify([lane, kind, cause]);
      const group = groups.get(key) ?? {
        ...{ lane, kind, cause, count: 0, firstMs: endedMs!, lastMs: endedMs! },
      };
      group.count++;
      group.firstMs = Math.min(group.firstMs, endedMs!);
      group.lastMs = Math.max(group.lastMs, endedMs!);
      groups.set(key, group);
    }
    return [...groups.values()].sort(byLast);
  }

  async purge(...[query, { nowMs, limit }]: Parameters<JobStore['purge']>) {
    const found = [...this.#ended.values()]
      .filter(
        job =>
          job.state === 'dead' &&
          job.redriven === undefined &&
          job.namespace === query.namespace &&
          (query.lanes === undefined || query.lanes.includes(job.lane)) &&
          (query.cause === undefined || (job.cause ?? '') === query.cause) &&
          (query.id === undefined || job.id === query.id),
      )
      .sort((a, b) => (a.id < b.id ? -1 : 1))
      .slice(0, limit);
    return { removed: found.length, blobs: found.flatMap(job => this.#forget(job, nowMs)) };
  }

  async drop(lane: string, { nowMs, limit }: { nowMs: number; limit: number }) {
    const isPulled = this.#lanes.get(lane)?.runningMax === 0;
    const waiting = this.#live
      .filter(({ job, state }) => job.lane.id === lane && (state === 'waiting' || isPulled))
      .slice(0, limit);
    for (const live of waiting) this.#leave(live, nowMs);
    if (!this.#live.some(({ job }) => job.lane.id === lane)) this.#lanes.delete(lane);
    return waiting.length;
  }

  #leave(live: Live, nowMs: number): void {
    this.#live.splice(this.#live.indexOf(live), 1);
    this.#release(live.job.message, nowMs);
  }

  /** Of what had ended; the blobs that nobody names any more. */
  #forget(job: StoredJob, nowMs: number): string[] {
    this.#ended.delete(job.id);
    this.#release(job.message, nowMs);
    return blobsOf(job);
  }

  /** For the facet of messages. */
  addMessage(message: NewMessage): void {
    const { sealed } = message;
    const copied = sealed === undefined ? {} : { sealed: Uint8Array.from(sealed) };
    this.#messages.set(message.id, { ...message, ...copied });
  }

  *messages(): Iterable<NewMessage> {
    yield* this.#messages.values();
  }

  /** Of what waits in a lane, another takes the place; what was published since, and is not among it, comes behind it. */
  replace(lane: string, sinceMs: number, deliveries: readonly NewJob[], nowMs: number) {
    const names = new Set(deliveries.map(({ message }) => message));
    const waiting = this.#live.filter(
      ({ job, state }) => job.lane.id === lane && state === 'waiting',
    );
    const isKept = ({ job }: Live) => job.acceptedMs >= sinceMs && !names.has(job.message);
    const dropped = waiting.filter(live => !isKept(live));
    // Their messages are needed in a moment.
    for (const live of waiting) this.#live.splice(this.#live.indexOf(live), 1);
    const added = deliveries.filter(
      job =>
        this.#enqueue(
          { ...job, lane: { ...job.lane, waitingMax: Number.MAX_SAFE_INTEGER } },
          nowMs,
        ) === 'accepted',
    ).length;
    this.#live.push(...waiting.filter(isKept));
    for (const { job } of dropped) this.#release(job.message, nowMs);
    return { dropped: dropped.length, added };
  }

  /** It goes at once where nobody needs it; a blob is told by `sweep`. */
  #release(id: string | undefined, nowMs: number): void {
    const message = id === undefined ? undefined : this.#messages.get(id);
    if (message === undefined || message.blob !== undefined) return;
    if (!this.#isNamed(message.id) && message.keepUntilMs <= nowMs)
      this.#messages.delete(message.id);
  }

  #isNamed(id: string): boolean {
    return (
      this.#live.some(({ job }) => job.message === id) ||
      [...this.#ended.values()].some(({ message }) => message === id)
    );
  }

  #withInput<T extends LeasedJob | StoredJob>(job: T): T {
    const message = job.message === undefined ? undefined : this.#messages.get(job.message);
    if (message === undefined) return job;
    const { sealed, blob } = message;
    return {
      ...job,
      ...(sealed !== undefined && { sealedInput: Uint8Array.from(sealed) }),
      ...(blob !== undefined && { inputBlob: blob }),
    };
  }

  #leased(live: Live): LeasedJob {
    return this.#withInput({ ...factsOf(live), lease: live.lease });
  }

  async sweep(options: Parameters<JobStore['sweep']>[0]) {
    const { nowMs, endedBeforeMs, deadBeforeMs, limit } = options;
    const keys = [...this.#keys]
      .filter(([, { untilMs }]) => untilMs <= nowMs)
      .sort(([a, one], [b, other]) => one.untilMs - other.untilMs || (a < b ? -1 : 1))
      .slice(0, limit);
    for (const [key] of keys) this.#keys.delete(key);
    const old = [...this.#ended.values()]
      .filter(({ state, endedMs }) => endedMs! < (state === 'dead' ? deadBeforeMs : endedBeforeMs))
      .sort((a, b) => a.endedMs! - b.endedMs! || (a.id < b.id ? -1 : 1))
      .slice(0, limit);
    const blobs = old.flatMap(job => this.#forget(job, nowMs));
    const messages = [...this.#messages.values()]
      .filter(({ id, keepUntilMs }) => keepUntilMs <= nowMs && !this.#isNamed(id))
      .sort((a, b) => a.keepUntilMs - b.keepUntilMs || (a.id < b.id ? -1 : 1))
      .slice(0, limit);
    for (const { id } of messages) this.#messages.delete(id);
    return {
      removed: Math.max(old.length, keys.length, messages.length),
      blobs: [...blobs, ...messages.flatMap(({ blob }) => blob ?? [])],
    };
  }

  async blobs() {
    const own = [...this.#live.map(storedOf), ...this.#ended.values()].flatMap(blobsOf);
    return new Set([...own, ...[...this.#messages.values()].flatMap(({ blob }) => blob ?? [])]);
  }

  #find(id: string): Live | undefined {
    return this.#live.find(({ job }) => job.id === id);
  }

  #held(id: string, lease: number): Live | undefined {
    const live = this.#find(id);
    return live?.state === 'running' && live.lease === lease ? live : undefined;
  }

  #waiting(lane: string): number {
    return this.#live.filter(({ job, state }) => job.lane.id === lane && state === 'waiting')
      .length;
  }

  #running(lane: string): number {
    return this.#live.filter(({ job, state }) => job.lane.id === lane && state === 'running')
      .length;
  }
}

function blobsOf({ inputBlob, resultBlob }: StoredJob): string[] {
  return [inputBlob, resultBlob].filter(blob => blob !== undefined);
}

function factsOf({ job, attempts, lost, sealedStory }: Live) {
  const { lane, dueMs: _, idempotency: __, redrives: ___, ...facts } = copy(job);
  return {
    ...facts,
    ...{ lane: lane.id, attempts, lost },
    ...(sealedStory !== undefined && { sealedStory: Uint8Array.from(sealedStory) }),
  };
}

function storedOf(live: Live): StoredJob {
  return {
    ...factsOf(live),
    state: live.state === 'running' ? 'running' : 'queued',
    ...(live.state === 'waiting' && { dueMs: live.dueMs }),
  };
}

function isDelivery({ job }: Live, lane: string, message: string): boolean {
  return job.lane.id === lane && job.message === message;
}

/** Whether it can be redriven. */
function isOpen(job: StoredJob | undefined): boolean {
  return job !== undefined && job.state !== 'succeeded' && job.redriven === undefined;
}

function byLast(a: DeadCount, b: DeadCount): number {
  return (
    b.lastMs - a.lastMs ||
    (a.lane < b.lane ? -1 : a.lane > b.lane ? 1 : 0) ||
    (a.cause < b.cause ? -1 : 1)
  );
}

function copy(job: NewJob): NewJob {
  const { sealedInput } = job;
  return {
    ...job,
    ...(sealedInput !== undefined && { sealedInput: Uint8Array.from(sealedInput) }),
  };
}
