/**
 * The composition root: the only file that knows concrete classes. Reads top to bottom as the gateway is built:
 * state, then what runs functions, then the waist, then HTTP.
 */
import { chmodSync, copyFileSync, existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Masks } from './auth/masks.ts';
import { openSealer } from './auth/seal.ts';
import { openSecretFile } from './auth/secret-file.ts';
import { openAdminToken } from './auth/token.ts';
import { openFileBlobs } from './blob/file.ts';
import { createBuilder } from './build/build.ts';
import { findEsbuild, findTools, isReachableByAll } from './build/find-tools.ts';
import { type Clock, systemClock } from './clock.ts';
import { type Config, systemPath } from './config.ts';
import { openDataDirectory, uidRangeOf } from './data-directory.ts';
import { Functions } from './deploy/functions.ts';
import { refuseMissing } from './deploy/references.ts';
import { Registry } from './deploy/registry.ts';
import { Resources } from './deploy/resources.ts';
import { Secrets } from './deploy/secrets.ts';
import { Sources } from './deploy/sources.ts';
import { Versions } from './deploy/versions.ts';
import { hasAsVariable } from './domain/secret.ts';
import type { Driver } from './driver/driver.ts';
import { createHttpDriver } from './driver/http.ts';
import { createExpress } from './driver/process/framework.ts';
import { markVariable } from './driver/process/keeper.ts';
import { openProcessDriver } from './driver/process/process.ts';
import { readRuntimes, stageRuntimes, stageSdks } from './driver/process/runtimes.ts';
import { Users } from './driver/process/users.ts';
import { GatewayError } from './errors.ts';
import { Accept } from './gateway/accept.ts';
import { createDataPlane } from './gateway/data-plane.ts';
import { registerGauges } from './gateway/gauges.ts';
import { createServer } from './gateway/server.ts';
import { Webhooks } from './gateway/webhooks.ts';
import { acceptingBytesMax, WholeBodies, webhookBytesMax } from './gateway/whole-bodies.ts';
import { newSecret } from './ids.ts';
import { type CallSignal, compose, type Version } from './invoke/invoke.ts';
import { bodies } from './invoke/middleware/bodies.ts';
import { concurrency } from './invoke/middleware/concurrency.ts';
import { deadline } from './invoke/middleware/deadline.ts';
import { gather } from './invoke/middleware/gather.ts';
import { outcomes } from './invoke/middleware/outcomes.ts';
import { secrets } from './invoke/middleware/secrets.ts';
import { loadMiddleware, userMiddleware } from './invoke/middleware/users.ts';
import { Schemas, validatesInput, validation } from './invoke/middleware/validation.ts';
import { Pool } from './invoke/pool.ts';
import { type Log, stderrLog } from './log.ts';
import { createQueue } from './main-jobs.ts';
import { signingKeyOf } from './queue/callbacks.ts';
import { Slots } from './slots.ts';
import { createSqliteRecords } from './store/records/sqlite.ts';
import { openSqliteStore } from './store/sqlite/sqlite.ts';
import { Metrics } from './telemetry/metrics.ts';
import { OutputLog } from './telemetry/output.ts';
import { TimerWheel } from './timer-wheel.ts';

export interface Gateway {
  /** Listens, unless it is to run without HTTP: then there is no address. Resolves when calls are answered. */
  start(): Promise<{ url: string | undefined }>;
  /** Refuses new calls, lets those in flight finish, ends every instance. Idempotent. */
  stop(): Promise<void>;
  readonly adminToken: string;
  /** The whole HTTP surface without a socket: for `up`, which applies its manifest in-process, and for tests. */
  readonly fetch: typeof fetch;
}

/** Tests put their own in place of these. */
export interface Overrides {
  clock?: Clock;
  log?: Log;
  /** Tried before the built-in ones. */
  drivers?: Driver[];
}

export async function createGateway(config: Config, overrides: Overrides = {}): Promise<Gateway> {
  const undo: Array<() => unknown> = [];
  try {
    return await build(config, overrides, undo);
  } catch (error) {
    // What was opened is closed again, last first: the data directory must not stay locked.
    for (const close of undo.reverse()) await close();
    throw error;
  }
}

async function build(
  config: Config,
  overrides: Overrides,
  undo: Array<() => unknown>,
): Promise<Gateway> {
  const clock = overrides.clock ?? systemClock;
  const log = overrides.log ?? stderrLog({ level: config.logLevel, format: config.logFormat });
  const isRoot = process.getuid?.() === 0;
  const { limits } = config;

  const data = openDataDirectory({
    path: config.dataDirectory,
    isRoot,
    mark: path => openSecretFile(join(path, 'gateway-id'), () => newSecret('').slice(0, 16)),
  });
  undo.push(() => data.unlock());
  const uidRange = config.uidRange ?? uidRangeOf(data.mark);
  const inData = (name: string) => join(data.path, name);
  const sealer = openSealer(inData('key'));
  const adminToken = openAdminToken({ file: inData('admin.token'), fromEnv: config.adminToken });
  const store = openSqliteStore({ path: inData('fnway.db') });
  undo.push(() => store.close());
  const blobs = openFileBlobs(inData('blobs'));

  const tools = findInterpreters(config, { isRoot, codePath: data.codePath });
  const { kept: keepsRecords, ...retention } = config.records;
  const records = createSqliteRecords({
    ...{ retention, clock, log },
    directory: inData('records'),
    keyFile: inData('key'),
  });
  undo.push(() => records.close());
  const masks = new Masks();
  const output = new OutputLog(
    () => clock.now(),
    line => records.line(line),
    (functionId, text, options) => masks.hide(functionId, text, options),
  );
  const secretValues = new Secrets({ store, sealer, clock });
  const metrics = new Metrics();
  const users = new Users();
  const processes = await openProcessDriver({
    ...(isRoot && { uidRange }),
    users,
    runtimes: tools.runtimes,
    interpreters: { node: tools.node, python: tools.python },
    mark: data.mark,
    baseEnv: { PATH: systemPath, LANG: 'C.UTF-8' },
    bufferedBodyBytesMax: limits.bufferedBodyBytesMax,
    express: createExpress({ directory: data.codePath, esbuild: tools.esbuild }),
    loadMsMax: limits.loadMsMax,
    ...(config.warm !== undefined && { warm: config.warm }),
    clock,
    log,
    output,
    secretOf: (namespace, name) => secretValues.valueOf(namespace, name),
    masks,
  });
  undo.push(() => processes.close());
  const drivers: Driver[] = [...(overrides.drivers ?? []), processes, createHttpDriver({ clock })];
  const builder = createBuilder({
    tools,
    clock,
    path: config.path,
    toolEnv: { ...config.toolEnv, [markVariable]: data.mark },
    processes: processes.keeper,
    timeoutMs: limits.buildMsMax,
    goCache: config.goCache ?? join(data.codePath, 'go-cache'),
  });

  const registry = new Registry({
    store,
    sealer,
    runtimes: tools.runtimes,
    codeDirectory: data.codePath,
    uidFirst: isRoot ? uidRange.first : undefined,
  });
  const pool = new Pool({
    drivers,
    clock,
    log,
    metrics,
    graceMs: limits.graceMs,
    bufferedBodyBytesMax: limits.bufferedBodyBytesMax,
  });
  secretValues.onChange = (namespace, name) => {
    if (secretValues.has(namespace, name))
      pool.renew(version => version.namespace === namespace && hasAsVariable(version.spec, name));
    processes.rotate(namespace, name);
  };
  const schemas = new Schemas();
  const userModules = await Promise.all(config.middleware.map(file => loadMiddleware(file)));
  const invoke = compose(
    [
      outcomes({
        ...{ clock, metrics },
        record: keepsRecords ? record => records.record(masks.hideInRecord(record)) : undefined,
      }),
      deadline(new TimerWheel(clock)),
      gather({
        needsWhole: version =>
          validatesInput(version) ||
          userModules.some(({ wholeBodies }) => wholeBodies) ||
          pool.needsWholeBodies(version),
        bufferedBodyBytesMax: limits.bufferedBodyBytesMax,
      }),
      concurrency({ waitingCallsMax: limits.waitingCallsMax }),
      validation({ schemas, bufferedBodyBytesMax: limits.bufferedBodyBytesMax }),
      secrets({ has: (namespace, name) => secretValues.has(namespace, name), masks }),
      // As they came: a replay passes the users' modules again.
      ...(keepsRecords
        ? [
            bodies({
              keep: kept => records.bodies(kept),
              onDrop: () => records.dropped.bodies++,
            }),
          ]
        : []),
      ...userModules.map(user =>
        userMiddleware(user, {
          monotonicMs: () => clock.monotonicMs(),
          log,
          bufferedBodyBytesMax: limits.bufferedBodyBytesMax,
        }),
      ),
    ],
    pool.invoke,
  );
  const sources = new Sources(blobs);
  const versions = new Versions({
    ...{ store, sources, sealer, registry, pool, builder },
    ...{ clock, log, users },
    codeDirectory: data.codePath,
  });
  const resources = new Resources({ store, sealer, clock });
  resources.check = refuseMissing({ registry, resources, secrets: secretValues });
  const functions = new Functions({
    ...{ store, sources, versions, sealer, registry, pool },
    runtimes: tools.runtimes,
    ...{ output, metrics, clock, log },
    versionsKeptMax: limits.versionsKeptMax,
    identityCount: uidRange.count,
    users,
    secrets: {
      has: (namespace, name) => secretValues.has(namespace, name),
      forget: functionId => processes.forget(functionId),
    },
  });

  const queue = createQueue(config, {
    ...{ store, sealer, registry, resources, invoke, masks, clock, log },
    payloads: openFileBlobs(inData('payloads')),
    pinned: (entry, number) => functions.pinned(entry, number),
    secretOf: (namespace, name) => secretValues.valueOf(namespace, name),
  });
  versions.onSettled = (version, failure) => queue.notifications.ofDeploy(version, failure);
  const { bufferedBodyBytesMax } = limits;
  const refuseInput = (version: Version, body: Uint8Array) => schemas.refuseInput(version, body);
  const inFlight = new Slots<CallSignal>();
  let state: 'new' | 'ready' | 'stopping' = 'new';
  const server = createServer({
    host: config.host,
    port: config.port,
    limits,
    clock,
    metrics,
    trustProxy: config.trustProxy,
    serve: createDataPlane({
      registry,
      invoke,
      accept: new Accept({
        ...{ calls: queue.calls, refuseInput, clock },
        bodies: new WholeBodies('async call', {
          ...{ bufferedBodyBytesMax, allBytesMax: acceptingBytesMax },
        }),
        checkCallback: url => queue.outbound.check(url),
      }),
      webhooks: new Webhooks({
        ...{ resources, registry, calls: queue.calls, refuseInput },
        bodies: new WholeBodies('webhook', { bufferedBodyBytesMax, allBytesMax: webhookBytesMax }),
        ...{ secrets: secretValues, clock, log },
        lookNow: bucket => queue.buckets.lookNow(bucket),
      }),
      pinned: (entry, number) => functions.pinned(entry, number),
      adminToken,
      trustProxy: config.trustProxy,
      clock,
      metrics,
      log,
      inFlight,
    }),
    control: {
      ...{ functions, versions, sources, registry, pool, output, records, invoke },
      ...{ queue: queue.queue, calls: queue.calls },
      signingKeyOf: functionId => signingKeyOf(functionId, sealer),
      ...{ secrets: secretValues, resources, schedules: queue.schedules },
      ...{ topics: queue.topics, pull: queue.pull, deadLetters: queue.deadLetters },
      runtimes: tools.runtimes,
      adminToken,
      clock,
      log,
    },
    isReady: () => state === 'ready',
  });
  registerGauges(metrics, {
    ...{ pool, registry, resources, records, queue: queue.queue },
    warmSizes: () => processes.warmSizes(),
  });

  let stopped: Promise<void> | undefined;
  async function stop(): Promise<void> {
    state = 'stopping';
    const cut = clock.after(limits.drainMsMax, () => {
      for (const [, signal] of inFlight.entries())
        signal.abort(new GatewayError('GATEWAY_STOPPING', 'the gateway is stopping'));
    });
    const built = versions.close();
    const emptied = queue.stop(limits.drainMsMax);
    // Each is tried, whatever became of the one before: nothing may go on running, or stay locked.
    const steps: Array<() => unknown> = [
      () => server.close(limits.drainMsMax + 1000),
      () => emptied,
      () => cut.cancel(),
      () => pool.stop(limits.graceMs),
      () => builder.close(),
      () => Promise.all(drivers.map(driver => driver.close())),
      // Only now: one that loads is ended with its driver.
      () => built,
      // After all that writes them.
      () => records.close(),
      () => store.close(),
      () => data.unlock(),
    ];
    for (const step of steps) {
      try {
        await step();
      } catch (error) {
        log.error('a part of the gateway did not stop in order', { error });
      }
    }
  }

  await registry.load();
  await secretValues.load();
  await resources.load();
  // Before anybody can upload what will only be named later.
  await sources.sweepUnused(() => store.functions.sourceDigests());
  return {
    adminToken,
    fetch: server.fetch,
    async start() {
      // What the gateway before left running has been ended with its keeper: nobody holds a lease. Before anything can be
      // accepted, whose lease, or whose blob, would be taken for one that is left over.
      await queue.start();
      const { url } = config.http ? await server.listen() : { url: undefined };
      await versions.resume();
      state = 'ready';
      // Behind the first calls' back: a gateway is ready before its pools are full.
      void processes.warmUp();
      return { url };
    },
    stop() {
      stopped ??= stop();
      return stopped;
    },
  };
}

/** Runtimes, interpreters and tools, staged where functions' users can run them when the gateway is root. */
function findInterpreters(config: Config, options: { isRoot: boolean; codePath: string }) {
  const { isRoot, codePath } = options;
  const own = readRuntimes([runtimesDirectory(), ...config.runtimeDirectories]);
  stageSdks(own, codePath);
  const staged = isRoot
    ? stageRuntimes(own, { directory: codePath, node: process.execPath })
    : { runtimes: own, node: process.execPath };
  const found = findTools({
    path: config.path,
    reachable: isRoot ? isReachableByAll : existsSync,
    node: staged.node,
    ...(config.npmExecPath !== undefined && { npmExecPath: config.npmExecPath }),
  });
  return {
    ...found,
    esbuild: isRoot ? stageEsbuild(codePath) : found.esbuild,
    runtimes: staged.runtimes,
  };
}

function stageEsbuild(codePath: string): string | undefined {
  const found = findEsbuild();
  if (found === undefined || isReachableByAll(found)) return found;
  const copy = join(codePath, 'runtimes', 'esbuild-binary');
  copyFileSync(found, copy);
  chmodSync(copy, 0o755);
  return copy;
}

/** Beside the sources in a checkout, beside `dist` in a package. */
function runtimesDirectory(): string {
  let directory = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(directory, 'runtimes', 'node', 'runtime.yaml'))) {
    const above = dirname(directory);
    if (above === directory)
      throw new GatewayError(
        'RUNTIME_INVALID',
        'the runtimes that belong to this program are missing',
      );
    directory = above;
  }
  return join(directory, 'runtimes');
}
