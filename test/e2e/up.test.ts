/**
 * Goal: `fnway up` tells each change once, and says when a mistake is over. Method: the real command on a project whose
 * files are changed as an editor would; what it prints is read.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { waitFor } from '../../src/testing/index.ts';

const cli = join(import.meta.dirname, '../../src/cli/cli.ts');
const directory = mkdtempSync(join(tmpdir(), 'fnway-up-'));
const manifest = join(directory, 'fnway.yaml');
const limit = { timeout: 60_000 };
let gateway: ChildProcess;
let output = '';

function save(functions: string): void {
  writeFileSync(manifest, `functions:\n${functions}`);
}

/** Waits for what `change` makes it print, and takes all of it. */
async function afterChange(change: () => void, expected: RegExp): Promise<string> {
  output = '';
  change();
  await waitFor(() => expected.test(output), { what: `${expected} in ${output}` });
  return output;
}

const broken = '  a: { script: "if" }\n';
const other =
  '  b: { script: "echo b", auth: none }\n  d: { runtime: shell, source: d }\n  r: { runtime: shel, source: d }\n';

before(async () => {
  mkdirSync(join(directory, 'd'));
  writeFileSync(join(directory, 'd/handler.sh'), 'echo d\n');
  save(broken + other);
  gateway = spawn(process.execPath, [cli, 'up', '--port', '0'], {
    cwd: directory,
    env: { PATH: process.env.PATH, HOME: directory },
  });
  for (const stream of [gateway.stdout!, gateway.stderr!])
    stream.setEncoding('utf8').on('data', text => {
      output += text;
    });
  await waitFor(() => output.includes('Watching'), { what: 'the watch', timeoutMs: 30_000 });
}, limit);

after(async () => {
  gateway.kill('SIGTERM');
  if (gateway.exitCode === null) await once(gateway, 'exit');
  rmSync(directory, { recursive: true, force: true, maxRetries: 10 });
});

test('a function that failed at the start is told once', limit, async () => {
  const start = output;
  assert.match(start, /a version 1: script\.sh:1: /);
  // Had the first look deployed it again, that would be told before this.
  const text = await afterChange(
    () => writeFileSync(join(directory, 'd/handler.sh'), 'echo e\n'),
    /✓ d version 2/,
  );
  assert.doesNotMatch(start + text, /a version 2/);
  // Its source was saved too, but the gateway cannot run it: that was told.
  assert.equal((start + text).match(/no runtime shel\b/g)?.length, 1);
});

test('a mistake in the manifest is told with its line, and that it is over', limit, async () => {
  const text = await afterChange(
    () => save(`${broken}${other}  c: { sript: x }\n`),
    /did you mean/,
  );
  assert.match(text, /✗ fnway\.yaml\n✗ Invalid manifest\n {2}fnway\.yaml:6:/);
  await afterChange(() => save(broken + other), /fnway\.yaml is right again; nothing has changed/);
});

test('a manifest that is gone is missed by its name, and found again', limit, async () => {
  const away = join(directory, 'away');
  await afterChange(() => renameSync(manifest, away), /There is no fnway\.yaml\.\n/);
  await afterChange(() => renameSync(away, manifest), /fnway\.yaml is right again/);
});

test('a source that is gone is told once, and that it is back', limit, async () => {
  const [source, away] = [join(directory, 'd'), join(directory, 'away')];
  let text = await afterChange(
    () => renameSync(source, away),
    /✗ d fnway\.yaml:4:\d+: functions\.d\.source: The source \S+ does not exist/,
  );
  text += await afterChange(() => renameSync(away, source), /d is as it was/);
  assert.equal(text.match(/d fnway\.yaml.*does not exist/g)?.length, 1);
});

test('a function that is declared no more is said to stay', limit, async () => {
  await afterChange(
    () => save(broken + other.replace(/^ {2}b.*\n/, '')),
    /b is declared no more, and stays\. Remove it: fnway remove b/,
  );
});

test(
  'a function that was refused and is right again is deployed when it is saved',
  limit,
  async () => {
    const typo = broken + other.replace('d: { runtime: shell', 'd: { runtime: shel');
    await afterChange(() => save(typo), /d was not touched|d the gateway has no runtime shel/);
    output = '';
    save(broken + other);
    await afterChange(
      () => writeFileSync(join(directory, 'd/handler.sh'), 'echo again\n'),
      /✓ d version/,
    );
  },
);

test('a correction is deployed', limit, async () => {
  await afterChange(() => save(broken.replace('if', 'echo ok') + other), /✓ a version 2/);
});

test('a schema in a file of its own is followed', limit, async () => {
  const schema = join(directory, 'in.schema.json');
  writeFileSync(schema, '{"type":"object"}');
  await afterChange(
    () => save('  s: { script: "cat", auth: none, schema: { in: ./in.schema.json } }\n'),
    /✓ s.* version 1/,
  );
  await afterChange(() => writeFileSync(schema, '{"type":"array"}'), /✓ s.* version 2/);
  await afterChange(() => writeFileSync(schema, '{"type":'), /✗ s .*in\.schema\.json/);
  const text = await afterChange(() => writeFileSync(schema, '{"type":"array"}'), /s is as it was/);
  assert.doesNotMatch(text, /version/);
});
