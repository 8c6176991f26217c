/**
 * The gateway's own log: one JSON line an entry on standard error, or a short text line for people.
 * Never secrets, never bodies. The output of functions is not written here (see telemetry/output.ts).
 */
export const logLevels = ['debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof logLevels)[number];

export interface Log {
  debug(message: string, fields?: Record<string, unknown>): void;
  info(message: string, fields?: Record<string, unknown>): void;
  warn(message: string, fields?: Record<string, unknown>): void;
  error(message: string, fields?: Record<string, unknown>): void;
}

export interface LogOptions {
  level: LogLevel;
  format: 'json' | 'text';
  now: () => number;
  write: (line: string) => void;
}

function createLog(options: LogOptions): Log {
  const threshold = logLevels.indexOf(options.level);
  function entry(level: LogLevel, message: string, fields: Record<string, unknown> = {}) {
    if (logLevels.indexOf(level) < threshold) return;
    const time = new Date(options.now()).toISOString();
    if (options.format === 'json') {
      options.write(`${JSON.stringify({ time, level, message, ...flatten(fields) })}\n`);
      return;
    }
    const rest = Object.entries(flatten(fields))
      .map(([key, value]) => ` ${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`)
      .join('');
    options.write(`${time.slice(11, 23)} ${level.padEnd(5)} ${message}${rest}\n`);
  }
  return {
    debug: (message, fields) => entry('debug', message, fields),
    info: (message, fields) => entry('info', message, fields),
    warn: (message, fields) => entry('warn', message, fields),
    error: (message, fields) => entry('error', message, fields),
  };
}

export const silentLog: Log = { debug() {}, info() {}, warn() {}, error() {} };

export function stderrLog(options: { level: LogLevel; format: 'json' | 'text' }): Log {
  return createLog({
    ...options,
    now: () => Date.now(),
    write: line => process.stderr.write(line),
  });
}

function flatten(fields: Record<string, unknown>): Record<string, unknown> {
  const result: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(fields)) {
    result[key] = value instanceof Error ? (value.stack ?? value.message) : value;
  }
  return result;
}
