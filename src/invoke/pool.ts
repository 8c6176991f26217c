/**
 * The instances of every version: which one takes a call, when one more is started, when one is stopped. The end
 * of the waist: everything that is not a driver's business ends here. Keeps these invariants: an instance never has
 * more calls than its version's concurrency; a version never has more instances that take calls than its function's
 * `max`, but for one that is to replace them; a call that waits is answered, refused or aborted, never forgotten.
 *
 * One instance:  starting → ready ⇄ busy → retiring → gone
 *                             ⇅
 *                           late
 *   late: a call in it timed out. It takes no new call until the handler of that one has returned, for then it is
 *   healthy: the client was slow, or the handler heeds its signal. After `returnMsMax` it retires.
 *   retiring: takes no new call, ever; entered when late for too long, when idle too long, when its version was
 *   replaced, when a newer one has what it was not given, or when the gateway stops. It is stopped at once when
 *   idle, else after a grace time.
 */
import type { Clock, Timer } from '../clock.ts';
import type { VersionFailure } from '../domain/function.ts';
import type { Driver, Instance, Started } from '../driver/driver.ts';
import { assert, GatewayError, isGatewayError } from '../errors.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { type Fleet, type Member, outdated, pick, taking, type Waiter } from './fleet.ts';
import type { Call, CallSignal, Reply, Version } from './invoke.ts';
import { refuseLong } from './middleware/gather.ts';

export interface PoolOptions {
  drivers: readonly Driver[];
  clock: Clock;
  log: Log;
  metrics: Metrics;
  /** How long other calls of an instance may go on after one in it has timed out. */
  graceMs: number;
  bufferedBodyBytesMax: number;
}

/** For the handler of a call that timed out, and was told, to return; the busy and the deaf do not. */
export const returnMsMax = 250;
const sweepMs = 500;
const restartDelayMsMax = 30_000;
/** An instance that has lived this long, or answered a call, was no failed start. */
const stableMs = 10_000;

export class Pool {
  readonly #options: PoolOptions;
  readonly #fleets = new Map<Version, Fleet>();
  /** Versions whose handler needs request bodies whole, as an instance has told. */
  readonly #wholeBodies = new WeakSet<Version>();
  #sweepTimer: Timer | undefined;
  #stopping = false;

  constructor(options: PoolOptions) {
    this.#options = options;
  }

  /** The innermost Invoke: gives the call to an instance, starting or waiting for one where needed. */
  readonly invoke = (call: Call, signal: CallSignal): Promise<Reply> => {
    if (signal.reason !== undefined) return Promise.reject(signal.reason);
    let fleet: Fleet;
    try {
      fleet = this.#fleetOf(call.version);
    } catch (error) {
      return Promise.reject(error);
    }
    const member = pick(fleet);
    if (member !== undefined) return this.#run(fleet, member, call, signal);
    if (this.#stopping) return Promise.reject(stopping());
    return this.#wait(fleet, call, signal);
  };

  /**
   * Starts one instance of a version to see whether it loads. It stays, and takes the first calls. Resolves with
   * the user's mistake when there is one; throws what the platform could not do.
   */
  async prepare(version: Version): Promise<VersionFailure | undefined> {
    const fleet = this.#fleetOf(version);
    // It may have been replaced once: what is started now is to stay.
    fleet.retired = false;
    if (fleet.members.some(member => !member.retiring)) return undefined;
    return this.#startOne(fleet);
  }

  /** Before anything of the handler runs. False until the first instance has been started. */
  needsWholeBodies(version: Version): boolean {
    return this.#wholeBodies.has(version);
  }

  /** Calls of `version` will be rare from now on: its instances finish what they do, and go. */
  retire(version: Version): void {
    const fleet = this.#fleets.get(version);
    if (fleet === undefined) return;
    fleet.retired = true;
    fleet.keepsMinimum = false;
    for (const member of [...fleet.members]) this.#retireMember(fleet, member, undefined);
    this.#forgetIfEmpty(fleet);
  }

  /** Once these versions have a new instance each, those that were there finish what they do, and go. */
  renew(isMeant: (version: Version) => boolean): void {
    for (const fleet of this.#fleets.values()) {
      if (fleet.retired || fleet.starting + taking(fleet) === 0 || !isMeant(fleet.version))
        continue;
      fleet.generation++;
      if (!fleet.renewing) void this.#renewOne(fleet);
    }
  }

  /** One start at a time: what comes meanwhile needs one more. */
  async #renewOne(fleet: Fleet): Promise<void> {
    fleet.renewing = true;
    let generation: number;
    do {
      generation = fleet.generation;
      try {
        const failure = await this.#startOne(fleet);
        if (failure !== undefined) throw new Error(failure.message);
      } catch (error) {
        const { name, namespace } = fleet.version;
        const what = 'a new instance did not start; those that run keep what they were given';
        this.#options.log.warn(what, { namespace, function: name, error });
      }
    } while (generation !== fleet.generation && !this.#stopping);
    fleet.renewing = false;
  }

  /** `version` answers calls now: keeps its minimum of instances from here on. */
  activate(version: Version): void {
    const fleet = this.#fleetOf(version);
    fleet.retired = false;
    fleet.keepsMinimum = true;
    this.#keepMinimum(fleet);
    this.#scheduleSweep();
  }

  /** Instances by version and state, for metrics and `describe`. */
  counts(
    version?: Version,
  ): Array<{ version: Version; ready: number; busy: number; starting: number; waiting: number }> {
    const fleets = version === undefined ? [...this.#fleets.values()] : [this.#fleets.get(version)];
    return fleets
      .filter(fleet => fleet !== undefined)
      .map(fleet => ({
        version: fleet.version,
        ready: fleet.members.filter(m => m.inFlight === 0 && !m.retiring).length,
        busy: fleet.members.filter(m => m.inFlight > 0).length,
        starting: fleet.starting,
        waiting: fleet.waiting.length,
      }));
  }

  /** Whether a call is in it, or waits for it, or an instance of it is being started. */
  isWanted(version: Version): boolean {
    const fleet = this.#fleets.get(version);
    if (fleet === undefined) return false;
    const isBusy = fleet.members.some(member => member.inFlight > 0);
    return isBusy || fleet.starting > 0 || fleet.waiting.length > 0;
  }

  /** Lets the calls in flight finish within `graceMs`, refuses those that wait, and ends every instance. */
  async stop(graceMs: number): Promise<void> {
    this.#stopping = true;
    this.#sweepTimer?.cancel();
    const stops: Promise<unknown>[] = [];
    for (const fleet of this.#fleets.values()) {
      fleet.retryTimer?.cancel();
      this.#refuseWaiting(fleet, stopping());
      for (const member of fleet.members) {
        member.retiring = true;
        stops.push(member.instance.stop(graceMs));
      }
    }
    await Promise.all(stops);
  }

  #fleetOf(version: Version): Fleet {
    let fleet = this.#fleets.get(version);
    if (fleet !== undefined) return fleet;
    const driver = this.#options.drivers.find(candidate => candidate.runs(version));
    if (driver === undefined) {
      throw new GatewayError(
        'DRIVER_NOT_CONFIGURED',
        `no driver of this gateway runs ${version.spec.kind} functions`,
      );
    }
    fleet = {
      version,
      driver,
      members: [],
      starting: 0,
      waiting: [],
      keepsMinimum: false,
      retired: false,
      generation: 0,
      renewing: false,
      failuresInRow: 0,
      retryTimer: undefined,
    };
    this.#fleets.set(version, fleet);
    this.#scheduleSweep();
    return fleet;
  }

  #run(fleet: Fleet, member: Member, call: Call, signal: CallSignal): Promise<Reply> {
    if (member.instance.wholeBodies) {
      const error = refuseLong(call, this.#options.bufferedBodyBytesMax);
      if (error !== undefined) return Promise.reject(error);
    }
    member.inFlight++;
    call.instance = member.instance.id;
    let isDone = false;
    let late: Timer | undefined;
    const reply = member.instance.invoke(call, signal, () => {
      isDone = true;
      if (late !== undefined) member.late--;
      late?.cancel();
      this.#release(fleet, member);
    });
    signal.onAbort(reason => {
      // The instance may have done its part long ago, and the client be slow to read.
      if (isDone || reason.code !== 'CALL_DEADLINE_EXCEEDED') return;
      member.late++;
      late = this.#options.clock.after(returnMsMax, () =>
        this.#retireMember(fleet, member, this.#options.graceMs),
      );
      if (fleet.waiting.length > 0) this.#growForWaiting(fleet);
    });
    return reply;
  }

  #release(fleet: Fleet, member: Member): void {
    member.inFlight--;
    assert(member.inFlight >= 0, 'a call leaves its instance once');
    fleet.failuresInRow = 0;
    if (member.inFlight === 0) {
      member.idleSinceMs = this.#options.clock.monotonicMs();
      if (member.retiring) return void member.instance.stop(0);
    }
    // While it was late, another one may have taken its place.
    if (taking(fleet) > fleet.version.settings.instances.max)
      this.#retireMember(fleet, member, undefined);
    if (fleet.waiting.length > 0) this.#serveWaiting(fleet);
    this.#dropIfRetired(fleet, member);
  }

  /** A version that was replaced keeps no idle instance. */
  #dropIfRetired(fleet: Fleet, member: Member): void {
    if (!fleet.retired || member.inFlight > 0 || fleet.waiting.length > 0) return;
    this.#retireMember(fleet, member, undefined);
  }

  #wait(fleet: Fleet, call: Call, signal: CallSignal): Promise<Reply> {
    return new Promise((resolve, reject) => {
      const sinceMs = this.#options.clock.monotonicMs();
      const waiter: Waiter = { call, signal, sinceMs, resolve, reject };
      fleet.waiting.push(waiter);
      signal.onAbort(reason => {
        const at = fleet.waiting.indexOf(waiter);
        if (at === -1) return;
        fleet.waiting.splice(at, 1);
        reject(reason);
      });
      this.#growForWaiting(fleet);
    });
  }

  /** As many instances as the waiting calls need, within the function's maximum. */
  #growForWaiting(fleet: Fleet): void {
    const { version } = fleet;
    const waiting = fleet.waiting.length;
    const wanted = Math.ceil(waiting / version.concurrency) - fleet.starting;
    const room = version.settings.instances.max - fleet.starting - taking(fleet);
    for (let i = Math.min(wanted, room); i > 0; i--) {
      this.#options.metrics.coldStart(version.namespace, version.name);
      void this.#startForCalls(fleet);
    }
  }

  async #startForCalls(fleet: Fleet): Promise<void> {
    try {
      await this.#startOne(fleet);
    } catch {
      // The calls that waited for it have been told.
    }
  }

  /** Starts an instance for whoever waits. When it fails and nothing else could serve them, they are refused. */
  async #startOne(fleet: Fleet): Promise<VersionFailure | undefined> {
    fleet.starting++;
    const { generation } = fleet;
    let started: Started;
    try {
      started = await fleet.driver.start(fleet.version);
    } catch (error) {
      fleet.starting--;
      this.#startFailed(fleet, error instanceof Error ? error.message : String(error), error);
      throw error;
    }
    fleet.starting--;
    if (!started.ok) {
      const { file, line, message } = started.failure;
      const place = file === undefined ? '' : ` (${file}${line === undefined ? '' : `:${line}`})`;
      this.#startFailed(fleet, `the function does not load${place}: ${message}`, undefined);
      return started.failure;
    }
    const member = this.#adopt(fleet, started.instance, generation);
    const replaced = outdated(fleet);
    // A late one may have returned while this one was on its way.
    const isOneTooMany =
      replaced.length === 0 && taking(fleet) > fleet.version.settings.instances.max;
    if (isOneTooMany) this.#retireMember(fleet, member, undefined);
    else if (fleet.waiting.length > 0) this.#serveWaiting(fleet);
    for (const other of replaced) this.#retireMember(fleet, other, undefined);
    this.#dropIfRetired(fleet, member);
    return undefined;
  }

  #startFailed(fleet: Fleet, reason: string, cause: unknown): void {
    if (fleet.starting > 0 || taking(fleet) > 0) return;
    const hasOwnCode = isGatewayError(cause) && cause.code !== 'INSTANCE_NOT_STARTED';
    const error = hasOwnCode
      ? cause
      : new GatewayError('INSTANCE_NOT_STARTED', reason, { cause, retryAfterMs: 1000 });
    if (fleet.waiting.length > 0) {
      const { namespace, name, number } = fleet.version;
      const place = { namespace, function: name, version: number };
      this.#options.log.warn('no instance for a call', { ...place, error });
    }
    this.#refuseWaiting(fleet, error);
    this.#forgetIfEmpty(fleet);
  }

  #adopt(fleet: Fleet, instance: Instance, generation: number): Member {
    const member: Member = {
      instance,
      generation,
      inFlight: 0,
      late: 0,
      idleSinceMs: this.#options.clock.monotonicMs(),
      retiring: false,
    };
    fleet.members.push(member);
    // A script that streams may answer while it reads: its limit is the same, its body comes as it is sent.
    const { version } = fleet;
    if (instance.wholeBodies && !version.spec.stream) this.#wholeBodies.add(version);
    const bornMs = member.idleSinceMs;
    void instance.exited.then(exit => {
      fleet.members = fleet.members.filter(other => other !== member);
      const livedMs = this.#options.clock.monotonicMs() - bornMs;
      if (exit.reason !== 'stopped' && !member.retiring) {
        const { namespace, name, number } = fleet.version;
        this.#options.log.warn('an instance ended', {
          namespace,
          function: name,
          version: number,
          ...exit,
        });
      }
      member.retiring = true;
      if (this.#stopping) return;
      if (fleet.waiting.length > 0) this.#growForWaiting(fleet);
      if (livedMs >= stableMs) fleet.failuresInRow = 0;
      // One that keeps dying as soon as it lives is as good as one that does not start.
      const diedYoung = exit.reason !== 'stopped' && livedMs < stableMs;
      if (diedYoung && fleet.failuresInRow++ > 0) this.#retryLater(fleet);
      else this.#keepMinimum(fleet);
      this.#forgetIfEmpty(fleet);
    });
    if (this.#stopping) {
      member.retiring = true;
      void instance.stop(0);
    }
    return member;
  }

  #serveWaiting(fleet: Fleet): void {
    while (fleet.waiting.length > 0) {
      const member = pick(fleet);
      if (member === undefined) break;
      // Taken off before it runs: a call may end at once, and its end comes back here.
      const waiter = fleet.waiting.shift()!;
      const { namespace, name } = fleet.version;
      const waitedMs = this.#options.clock.monotonicMs() - waiter.sinceMs;
      this.#options.metrics.waited(namespace, name, waitedMs);
      waiter.resolve(this.#run(fleet, member, waiter.call, waiter.signal));
    }
    if (fleet.waiting.length > 0 && !this.#stopping) this.#growForWaiting(fleet);
  }

  #refuseWaiting(fleet: Fleet, error: GatewayError): void {
    const waiting = fleet.waiting;
    fleet.waiting = [];
    for (const waiter of waiting) waiter.reject(error);
  }

  #retireMember(fleet: Fleet, member: Member, graceMs: number | undefined): void {
    if (member.retiring && graceMs === undefined) return;
    member.retiring = true;
    if (member.inFlight === 0) void member.instance.stop(0);
    // After a timeout nobody knows what the instance is doing. Alone in it, the call that timed out ends it at once.
    else if (graceMs !== undefined) void member.instance.stop(member.inFlight === 1 ? 0 : graceMs);
    if (fleet.waiting.length > 0) this.#growForWaiting(fleet);
  }

  #scheduleSweep(): void {
    if (this.#sweepTimer !== undefined || this.#stopping) return;
    this.#sweepTimer = this.#options.clock.after(sweepMs, () => this.#sweep(), { unref: true });
  }

  /** Ends instances that have been idle for longer than their function allows, down to its minimum. */
  #sweep(): void {
    this.#sweepTimer = undefined;
    const nowMs = this.#options.clock.monotonicMs();
    for (const fleet of this.#fleets.values()) {
      const { min, idleMs } = fleet.version.settings.instances;
      let spare = fleet.members.filter(m => !m.retiring).length - (fleet.keepsMinimum ? min : 0);
      for (const member of fleet.members) {
        if (spare <= 0) break;
        if (member.retiring || member.inFlight > 0 || nowMs - member.idleSinceMs < idleMs) continue;
        spare--;
        this.#retireMember(fleet, member, undefined);
      }
      this.#keepMinimum(fleet);
      this.#forgetIfEmpty(fleet);
    }
    if (this.#fleets.size > 0) this.#scheduleSweep();
  }

  #keepMinimum(fleet: Fleet): void {
    if (!fleet.keepsMinimum || this.#stopping || fleet.retryTimer !== undefined) return;
    const { min } = fleet.version.settings.instances;
    const missing = min - fleet.starting - taking(fleet);
    for (let i = 0; i < missing; i++) void this.#startSpare(fleet);
  }

  async #startSpare(fleet: Fleet): Promise<void> {
    try {
      if ((await this.#startOne(fleet)) === undefined) return;
    } catch (error) {
      this.#options.log.warn('a kept instance did not start', {
        function: fleet.version.name,
        error,
      });
    }
    this.#retryLater(fleet);
  }

  /** Twice as long after each round that failed, so that a function that cannot start costs little. */
  #retryLater(fleet: Fleet): void {
    if (fleet.retryTimer !== undefined || this.#stopping || !fleet.keepsMinimum) return;
    const delayMs = Math.min(restartDelayMsMax, 1000 * 2 ** fleet.failuresInRow++);
    fleet.retryTimer = this.#options.clock.after(
      delayMs,
      () => {
        fleet.retryTimer = undefined;
        this.#keepMinimum(fleet);
      },
      { unref: true },
    );
  }

  #forgetIfEmpty(fleet: Fleet): void {
    const keeps = fleet.keepsMinimum && fleet.version.settings.instances.min > 0;
    if (keeps || fleet.members.length > 0 || fleet.starting > 0 || fleet.waiting.length > 0) return;
    this.#fleets.delete(fleet.version);
  }
}

function stopping(): GatewayError {
  return new GatewayError('GATEWAY_STOPPING', 'the gateway is stopping', { retryAfterMs: 1000 });
}
