/**
 * Counters of the gateway in Prometheus' text format. Plain numbers in plain objects: a call costs two map look-ups
 * and a few additions; text is made only when somebody scrapes. Series of a removed function go with it.
 */
const latencyBucketsS = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60,
];

export interface FunctionSeries {
  namespace: string;
  name: string;
  inFlight: number;
  statuses: Map<number, number>;
  failures: Map<string, number>;
  latency: Histogram;
  queueWait: Histogram;
  coldStarts: number;
}

class Histogram {
  readonly counts = new Float64Array(latencyBucketsS.length + 1);
  sumS = 0;
  total = 0;

  observe(ms: number): void {
    const seconds = ms / 1000;
    let i = 0;
    while (i < latencyBucketsS.length && seconds > latencyBucketsS[i]!) i++;
    this.counts[i]!++;
    this.sumS += seconds;
    this.total++;
  }
}

export interface CallMetrics {
  /** What `ended` is given: also for a function that is removed meanwhile. */
  started(namespace: string, name: string): FunctionSeries;
  ended(series: FunctionSeries, status: number, ms: number, failure: string | undefined): void;
}

/** A number that is asked for when somebody scrapes. */
export type Gauge = () => Array<{ labels: Record<string, string>; value: number }>;

export class Metrics implements CallMetrics {
  readonly #functions = new Map<string, Map<string, FunctionSeries>>();
  readonly #gauges = new Map<string, { help: string; read: Gauge }>();
  #refused = new Map<string, number>();

  started(namespace: string, name: string): FunctionSeries {
    const series = this.#of(namespace, name);
    series.inFlight++;
    return series;
  }

  ended(series: FunctionSeries, status: number, ms: number, failure: string | undefined): void {
    series.inFlight--;
    series.statuses.set(status, (series.statuses.get(status) ?? 0) + 1);
    series.latency.observe(ms);
    if (failure !== undefined)
      series.failures.set(failure, (series.failures.get(failure) ?? 0) + 1);
  }

  waited(namespace: string, name: string, ms: number): void {
    this.#functions.get(namespace)?.get(name)?.queueWait.observe(ms);
  }

  coldStart(namespace: string, name: string): void {
    this.#of(namespace, name).coldStarts++;
  }

  /** A request to a function that the gateway answered itself, or whose caller left: by the code of its error. */
  refused(code: string): void {
    this.#refused.set(code, (this.#refused.get(code) ?? 0) + 1);
  }

  gauge(name: string, help: string, read: Gauge): void {
    this.#gauges.set(name, { help, read });
  }

  remove(namespace: string, name: string): void {
    this.#functions.get(namespace)?.delete(name);
  }

  text(): string {
    const all = [...this.#functions.values()].flatMap(names => [...names.values()]);
    const lines: string[] = [];
    family(
      lines,
      'fnway_calls_total',
      'counter',
      'Calls that were answered, by function and status.',
    );
    for (const s of all)
      for (const [status, n] of s.statuses)
        lines.push(`fnway_calls_total{${who(s)},status="${status}"} ${n}`);
    family(
      lines,
      'fnway_call_failures_total',
      'counter',
      'Calls in which the function failed, by reason.',
    );
    for (const s of all)
      for (const [reason, n] of s.failures)
        lines.push(`fnway_call_failures_total{${who(s)},reason="${reason}"} ${n}`);
    family(lines, 'fnway_calls_in_flight', 'gauge', 'Calls whose head has not been answered yet.');
    for (const s of all) lines.push(`fnway_calls_in_flight{${who(s)}} ${s.inFlight}`);
    family(lines, 'fnway_call_duration_seconds', 'histogram', "Time to a reply's head.");
    for (const s of all) histogram(lines, 'fnway_call_duration_seconds', s, s.latency);
    family(
      lines,
      'fnway_queue_wait_seconds',
      'histogram',
      'Time that calls waited for an instance, of those that waited.',
    );
    for (const s of all) histogram(lines, 'fnway_queue_wait_seconds', s, s.queueWait);
    family(lines, 'fnway_cold_starts_total', 'counter', 'Instances started because a call waited.');
    for (const s of all) lines.push(`fnway_cold_starts_total{${who(s)}} ${s.coldStarts}`);
    family(
      lines,
      'fnway_requests_refused_total',
      'counter',
      'Requests to functions that the gateway answered itself, or whose caller left, by error code.',
    );
    for (const [code, n] of this.#refused)
      lines.push(`fnway_requests_refused_total{code="${code}"} ${n}`);
    for (const [name, { help, read }] of this.#gauges) {
      family(lines, name, 'gauge', help);
      for (const { labels, value } of read()) lines.push(`${name}${labelText(labels)} ${value}`);
    }
    return `${lines.join('\n')}\n`;
  }

  #of(namespace: string, name: string): FunctionSeries {
    let names = this.#functions.get(namespace);
    if (names === undefined) {
      names = new Map();
      this.#functions.set(namespace, names);
    }
    let series = names.get(name);
    if (series === undefined) {
      series = {
        namespace,
        name,
        inFlight: 0,
        statuses: new Map(),
        failures: new Map(),
        latency: new Histogram(),
        queueWait: new Histogram(),
        coldStarts: 0,
      };
      names.set(name, series);
    }
    return series;
  }
}

function family(lines: string[], name: string, type: string, help: string): void {
  lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`);
}

/** Names are checked when a function is made: they hold nothing that needs escaping. */
function who(series: FunctionSeries): string {
  return `namespace="${series.namespace}",function="${series.name}"`;
}

function histogram(lines: string[], name: string, series: FunctionSeries, values: Histogram): void {
  if (values.total === 0) return;
  let below = 0;
  for (let i = 0; i < latencyBucketsS.length; i++) {
    below += values.counts[i]!;
    lines.push(`${name}_bucket{${who(series)},le="${latencyBucketsS[i]}"} ${below}`);
  }
  lines.push(
    `${name}_bucket{${who(series)},le="+Inf"} ${values.total}`,
    `${name}_sum{${who(series)}} ${values.sumS}`,
    `${name}_count{${who(series)}} ${values.total}`,
  );
}

function labelText(labels: Record<string, string>): string {
  const text = Object.entries(labels)
    .map(
      ([key, value]) =>
        `${key}="${value.replace(/[\\"\n]/g, c => (c === '\n' ? '\\n' : `\\${c}`))}"`,
    )
    .join(',');
  return text === '' ? '' : `{${text}}`;
}
