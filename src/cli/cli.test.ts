/**
 * Goal: the command as people start it: help, mistakes and their exit codes, a small project
 * against a gateway. Method: spawns the real program; where a gateway is needed, a node:http server
 * plays the few routes.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';

const program = path.join(import.meta.dirname, 'cli.ts');
const directory = mkdtempSync(path.join(tmpdir(), 'fnway-cli-'));
after(() => rmSync(directory, { recursive: true }));

interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

function fnway(
  args: readonly string[],
  { cwd = directory, env = {}, input }: { cwd?: string; env?: object; input?: string } = {},
): Promise<Ended> {
  const child = spawn(process.execPath, [program, ...args], {
    cwd,
    // Nothing of the machine's own settings may reach the test.
    env: { PATH: process.env.PATH, FNWAY_URL: url, FNWAY_TOKEN: 'admin', ...env },
    stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
  });
  child.stdin?.end(input);
  const output = { stdout: '', stderr: '' };
  child.stdout!.setEncoding('utf8').on('data', text => {
    output.stdout += text;
  });
  child.stderr!.setEncoding('utf8').on('data', text => {
    output.stderr += text;
  });
  return new Promise(resolve => child.on('close', code => resolve({ code, ...output })));
}

let url = '';
const requests: { method: string; url: string; authorization: string; body: string }[] = [];
const problem = {
  type: 'urn:fnway:error:FUNCTION_NOT_FOUND',
  title: 'No such function',
  status: 404,
  code: 'FUNCTION_NOT_FOUND',
  detail: 'there is none',
  remedy: 'See the list.',
};
/** `METHOD path` → status and body. */
const routes: Record<string, [number, unknown]> = {
  'GET /v1/namespaces/default/functions': [200, { items: [] }],
  'GET /v1/namespaces/team/functions': [200, { items: [] }],
  'GET /v1/namespaces/default/functions/hello/token': [200, { token: 'fnt_x' }],
  'GET /function/hello': [200, 'Hello\n'],
  'POST /function/hello': [200, 'posted\n'],
  'GET /function/broken': [500, 'own words\n'],
};
const server = createServer(async (request, response) => {
  const body = Buffer.concat(await Array.fromAsync(request)).toString();
  const { method = '', url = '', headers } = request;
  requests.push({ method, url, authorization: headers.authorization ?? '', body });
  const [status, value] = routes[`${method} ${url.split('?')[0]}`] ?? [404, problem];
  const isText = typeof value === 'string';
  const type = status === 404 ? 'application/problem+json' : 'application/json';
  response.writeHead(status, { 'content-type': isText ? 'text/plain' : type });
  response.end(isText ? value : JSON.stringify(value));
});
before(async () => {
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
after(() => {
  server.closeAllConnections();
  server.close();
});

test('the help names every command and the global options, and so does the reference', async () => {
  const { code, stdout } = await fnway(['--help']);
  assert.equal(code, 0);
  const reference = readFileSync(
    path.join(import.meta.dirname, '../../docs/reference/cli.md'),
    'utf8',
  );
  const commands = 'new up serve plan apply destroy invoke deploy list describe logs remove token';
  for (const word of [...commands.split(' '), 'completion']) {
    assert.match(stdout, new RegExp(`^  ${word}\\b`, 'm'));
    assert.match(reference, new RegExp(`fnway ${word}\\b`));
  }
  for (const flag of ['--url', '--token', '--namespace', '--json', '--version']) {
    assert.match(stdout, new RegExp(flag));
    assert.match(reference, new RegExp(flag));
  }
});

test('every flag of every command is in the reference', async () => {
  const reference = readFileSync(
    path.join(import.meta.dirname, '../../docs/reference/cli.md'),
    'utf8',
  );
  for (const command of ['new', 'up', 'serve', 'destroy', 'invoke', 'deploy', 'list', 'logs']) {
    const { stdout } = await fnway([command, '--help']);
    const own = stdout.split('Global Options:')[0]!;
    for (const [flag] of own.matchAll(/--[a-z-]+/g)) {
      if (flag === '--help') continue;
      assert.ok(reference.includes(`\`${flag}`), `${command} ${flag}`);
    }
  }
});

test('--version prints the version and nothing else', async () => {
  const { code, stdout } = await fnway(['--version']);
  assert.match(stdout, /^\d+\.\d+\.\d+\n$/);
  assert.equal(code, 0);
});

test('an unknown command or option is 2, with the one that was meant', async () => {
  const command = await fnway(['lst']);
  assert.equal(command.code, 2);
  assert.match(command.stderr, /Unknown command 'lst'[\s\S]*Did you mean list\?/);
  const option = await fnway(['logs', 'x', '--lins', '3']);
  assert.equal(option.code, 2);
  assert.match(option.stderr, /Did you mean --lines\?[\s\S]*fnway logs --help/);
});

test('a gateway that is not there is 5: what, why and what to type', async () => {
  // Nothing listens on port 2, and no fetch refuses it as a "bad" one.
  const { code, stderr, stdout } = await fnway(['list', '--url', 'http://127.0.0.1:2']);
  assert.equal(code, 5);
  assert.equal(stdout, '');
  assert.match(
    stderr,
    /^✗ The gateway does not answer\n.*127\.0\.0\.1:2.*ECONNREFUSED.*\n.*→ .*fnway/,
  );
});

test('with --json a failure is its problem document', async () => {
  const { code, stderr } = await fnway(['describe', 'nope', '--json']);
  assert.equal(code, 3);
  assert.deepEqual(JSON.parse(stderr), problem);
  const usage = await fnway(['list', '--json', '--what']);
  assert.equal(usage.code, 2);
  assert.equal(JSON.parse(usage.stderr).code, 'COMMAND_INVALID');
});

test('a manifest with a mistake is 2, with line and column, and nothing is sent', async () => {
  const project = path.join(directory, 'bad');
  mkdirSync(project);
  writeFileSync(path.join(project, 'fnway.yaml'), 'functions:\n  a:\n    scrpt: x\n');
  requests.length = 0;
  const { code, stderr } = await fnway(['apply', project]);
  assert.equal(code, 2);
  assert.match(
    stderr,
    /fnway\.yaml:3:5: functions\.a\.scrpt: unknown key .* did you mean "script"/,
  );
  assert.equal(requests.length, 0);
});

test('an address that is none is 2', async () => {
  assert.equal((await fnway(['list', '--url', 'nonsense'])).code, 2);
});

test('the flag beats the environment, which beats the manifest', async () => {
  const project = path.join(directory, 'named');
  mkdirSync(project);
  writeFileSync(path.join(project, 'fnway.yaml'), 'namespace: team\nfunctions: {}\n');
  requests.length = 0;
  await fnway(['list'], { cwd: project });
  await fnway(['plan'], { cwd: project });
  await fnway(['list'], { cwd: project, env: { FNWAY_NAMESPACE: 'from-env' } });
  await fnway(['list', '-n', 'given'], { cwd: project, env: { FNWAY_NAMESPACE: 'from-env' } });
  const named = requests.filter(request => request.url.includes('/namespaces/'));
  // A plan asks for functions, and for each kind of resource.
  const functions = named.filter(request => request.url.includes('/functions'));
  const asked = functions.map(request => request.url.split('/')[3]);
  assert.deepEqual(asked, ['team', 'team', 'from-env', 'given']);
});

test('the token comes from the flag, the environment, or a local data directory', async () => {
  const project = path.join(directory, 'local');
  mkdirSync(path.join(project, '.fnway'), { recursive: true });
  writeFileSync(path.join(project, '.fnway', 'admin.token'), 'from-file\n');
  requests.length = 0;
  await fnway(['list'], { cwd: project, env: { FNWAY_TOKEN: '' } });
  await fnway(['list'], { cwd: project });
  await fnway(['list', '--token', 'flag'], { cwd: project });
  const sent = requests.map(request => request.authorization);
  assert.deepEqual(sent, ['Bearer from-file', 'Bearer admin', 'Bearer flag']);
});

test('destroy where nobody can answer is 2 without --yes, and asks nothing', async () => {
  requests.length = 0;
  for (const more of [[], ['--json']]) {
    const { code, stderr } = await fnway(['destroy', ...more]);
    assert.equal(code, 2);
    assert.match(stderr, /Add --yes/);
  }
  assert.equal(requests.length, 0);
});

test('lists are arrays with --json', async () => {
  const { stdout } = await fnway(['list', '--json']);
  assert.deepEqual(JSON.parse(stdout), []);
});

test('token show prints the token alone', async () => {
  assert.equal((await fnway(['token', 'show', 'hello'])).stdout, 'fnt_x\n');
});

test('invoke prints the answer; a body comes from -d or standard input', async () => {
  requests.length = 0;
  assert.deepEqual(await fnway(['invoke', 'hello', '--path', '?a=b']), {
    code: 0,
    stdout: 'Hello\n',
    stderr: '',
  });
  assert.equal((await fnway(['invoke', 'hello', '-d', '{"a":1}'])).stdout, 'posted\n');
  assert.equal((await fnway(['invoke', 'hello'], { input: 'piped' })).stdout, 'posted\n');
  assert.deepEqual(
    requests.map(({ method, url, body }) => [method, url, body]),
    [
      ['GET', '/function/hello?a=b', ''],
      ['POST', '/function/hello', '{"a":1}'],
      ['POST', '/function/hello', 'piped'],
    ],
  );
});

test('a failing status is 1 with the function’s own words; an unknown function is 3', async () => {
  const { code, stdout, stderr } = await fnway(['invoke', 'broken']);
  assert.deepEqual([code, stdout], [1, 'own words\n']);
  assert.match(stderr, /broken answered 500/);
  assert.equal((await fnway(['invoke', 'nope'])).code, 3);
});

test('new writes a sample and its entry, keeps comments, and overwrites nothing', async () => {
  const project = path.join(directory, 'fresh');
  mkdirSync(project);
  const run = (...args: string[]) => fnway(['new', ...args], { cwd: project });
  assert.equal((await run('node', 'one')).code, 0);
  const file = path.join(project, 'fnway.yaml');
  writeFileSync(file, `${readFileSync(file, 'utf8')}    auth: none # open to all\n`);
  assert.equal((await run('shell', 'two')).code, 0);
  const text = readFileSync(file, 'utf8');
  assert.match(text, /auth: none # open to all/);
  assert.match(text, /two:\n {4}runtime: shell\n {4}source: \.\/two\n/);
  assert.match((await run('golang', 'three')).stderr, /Did you mean go\?/);
  for (const args of [
    ['node', 'one'],
    ['nod', 'three'],
    ['node', 'No_Name'],
    ['node', '../up'],
  ]) {
    const { code, stderr } = await run(...args);
    assert.equal(code, 2, stderr);
  }
  assert.equal(readFileSync(file, 'utf8'), text);
});

test('completion prints a script for each shell, and completes commands', async () => {
  for (const shell of ['bash', 'zsh', 'fish']) {
    const { code, stdout } = await fnway(['completion', shell]);
    assert.equal(code, 0);
    assert.match(stdout, /fnway/);
  }
  assert.match((await fnway(['complete', '--', 'inv'])).stdout, /^invoke\t/);
});

test('colour is for terminals only', async () => {
  const { stdout } = await fnway(['--help']);
  assert.ok(!stdout.includes('\x1b['));
});

test('a filter that matches nothing is not told as an empty namespace', async () => {
  assert.match((await fnway(['list'])).stderr, /Start one: fnway new node hello/);
  const { stderr, code } = await fnway(['list', '--label', 'a=b']);
  assert.deepEqual([code, stderr], [0, 'No function in the namespace default is like that.\n']);
});

test('a method that no call can have, and a body that is a directory, are mistakes of the command', async () => {
  for (const args of [
    ['-X', 'G ET'],
    ['-X', 'TRACE'],
    ['-f', directory],
  ]) {
    const { code, stderr } = await fnway(['invoke', 'hello', ...args]);
    assert.deepEqual([code, /^✗ Invalid command\n/.test(stderr)], [2, true], stderr);
  }
});

test('a name that is none is told as such by deploy', async () => {
  const { code, stderr } = await fnway(['deploy', 'BAD', '--script', 'true']);
  assert.equal(code, 2);
  assert.match(stderr, /"BAD" is not a name of a function\./);
});

test('a mistake names the help of the command that it is in', async () => {
  const { code, stderr } = await fnway(['token', 'rotate']);
  assert.equal(code, 2);
  assert.match(stderr, /See `fnway token rotate --help`\./);
});

test('new writes the sample of each runtime', async () => {
  const project = path.join(directory, 'samples');
  mkdirSync(project);
  const samples = {
    node: 'handler.ts',
    python: 'handler.py',
    go: 'handler.go',
    shell: 'handler.sh',
  };
  for (const [runtime, file] of Object.entries(samples)) {
    const { code, stdout } = await fnway(['new', runtime, `a-${runtime}`], { cwd: project });
    assert.equal(code, 0);
    assert.match(stdout, new RegExp(`a-${runtime}/ \\(${file.replace('.', '\\.')}`));
  }
});
