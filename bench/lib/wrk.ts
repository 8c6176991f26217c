/**
 * wrk as a function: one thread, a fixed number of connections, the numbers as it measured them.
 */
import { execFile } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

export interface Load {
  connections: number;
  seconds: number;
  headers?: Record<string, string>;
  /** POST a body of this size instead of GET. */
  bodyBytes?: number;
  /** POST this JSON instead of GET. */
  body?: string;
}

export interface LoadResult {
  requests: number;
  perSecond: number;
  p50Us: number;
  p99Us: number;
  /** Connections that failed, time-outs, and answers of 400 and above. */
  errors: number;
}

const run = promisify(execFile);
let scripts = 0;

/** `directory` is where the script for wrk goes while it runs. */
export async function runWrk(url: string, load: Load, directory: string): Promise<LoadResult> {
  const script = join(directory, `wrk-${scripts++}.lua`);
  writeFileSync(script, scriptOf(load));
  const { connections, seconds } = load;
  try {
    const { stdout } = await run(
      'wrk',
      ['-t1', `-c${connections}`, `-d${seconds}s`, '-s', script, url],
      { timeout: (seconds + 20) * 1000 },
    );
    return parse(stdout);
  } finally {
    rmSync(script, { force: true });
  }
}

function scriptOf({ headers = {}, bodyBytes, body }: Load): string {
  const lines = Object.entries(headers).map(
    ([name, value]) => `wrk.headers[${JSON.stringify(name)}] = ${JSON.stringify(value)}`,
  );
  if (bodyBytes !== undefined) {
    lines.push('wrk.method = "POST"', `wrk.body = string.rep("x", ${bodyBytes})`);
    lines.push('wrk.headers["content-type"] = "application/octet-stream"');
  }
  if (body !== undefined) {
    lines.push('wrk.method = "POST"', `wrk.body = ${JSON.stringify(body)}`);
    lines.push('wrk.headers["content-type"] = "application/json"');
  }
  lines.push(
    'done = function(summary, latency)',
    '  local e = summary.errors',
    '  io.write(string.format("RESULT %d %d %d %d %d\\n", summary.requests, summary.duration,',
    '    latency:percentile(50), latency:percentile(99),',
    '    e.connect + e.read + e.write + e.status + e.timeout))',
    'end',
  );
  return `${lines.join('\n')}\n`;
}

function parse(output: string): LoadResult {
  const found = /^RESULT (\d+) (\d+) (\d+) (\d+) (\d+)$/m.exec(output);
  if (found === null) throw new Error(`wrk says something unknown:\n${output}`);
  const [requests, durationUs, p50Us, p99Us, errors] = found.slice(1).map(Number) as [
    number,
    number,
    number,
    number,
    number,
  ];
  return { requests, perSecond: (requests / durationUs) * 1e6, p50Us, p99Us, errors };
}
