/**
 * The settings of a gateway: from flags, then environment, then defaults. The only file that knows their names.
 * `docs/reference/config.md` is checked against `settings`.
 */
import { isAbsolute, relative, resolve } from 'node:path';
import { parseDuration, parseSize } from './domain/units.ts';
import { GatewayError } from './errors.ts';
import { type LogLevel, logLevels } from './log.ts';

export interface Config {
  dataDirectory: string;
  host: string;
  port: number;
  adminToken: string | undefined;
  runtimeDirectories: string[];
  logLevel: LogLevel;
  logFormat: 'json' | 'text';
  /** Whether it listens at all. */
  http: boolean;
  trustProxy: boolean;
  /** `warm` of every runtime; undefined leaves it to the runtimes. */
  warm: number | undefined;
  records: RecordSettings;
  /** Absolute paths of modules that stand around every call, the outermost first. */
  middleware: string[];
  /** Undefined: 65,536 users of a place that follows from the data directory. */
  uidRange: { first: number; count: number } | undefined;
  limits: Limits;
  /** PATH of build tools; functions get a fixed one. */
  path: string;
  npmExecPath: string | undefined;
  /** Undefined: below the data directory. */
  goCache: string | undefined;
  /** Whether callbacks may lead into private networks. */
  allowPrivateCallbacks: boolean;
  /** How long jobs that have ended are kept, and dead ones. */
  jobsKeptMs: { ended: number; dead: number };
  toolEnv: Record<string, string>;
}

export interface RecordSettings {
  /** Whether calls leave records. Lines of output are kept either way. */
  kept: boolean;
  records: Retention;
  lines: Retention;
  bodies: Retention;
}

export interface Retention {
  keptMs: number;
  bytesMax: number;
}

export interface Limits {
  /** Open at once; the loopback interface counts too. */
  connectionsMax: number;
  headersBytesMax: number;
  headersMsMax: number;
  bodyIdleMsMax: number;
  bufferedBodyBytesMax: number;
  waitingCallsMax: number;
  /** Ready versions of a function that are kept, the newest, and as many failed ones; the active one always is. */
  versionsKeptMax: number;
  loadMsMax: number;
  buildMsMax: number;
  /** After a call in an instance timed out: for the other calls in it. */
  graceMs: number;
  /** After SIGTERM: for the calls in flight. */
  drainMsMax: number;
}

interface Setting {
  flag: string;
  env: string;
  default: string;
  help: string;
}

/** Every setting that a user may give, with its default. */
export const settings = {
  data: { flag: 'data', env: 'FNWAY_DATA', default: '.fnway', help: 'directory of all state' },
  host: { flag: 'host', env: 'FNWAY_HOST', default: '127.0.0.1', help: 'address to listen on' },
  port: {
    flag: 'port',
    env: 'FNWAY_PORT',
    default: '8080',
    help: 'port to listen on; 0 takes a free one',
  },
  adminToken: {
    flag: '',
    env: 'FNWAY_ADMIN_TOKEN',
    default: '',
    help: 'admin token instead of the one in the data directory',
  },
  runtimes: {
    flag: 'runtimes',
    env: 'FNWAY_RUNTIMES',
    default: '',
    help: 'directories of more runtimes, separated by :',
  },
  middleware: {
    flag: 'middleware',
    env: 'FNWAY_MIDDLEWARE',
    default: '',
    help: 'modules that stand around every call, separated by :, the outermost first; inside the working directory',
  },
  logLevel: {
    flag: 'logLevel',
    env: 'FNWAY_LOG_LEVEL',
    default: 'info',
    help: 'debug, info, warn, error or silent',
  },
  logFormat: { flag: 'logFormat', env: 'FNWAY_LOG_FORMAT', default: 'json', help: 'json or text' },
  http: {
    flag: 'http',
    env: 'FNWAY_HTTP',
    default: 'true',
    help: '`false`, or `serve --no-http`: it listens nowhere, and runs what triggers bring',
  },
  trustProxy: {
    flag: 'trustProxy',
    env: 'FNWAY_TRUST_PROXY',
    default: 'false',
    help: 'believe X-Forwarded-Host and X-Forwarded-Proto of a proxy in front',
  },
  warm: {
    flag: 'warm',
    env: 'FNWAY_WARM',
    default: '',
    help: 'ready processes of each runtime, instead of the runtimes’ own number',
  },
  uidRange: {
    flag: 'uidRange',
    env: 'FNWAY_UID_RANGE',
    default: '',
    help: 'FIRST:COUNT of the users that functions run as when the gateway is root; else 65,536 from a place of the data directory’s own',
  },
  records: {
    flag: 'records',
    env: 'FNWAY_RECORDS',
    default: 'true',
    help: 'whether calls leave records',
  },
  recordsKeptMs: {
    flag: 'recordsKeptMs',
    env: 'FNWAY_RECORDS_KEPT',
    default: '7d',
    help: 'age at which records of calls go',
  },
  recordsBytesMax: {
    flag: 'recordsBytesMax',
    env: 'FNWAY_RECORDS_BYTES_MAX',
    default: '1Gi',
    help: 'records of calls on disk; beyond, the oldest go',
  },
  linesKeptMs: {
    flag: 'linesKeptMs',
    env: 'FNWAY_LOGS_KEPT',
    default: '7d',
    help: 'age at which lines of output go',
  },
  linesBytesMax: {
    flag: 'linesBytesMax',
    env: 'FNWAY_LOGS_BYTES_MAX',
    default: '1Gi',
    help: 'lines of output on disk; beyond, the oldest go',
  },
  bodiesKeptMs: {
    flag: 'bodiesKeptMs',
    env: 'FNWAY_BODIES_KEPT',
    default: '7d',
    help: 'age at which recorded bodies go',
  },
  bodiesBytesMax: {
    flag: 'bodiesBytesMax',
    env: 'FNWAY_BODIES_BYTES_MAX',
    default: '1Gi',
    help: 'recorded bodies on disk; beyond, the oldest go',
  },
  allowPrivateCallbacks: {
    flag: 'allowPrivateCallbacks',
    env: 'FNWAY_ALLOW_PRIVATE_CALLBACKS',
    default: 'false',
    help: 'whether callbacks may lead into private networks and to this machine',
  },
  jobsKeptMs: {
    flag: 'jobsKeptMs',
    env: 'FNWAY_JOBS_KEPT',
    default: '1d',
    help: 'age at which results of async calls go, since they ended',
  },
  deadJobsKeptMs: {
    flag: 'deadJobsKeptMs',
    env: 'FNWAY_DEAD_JOBS_KEPT',
    default: '7d',
    help: 'age at which dead jobs go, since they died',
  },
  goCache: {
    flag: 'goCache',
    env: 'FNWAY_GO_CACHE',
    default: '',
    help: 'directory for Go’s standard library, compiled once for all functions; else one below the data directory',
  },
  connectionsMax: {
    flag: 'connectionsMax',
    env: 'FNWAY_CONNECTIONS_MAX',
    default: '10000',
    help: 'connections of clients at once',
  },
  headersBytesMax: {
    flag: 'headersBytesMax',
    env: 'FNWAY_HEADERS_BYTES_MAX',
    default: '32Ki',
    help: 'request line and headers together',
  },
  headersMsMax: {
    flag: 'headersMsMax',
    env: 'FNWAY_HEADERS_MS_MAX',
    default: '10s',
    help: 'time for a request’s headers to arrive',
  },
  bodyIdleMsMax: {
    flag: 'bodyIdleMsMax',
    env: 'FNWAY_BODY_IDLE_MS_MAX',
    default: '60s',
    help: 'time between two pieces of a request body',
  },
  bufferedBodyBytesMax: {
    flag: 'bufferedBodyBytesMax',
    env: 'FNWAY_BUFFERED_BODY_BYTES_MAX',
    default: '16Mi',
    help: 'body of a handler that needs it whole',
  },
  waitingCallsMax: {
    flag: 'waitingCallsMax',
    env: 'FNWAY_WAITING_CALLS_MAX',
    default: '1000',
    help: 'calls of a version beyond those that its instances can run',
  },
  versionsKeptMax: {
    flag: 'versionsKeptMax',
    env: 'FNWAY_VERSIONS_KEPT_MAX',
    default: '10',
    help: 'ready versions of a function that are kept, and as many failed ones',
  },
  loadMsMax: {
    flag: 'loadMsMax',
    env: 'FNWAY_LOAD_MS_MAX',
    default: '30s',
    help: 'time for a function’s code to load',
  },
  buildMsMax: {
    flag: 'buildMsMax',
    env: 'FNWAY_BUILD_MS_MAX',
    default: '10m',
    help: 'time for a build',
  },
  graceMs: {
    flag: 'graceMs',
    env: 'FNWAY_GRACE_MS',
    default: '5s',
    help: 'time for the other calls of an instance in which one timed out',
  },
  drainMsMax: {
    flag: 'drainMsMax',
    env: 'FNWAY_DRAIN_MS_MAX',
    default: '30s',
    help: 'time for calls in flight when the gateway stops',
  },
} as const satisfies Record<string, Setting>;

type SettingName = keyof typeof settings;

/** Those with a flag of `serve` and `up`; all others are for the environment. */
export const commandLineSettings: readonly SettingName[] = [
  'data',
  'host',
  'port',
  'runtimes',
  'middleware',
  'logLevel',
  'logFormat',
];

/** Of the machine's environment: what installers may see. */
const toolVariables =
  /^(?:PIP_\w+|GO(?:PROXY|NOPROXY|PRIVATE|SUMDB|NOSUMDB|INSECURE|AUTH|TOOLCHAIN)|npm_config_(?:registry|userconfig|proxy|https_proxy|noproxy|cafile|strict_ssl)|https?_proxy|no_proxy|HTTPS?_PROXY|NO_PROXY|SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE|NODE_EXTRA_CA_CERTS)$/;

/** PATH where nobody has said another: the machine's own programs, not those of whoever started the gateway. */
export const systemPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

function parseUidRange(text: string, refuse: (rule: string) => never): Config['uidRange'] {
  if (text === '') return undefined;
  const range = /^(\d{1,10}):(\d{1,7})$/.exec(text);
  const [first, count] = [Number(range?.[1]), Number(range?.[2])];
  if (first >= 1000 && count >= 1 && first + count < 4_294_967_294) return { first, count };
  return refuse('give FIRST:COUNT, with FIRST from 1000');
}

export function parseConfig(
  flags: Record<string, string | string[] | boolean | undefined>,
  env: Record<string, string | undefined>,
): Config {
  function text(name: SettingName): string {
    const setting: Setting = settings[name];
    const flag = setting.flag === '' ? undefined : flags[setting.flag];
    // An empty one is a mistake of a script, not a wish for the default.
    if (flag !== undefined) return Array.isArray(flag) ? flag.join(':') : String(flag);
    return env[setting.env] || setting.default;
  }
  const refuse = (name: SettingName, rule: string): never => {
    const { flag, env: variable } = settings[name];
    const where = commandLineSettings.includes(name)
      ? `--${flag.replace(/[A-Z]/g, c => `-${c.toLowerCase()}`)} (${variable})`
      : variable;
    throw new GatewayError('CONFIG_INVALID', `${where} is ${JSON.stringify(text(name))}; ${rule}`);
  };
  const integer = (name: SettingName, min: number, max: number): number => {
    const value = /^-?\d{1,15}$/.test(text(name)) ? Number(text(name)) : Number.NaN;
    if (value >= min && value <= max) return value;
    return refuse(name, `give a whole number from ${min} to ${max}`);
  };
  const duration = (name: SettingName, minMs = 1): number => {
    const ms = parseDuration(text(name)) ?? -1;
    const rule = `give a duration such as 500ms or 30s, from ${minMs}ms to 24d`;
    return ms >= minMs && ms <= timerMsLargest ? ms : refuse(name, rule);
  };
  const size = (name: SettingName, bytesMin: number, bytesMax: number): number => {
    const bytes = parseSize(text(name)) ?? -1;
    const rule = `give a size such as 64Ki or 16Mi, from ${bytesMin} to ${bytesMax} bytes`;
    return bytes >= bytesMin && bytes <= bytesMax ? bytes : refuse(name, rule);
  };
  const oneOf = <T extends string>(name: SettingName, values: readonly T[]): T =>
    values.includes(text(name) as T)
      ? (text(name) as T)
      : refuse(name, `give one of ${values.join(', ')}`);
  const isTrue = (name: SettingName) => oneOf(name, ['true', 'false']) === 'true';
  if (text('data').trim() === '') refuse('data', 'give a directory');
  return {
    dataDirectory: resolve(text('data')),
    host: text('host'),
    port: integer('port', 0, 65_535),
    adminToken: env.FNWAY_ADMIN_TOKEN,
    runtimeDirectories: pathsOf(text('runtimes')).map(part => resolve(part)),
    middleware: pathsOf(text('middleware')).map(insideHere),
    logLevel: oneOf('logLevel', logLevels),
    logFormat: oneOf('logFormat', ['json', 'text']),
    http: isTrue('http'),
    trustProxy: isTrue('trustProxy'),
    warm: text('warm') === '' ? undefined : integer('warm', 0, 100),
    uidRange: parseUidRange(text('uidRange'), rule => refuse('uidRange', rule)),
    records: {
      kept: isTrue('records'),
      ...parseRetention({ text, refuse, size }),
    },
    limits: parseLimits({ integer, duration, size }),
    path: env.PATH ?? systemPath,
    npmExecPath: env.npm_execpath,
    allowPrivateCallbacks: isTrue('allowPrivateCallbacks'),
    jobsKeptMs: parseJobsKept({ text, refuse }),
    goCache: text('goCache') === '' ? undefined : resolve(text('goCache')),
    toolEnv: Object.fromEntries(
      Object.entries(env).filter(([key, value]) => value !== undefined && toolVariables.test(key)),
    ) as Record<string, string>,
  };
}

function pathsOf(text: string): string[] {
  return text.split(':').filter(part => part !== '');
}

/** Code that runs as the gateway comes from the project that starts it. */
function insideHere(given: string): string {
  const path = resolve(given);
  const fromHere = relative(resolve(), path);
  if (!fromHere.startsWith('..') && !isAbsolute(fromHere) && fromHere !== '') return path;
  const detail = `${given} lies outside the working directory ${resolve()}`;
  throw new GatewayError('MIDDLEWARE_INVALID', detail, {
    remedy: 'Start the gateway in the directory of the project that the module belongs to.',
  });
}

function parseRetention(read: {
  text(name: SettingName): string;
  refuse(name: SettingName, rule: string): never;
  size(name: SettingName, bytesMin: number, bytesMax: number): number;
}): Omit<RecordSettings, 'kept'> {
  const { size } = read;
  const retention = (kept: SettingName, bytes: SettingName): Retention => {
    const keptMs = parseKept(kept, read);
    return { keptMs, bytesMax: size(bytes, retainedBytesSmallest, retainedBytesLargest) };
  };
  return {
    records: retention('recordsKeptMs', 'recordsBytesMax'),
    lines: retention('linesKeptMs', 'linesBytesMax'),
    bodies: retention('bodiesKeptMs', 'bodiesBytesMax'),
  };
}

interface Reader {
  text(name: SettingName): string;
  refuse(name: SettingName, rule: string): never;
}

function parseJobsKept(read: Reader): Config['jobsKeptMs'] {
  return { ended: parseKept('jobsKeptMs', read), dead: parseKept('deadJobsKeptMs', read) };
}

function parseKept(name: SettingName, read: Reader): number {
  const keptMs = parseDuration(read.text(name)) ?? -1;
  if (keptMs >= 1000 && keptMs <= keptMsLargest) return keptMs;
  return read.refuse(name, 'give a duration such as 12h or 7d, from 1s to 3650d');
}

function parseLimits(read: {
  integer(name: SettingName, min: number, max: number): number;
  duration(name: SettingName, minMs?: number): number;
  size(name: SettingName, bytesMin: number, bytesMax: number): number;
}): Limits {
  const { integer, duration, size } = read;
  return {
    connectionsMax: integer('connectionsMax', 1, 1_000_000),
    headersBytesMax: size('headersBytesMax', 1024, headersBytesLargest),
    headersMsMax: duration('headersMsMax'),
    bodyIdleMsMax: duration('bodyIdleMsMax'),
    bufferedBodyBytesMax: size('bufferedBodyBytesMax', 1, bufferedBodyBytesLargest),
    waitingCallsMax: integer('waitingCallsMax', 0, 1_000_000),
    versionsKeptMax: integer('versionsKeptMax', 1, 1_000_000),
    loadMsMax: duration('loadMsMax'),
    buildMsMax: duration('buildMsMax'),
    graceMs: duration('graceMs', 0),
    drainMsMax: duration('drainMsMax', 0),
  };
}

const keptMsLargest = 3650 * 86_400_000;
const retainedBytesSmallest = 1024 ** 2;
const retainedBytesLargest = 1024 ** 5;
/** What a timer can wait. */
const timerMsLargest = 24 * 86_400_000;
/** A call's head must fit into one frame of the link. */
const headersBytesLargest = 60_000;
/** A body that is whole is one piece of memory, here and in the instance. */
const bufferedBodyBytesLargest = 1024 ** 3;
