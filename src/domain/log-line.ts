/**
 * What a line of output says: how severe it is, its message, and its fields where it is a line of JSON, as loggers write
 * them (pino, winston, bunyan, structlog, Cloud Logging). Read when a line is shown; what is kept is the line itself. Pure.
 */
export const severities = ['debug', 'info', 'warning', 'error', 'critical'] as const;
export type Severity = (typeof severities)[number];

export interface ReadLine {
  severity: Severity;
  message: string;
  /** All but severity and message; absent for plain text. */
  fields?: Record<string, unknown>;
}

const names: Record<string, Severity> = {
  trace: 'debug',
  debug: 'debug',
  default: 'info',
  info: 'info',
  notice: 'info',
  warn: 'warning',
  warning: 'warning',
  error: 'error',
  critical: 'critical',
  fatal: 'critical',
  alert: 'critical',
  emergency: 'critical',
};

export function readLine(text: string, stream: 'stdout' | 'stderr'): ReadLine {
  const plain: ReadLine = { severity: stream === 'stderr' ? 'error' : 'info', message: text };
  if (!text.startsWith('{') || !text.trimEnd().endsWith('}')) return plain;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return plain;
  }
  const record = value as Record<string, unknown>;
  const severityKey = ['severity', 'level', 'levelname'].find(key => record[key] !== undefined);
  const severity = severityKey === undefined ? undefined : severityOf(record[severityKey]);
  const messageKey = ['message', 'msg', 'event'].find(key => typeof record[key] === 'string');
  const fields = Object.fromEntries(
    Object.entries(record).filter(
      ([key]) => key !== messageKey && (severity === undefined || key !== severityKey),
    ),
  );
  return {
    severity: severity ?? plain.severity,
    message: messageKey === undefined ? text : (record[messageKey] as string),
    fields,
  };
}

/** By name, or by the numbers of pino and bunyan. */
function severityOf(value: unknown): Severity | undefined {
  if (typeof value === 'string') {
    const name = value.toLowerCase();
    return Object.hasOwn(names, name) ? names[name] : undefined;
  }
  if (typeof value !== 'number') return undefined;
  if (value < 30) return 'debug';
  if (value < 40) return 'info';
  if (value < 50) return 'warning';
  return value < 60 ? 'error' : 'critical';
}
