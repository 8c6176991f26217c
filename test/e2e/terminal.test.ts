/**
 * Goal: what only happens on a terminal: the Tab key, questions and Ctrl-C, progress. Method: the
 * real command in a pseudo-terminal that python3 opens, keys written into it, its screen read as
 * text; a node:http server plays the gateway, and takes as long as a test wants.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { after, before, describe, test } from 'node:test';

const cli = join(import.meta.dirname, '../../src/cli/cli.ts');
const directory = mkdtempSync(join(tmpdir(), 'fnway-terminal-'));
const skip = spawnSync('python3', ['-c', 'import pty']).status !== 0;
const options = { skip, timeout: 60_000 };

/** Copies between a new terminal and our pipes; ends with the status of what ran in it. */
const openTerminal = `import os, pty, sys
sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))`;

/** Long enough for a loaded machine; a test that passes never waits for it. */
const screenMsMax = 20_000;

class Terminal {
  readonly #child: ChildProcess;
  readonly #ended: Promise<number | null>;
  #screen = '';
  #changed = () => {};

  constructor(args: readonly string[], { env = {}, cwd = directory } = {}) {
    this.#child = spawn('python3', ['-c', openTerminal, ...args], {
      cwd,
      env: { ...environment(), TERM: 'xterm', ...env },
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.#ended = new Promise(resolve => this.#child.on('close', resolve));
    this.#child.stdout!.setEncoding('utf8').on('data', text => {
      this.#screen += text;
      this.#changed();
    });
  }

  get screen(): string {
    return this.#screen;
  }

  type(keys: string): void {
    this.#child.stdin!.write(keys);
  }

  /** Waits until what came after the last call matches, and gives that. */
  async shows(pattern: RegExp): Promise<string> {
    const deadline = AbortSignal.timeout(screenMsMax);
    for (;;) {
      const match = pattern.exec(this.#screen);
      if (match !== null) {
        const seen = this.#screen.slice(0, match.index + match[0].length);
        this.#screen = this.#screen.slice(seen.length);
        return seen;
      }
      await new Promise<void>((resolve, reject) => {
        this.#changed = resolve;
        deadline.onabort = () => reject(new Error(`no ${pattern} in ${this.#screen}`));
      });
    }
  }

  /** The exit code. */
  ended(): Promise<number | null> {
    return this.#ended;
  }

  /** Ends what still runs: the hangup of its terminal. */
  close(): void {
    this.#child.kill('SIGKILL');
  }
}

const open: Terminal[] = [];
function terminal(args: readonly string[], given?: { env?: object; cwd?: string }): Terminal {
  const opened = new Terminal(args, given);
  open.push(opened);
  return opened;
}
after(() => {
  for (const opened of open) opened.close();
});

function fnway(args: readonly string[], given?: { env?: object; cwd?: string }): Terminal {
  return terminal([process.execPath, cli, ...args], given);
}

function environment(): Record<string, string> {
  const path = [join(directory, 'bin'), process.env.PATH].join(delimiter);
  return { PATH: path, HOME: directory, FNWAY_URL: url, FNWAY_TOKEN: 'admin', LANG: 'C.UTF-8' };
}

let url = '';
const removed: string[] = [];
const answerAfterMs = 0;
const functions = ['hello', 'billing'].map(name => ({ name, project: 'shop' }));
const server = createServer((request, response) => {
  const { method, url: path = '' } = request;
  const prefix = new URL(path, 'http://x').searchParams.get('prefix') ?? '';
  setTimeout(() => {
    if (method === 'DELETE') {
      removed.push(path.split('/').at(-1)!);
      response.writeHead(204).end();
      return;
    }
    const isFunctions = path.split('?')[0]!.endsWith('/functions');
    const items = functions.filter(({ name }) => isFunctions && name.startsWith(prefix));
    response.writeHead(200, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ items: answerAfterMs > 0 ? [] : items }));
  }, answerAfterMs);
});

before(async () => {
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  mkdirSync(join(directory, 'bin'));
  const start = `#!/bin/sh\nexec "${process.execPath}" "${cli}" "$@"\n`;
  writeFileSync(join(directory, 'bin', 'fnway'), start);
  chmodSync(join(directory, 'bin', 'fnway'), 0o755);
  mkdirSync(join(directory, 'handlers'));
  writeFileSync(join(directory, 'fnway.yaml'), 'project: shop\nfunctions: {}\n');
});
after(() => {
  server.closeAllConnections();
  server.close();
  rmSync(directory, { recursive: true, force: true, maxRetries: 10 });
});

describe('completion in bash', options, () => {
  /** A bash that has nothing but what we give it, with the completion sourced twice. */
  async function bash(): Promise<Terminal> {
    const inputrc = join(directory, 'inputrc');
    writeFileSync(inputrc, 'set enable-bracketed-paste off\nset bell-style none\n');
    const shell = terminal(['bash', '--norc', '--noprofile', '-i'], { env: { INPUTRC: inputrc } });
    shell.type("PS1='ready''> '\n");
    await shell.shows(/ready> /);
    const source = 'source <(fnway completion bash)';
    shell.type(`${source}; ${source}; echo so"urced"\n`);
    await shell.shows(/so"urced"\r\n/);
    assert.equal(await shell.shows(/ready> /), 'sourced\r\nready> ');
    return shell;
  }

  test('sourced twice it is silent, and Tab completes what fits', options, async () => {
    const shell = await bash();
    for (const [keys, line] of [
      ['desc\t', /describe $/],
      ['describe hell\t', /describe hello $/],
      ['new py\t', /new python $/],
      ['deploy x --runtime sh\t', /--runtime shell $/],
      ['up --log-level=w\t', /--log-level=warn $/],
      ['up --log-level e\t', /--log-level error $/],
      ['deploy x --source hand\t', /--source handlers\/$/],
      ['invoke hello -f fnway.y\t', /-f fnway\.yaml $/],
      ['plan hand\t', /plan handlers\/$/],
      ['--url http://127.0.0.1:1 desc\t', /describe $/],
    ] as const) {
      shell.type(`fnway ${keys}`);
      await shell.shows(line);
      // Ctrl-U takes the line away.
      shell.type('\x15');
    }
    shell.type('fnway describe \t\t');
    assert.match(await shell.shows(/billing\s+hello/), /describe/);
    shell.type('\x15');
    // Nothing on the line is run.
    shell.type('fnway deploy x --env A=$(echo ran >&2) --str\t');
    assert.doesNotMatch(await shell.shows(/--stream $/), /\r\nran/);
  });

  test('it offers no files where a function is meant', options, async () => {
    const shell = await bash();
    shell.type('fnway logs fnway.y\t');
    shell.type('; echo e"nd"\n');
    assert.doesNotMatch(await shell.shows(/e"nd"/), /fnway\.yaml/);
  });
});

describe('destroy', options, () => {
  test('a yes removes, a no is 1, Ctrl-C is 130, Ctrl-D is a no', options, async () => {
    for (const [keys, code, says] of [
      ['n\r', 1, /Nothing was removed\./],
      ['\r', 1, /Nothing was removed\./],
      ['\x04', 1, /Nothing was removed\./],
      ['\x03', 130, /Nothing was removed\./],
      ['y\r', 0, /2 removed/],
    ] as const) {
      const destroy = fnway(['destroy']);
      await destroy.shows(/Remove hello, billing from http:\S+\? \[y\/N\] /);
      assert.deepEqual(removed, []);
      destroy.type(keys);
      await destroy.shows(says);
      assert.equal(await destroy.ended(), code, JSON.stringify(keys));
      assert.doesNotMatch(destroy.screen, /Error|mistake/);
    }
    assert.deepEqual(removed.splice(0).sort(), ['billing', 'hello']);
  });
});
