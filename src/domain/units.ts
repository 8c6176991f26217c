/** Durations (`100ms`, `30s`, `2m`, `1h`, `1d`) and sizes (`512Ki`, `256Mi`, `1Gi`, plain bytes). Pure. */

const durationUnits: Record<string, number> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};
const sizeUnits: Record<string, number> = {
  '': 1,
  k: 1e3,
  Ki: 1024,
  M: 1e6,
  Mi: 1024 ** 2,
  G: 1e9,
  Gi: 1024 ** 3,
};

/** Milliseconds, or undefined when the text is not a duration. */
export function parseDuration(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(text);
  if (match === null) return undefined;
  return Math.round(Number(match[1]) * durationUnits[match[2]!]!);
}

/** Bytes, or undefined when the text is not a size. */
export function parseSize(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)(Ki|Mi|Gi|k|M|G)?$/.exec(text);
  if (match === null) return undefined;
  return Math.round(Number(match[1]) * sizeUnits[match[2] ?? '']!);
}

/** A moment as it is told everywhere. */
export function isoOf(ms: number): string {
  return new Date(ms).toISOString();
}

/** The shortest exact form: 90000 → `90s`, 60000 → `1m`. */
export function formatDuration(ms: number): string {
  for (const unit of ['d', 'h', 'm', 's'] as const) {
    if (ms > 0 && ms % durationUnits[unit]! === 0) return `${ms / durationUnits[unit]!}${unit}`;
  }
  return `${ms}ms`;
}

export function formatSize(bytes: number): string {
  for (const unit of ['Gi', 'Mi', 'Ki'] as const) {
    if (bytes > 0 && bytes % sizeUnits[unit]! === 0) return `${bytes / sizeUnits[unit]!}${unit}`;
  }
  return `${bytes}`;
}
