/** Alerts as Alertmanager and Prometheus send them, and what a function gets of one. Pure. */
import { createHash } from 'node:crypto';
import { z } from 'zod';
import type { AlertRules } from '../../client/api.ts';
import { holdsAll } from './topic.ts';

const texts = z.record(z.string(), z.string());
const alertSchema = z.looseObject({
  status: z.enum(['firing', 'resolved']).optional(),
  labels: texts,
  annotations: texts.default({}),
  startsAt: z.string().default(''),
  endsAt: z.string().default(''),
  generatorURL: z.string().default(''),
  fingerprint: z.string().default(''),
});

/** A webhook of Alertmanager (version 4), or the list that Prometheus pushes. */
export const alertsPayloadSchema = z.union([
  z.looseObject({ alerts: z.array(alertSchema).max(10_000) }),
  z
    .array(alertSchema)
    .max(10_000)
    .transform(alerts => ({ alerts })),
]);

export type Alert = z.output<typeof alertSchema> & {
  status: 'firing' | 'resolved';
  fingerprint: string;
};

export function alertsIn(payload: z.output<typeof alertsPayloadSchema>, nowMs: number): Alert[] {
  return payload.alerts.map(alert => ({
    ...alert,
    status: alert.status ?? (isOver(alert.endsAt, nowMs) ? 'resolved' : 'firing'),
    // It becomes part of a header.
    fingerprint: /^[\x21-\x7e]{1,128}$/.test(alert.fingerprint)
      ? alert.fingerprint
      : fingerprintOf(alert.labels),
  }));
}

/** Prometheus says of an alert that is over when it ended; of one that fires, the time until which that holds, or none. */
function isOver(endsAt: string, nowMs: number): boolean {
  const ms = Date.parse(endsAt);
  return ms > 0 && ms <= nowMs;
}

/** The same labels are the same alert. */
function fingerprintOf(labels: Record<string, string>): string {
  const text = JSON.stringify(Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1)));
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}

export function isWanted({ status, match }: AlertRules, alert: Alert): boolean {
  return (status === 'all' || status === alert.status) && holdsAll(match ?? {}, alert.labels);
}

/** What its function is sent: the parameters with the alert's fields in them, or the alert. */
export function bodyOf({ parameters }: AlertRules, alert: Alert): string {
  if (parameters === undefined) return JSON.stringify(alert);
  const filled = Object.entries(parameters).map(([key, template]) => [
    key,
    template.replace(/\{\{\s*([^{}]*?)\s*\}\}/g, (_, field: string) => fieldOf(alert, field)),
  ]);
  return JSON.stringify(Object.fromEntries(filled));
}

/** Empty where the alert has none. */
function fieldOf(alert: Alert, field: string): string {
  const [, part, name] = /^(labels|annotations)\.(.+)$/.exec(field) ?? [];
  if (part === undefined) return String((alert as Record<string, unknown>)[field] ?? '');
  const from = alert[part as 'labels' | 'annotations'];
  return Object.hasOwn(from, name!) ? from[name!]! : '';
}
