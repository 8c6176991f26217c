/**
 * Goal: the README works for somebody who follows it. Method: `npm start` as it stands there, in a clone that only its
 * owner may enter, as below a home of mode 0700; the lines it prints pasted into a shell, a second start on the same data,
 * and the README's own commands with the gateway running.
 */
import assert from 'node:assert/strict';
import { execFile, spawn, spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { promisify } from 'node:util';

const root = join(import.meta.dirname, '../..');
const run = promisify(execFile);
const fnway = join(root, 'node_modules/.bin/fnway');

let directory: string;
let environment: NodeJS.ProcessEnv;
const running = new Set<Started>();

interface Started {
  /** Resolves when the text has been printed. */
  printed(text: string): Promise<void>;
  output(): string;
  stop(): Promise<number | null>;
}

before(async () => {
  directory = mkdtempSync(join(tmpdir(), 'fnway-readme-'));
  const port = await freePort();
  const { FNWAY_URL: _, FNWAY_TOKEN: __, ...rest } = process.env;
  environment = {
    ...rest,
    FNWAY_PORT: String(port),
    FNWAY_URL: `http://127.0.0.1:${port}`,
    FNWAY_DATA: join(directory, 'data'),
  };
});

// All share one port: what a failed test leaves would fail the others.
afterEach(async () => {
  for (const started of running) await started.stop();
});

after(() => {
  rmSync(directory, { recursive: true, force: true });
});

test('npm start prints lines that answer when pasted, also at the second start', {
  timeout: 120_000,
}, async () => {
  // What functions run as, when the gateway is root, may not enter it either.
  assert.equal(statSync(directory).mode & 0o777, 0o700);
  const clone = join(directory, 'clone');
  copyProject(clone);
  const { FNWAY_DATA: _, ...withoutData } = environment;
  for (const attempt of ['first', 'second']) {
    const gateway = start('npm', ['start'], clone, withoutData);
    await gateway.printed('Watching');
    const lines = gateway.output().match(/^\s*curl .*$/gm) ?? [];
    assert.equal(lines.length, 3, `${attempt} start: ${gateway.output()}`);
    const answers = new Map<string, string>();
    for (const line of lines) {
      const { stdout } = await run('sh', ['-c', `${line} -sS --fail-with-body`]);
      answers.set(/function\/(\w+)/.exec(line)![1]!, stdout);
    }
    assert.equal(answers.get('hello'), 'Hello world\n');
    assert.match(answers.get('greet')!, /"greeting"/);
    assert.match(answers.get('disk')!, /Filesystem/);
    // npm itself ends by the signal; the gateway in it ends in good order, or the next start would find its lock.
    await gateway.stop();
    assert.match(gateway.output(), /Stopping/);
  }
  assert.ok(existsSync(join(clone, '.fnway/fnway.db')));
});

test('the commands of the README run with the gateway running', { timeout: 120_000 }, async () => {
  const blocks = [
    ...readFileSync(join(root, 'README.md'), 'utf8').matchAll(/```sh test=e2e\n([\s\S]*?)```/g),
  ];
  const commands = blocks.flatMap(([, block]) => block!.trim().split('\n'));
  assert.ok(commands.length >= 5);
  const quickstart = join(directory, 'quickstart');
  copyExample(quickstart);
  const gateway = start(fnway, ['up', quickstart, '--no-watch'], directory);
  await gateway.printed('curl');
  const outputs: string[] = [];
  for (const command of commands) {
    const { stdout } = await run('sh', ['-c', command.replace(/^npx fnway/, fnway)], {
      cwd: directory,
      env: environment,
    });
    outputs.push(stdout);
  }
  assert.ok(
    outputs.some(output => output.includes('Hello you')),
    outputs.join('---\n'),
  );
  assert.equal(await gateway.stop(), 0);
});

test('a saved file answers anew, and a broken one does not replace it', {
  timeout: 120_000,
}, async () => {
  const project = join(directory, 'project');
  copyExample(project);
  const gateway = start(fnway, ['up', project], directory);
  await gateway.printed('Watching');
  const handler = join(project, 'hello/handler.ts');
  const source = readFileSync(handler, 'utf8');
  const url = `${environment.FNWAY_URL}/function/hello`;
  writeFileSync(handler, source.replace('Hello', 'Ahoy'));
  await until(async () => (await (await fetch(url)).text()) === 'Ahoy world\n');
  writeFileSync(handler, `${source}\nexport const broken = ;\n`);
  await gateway.printed('handler.ts:');
  assert.equal(await (await fetch(url)).text(), 'Ahoy world\n');
  assert.equal(await gateway.stop(), 0);
});

/** As after `npm ci`: nothing that was made or run since. */
const left = new Set(['.git', '.start', '.fnway', 'dist', 'bench/node_modules']);

function copyProject(target: string): void {
  cpSync(root, target, {
    recursive: true,
    verbatimSymlinks: true,
    filter: source => !left.has(relative(root, source)),
  });
  copyExample(join(target, 'examples/quickstart'));
}

/** As it is committed, where that is known: who follows the README changes it, and then runs the tests. */
function copyExample(target: string): void {
  cpSync(join(root, 'examples/quickstart'), target, { recursive: true });
  const archive = spawnSync('git', ['archive', 'HEAD:examples/quickstart'], { cwd: root });
  if (archive.status === 0) spawnSync('tar', ['-x', '-C', target], { input: archive.stdout });
}

function start(command: string, args: string[], cwd: string, env = environment): Started {
  const child = spawn(command, args, { cwd, env, detached: true });
  let text = '';
  const watchers = new Set<() => void>();
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', chunk => {
      text += chunk;
      for (const watch of [...watchers]) watch();
    });
  }
  const exited = new Promise<number | null>(resolve => child.once('exit', resolve));
  void exited.then(() => {
    running.delete(started);
    for (const watch of [...watchers]) watch();
  });
  const started: Started = {
    output: () => text,
    printed: wanted =>
      new Promise((resolve, reject) => {
        function watch(): void {
          if (text.includes(wanted)) resolve();
          else if (child.exitCode !== null)
            reject(new Error(`it ended without «${wanted}»: ${text}`));
          else return;
          watchers.delete(watch);
        }
        watchers.add(watch);
        watch();
      }),
    async stop() {
      // npm passes signals on to the shell only: the group gets it, as from Ctrl+C.
      if (child.exitCode === null) process.kill(-child.pid!, 'SIGINT');
      return exited;
    },
  };
  running.add(started);
  return started;
}

function freePort(): Promise<number> {
  return new Promise(resolve => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}

/** Waits for a state that nothing announces. */
async function until(holds: () => Promise<boolean>): Promise<void> {
  while (!(await holds())) await new Promise(resolve => setTimeout(resolve, 10));
}
