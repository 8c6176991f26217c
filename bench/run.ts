/**
 * The benchmarks: `node bench/run.ts [--only warm,records,cold,prompt,density,scale] [--runs 5] [--seconds 4]
 * [--write]`. Checks what they need, runs the suites one after the other, prints one table. A
 * missed target is a row of the table, not a failure of the program.
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { closeConnections } from './lib/http.ts';
import { endWithUs } from './lib/processes.ts';
import { machine, Table } from './lib/report.ts';
import { backlog } from './suites/backlog.ts';
import { cold } from './suites/cold.ts';
import { density } from './suites/density.ts';
import { prompt } from './suites/prompt.ts';
import { queue } from './suites/queue.ts';
import { records } from './suites/records.ts';
import { scale } from './suites/scale.ts';
import type { Suite } from './suites/suite.ts';
import { warm } from './suites/warm.ts';

const suites: Record<string, Suite> = {
  warm,
  queue,
  backlog,
  records,
  cold,
  prompt,
  density,
  scale,
};
const page = join(import.meta.dirname, '../docs/internals/benchmarks.md');

/** Above this, something else takes a processor from what is measured. */
const busyLoadMin = 0.5;

interface Flags {
  only: string[];
  runs: number;
  seconds: number;
  write: boolean;
}

async function main(): Promise<void> {
  const flags = parseFlags();
  requirePrograms();
  endWithUs();
  const table = new Table();
  const [load] = loadavg() as [number];
  if (load > busyLoadMin)
    table.note(`the machine was busy before the run: load ${load.toFixed(1)}`);
  for (const name of flags.only) await runSuite(name, table, flags);
  closeConnections();
  console.log(`\n${machine()}\n\n${table.toMarkdown()}`);
  if (flags.write) writeFileSync(page, pageOf(table, flags));
}

function parseFlags(): Flags {
  const { values } = parseArgs({
    options: {
      only: { type: 'string' },
      runs: { type: 'string', default: '5' },
      seconds: { type: 'string', default: '4' },
      write: { type: 'boolean', default: false },
    },
  });
  const only = values.only?.split(',') ?? Object.keys(suites);
  const unknown = only.find(name => suites[name] === undefined);
  if (unknown !== undefined)
    refuse(`there is no suite ${unknown}; there are ${Object.keys(suites).join(', ')}`);
  if (values.write && values.only !== undefined)
    refuse('--write is for a run of all suites: the page has one table of one run');
  return {
    only,
    runs: numberOf(values.runs, '--runs', 50),
    seconds: numberOf(values.seconds, '--seconds', 60),
    write: values.write,
  };
}

function numberOf(text: string, flag: string, max: number): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1 || value > max)
    refuse(`${flag} is a whole number from 1 to ${max}`);
  return value;
}

/** Every program that the suites start and npm does not install. */
function requirePrograms(): void {
  const packages = { wrk: 'wrk', nginx: 'nginx-light', python3: 'python3' };
  const path = (process.env.PATH ?? '').split(':');
  // Debian's nginx is in sbin, which is not on everybody's PATH.
  process.env.PATH = [...path, '/usr/sbin'].join(':');
  const missing = Object.entries(packages).filter(
    ([program]) => ![...path, '/usr/sbin'].some(part => existsSync(join(part, program))),
  );
  if (missing.length > 0)
    refuse(`missing: apt-get install ${missing.map(([, name]) => name).join(' ')}`);
  if (!existsSync(join(import.meta.dirname, 'node_modules')))
    refuse('missing: npm ci --prefix bench');
}

function refuse(why: string): never {
  console.error(`bench: ${why}`);
  process.exit(2);
}

async function runSuite(name: string, table: Table, flags: Flags): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), `fnway-bench-${name}-`));
  // The functions of a gateway that is root have users of their own, and live in here.
  chmodSync(directory, 0o711);
  table.begin(name);
  try {
    await suites[name]!({
      report: table,
      directory,
      runs: flags.runs,
      seconds: flags.seconds,
      tell: text => console.error(`${name}: ${text}`),
    });
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function pageOf(table: Table, flags: Flags): string {
  const commit = execFileSync('git', ['rev-parse', '--short', 'HEAD'], {
    cwd: import.meta.dirname,
    encoding: 'utf8',
  }).trim();
  return `# Benchmarks

Written by \`node bench/run.ts --runs ${flags.runs} --seconds ${flags.seconds} --write\` \
on ${new Date().toISOString().slice(0, 10)}, at ${commit}.

- Machine: ${machine()}. Load generator, gateway, functions and peers share it.
- Ratios (×) are the medians of the ratios of each run; the peers take turns within a run.
- How each number is measured: the comments at the top of \`bench/suites/*.ts\`.
- How to run it: \`bench/README.md\`.

${table.toMarkdown()}
`;
}

await main();
