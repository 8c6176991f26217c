/**
 * Goal: a function's user gets nothing of the gateway's, and leaves nothing behind. Method: functions that try: links in
 * place of what the gateway writes, a pipe in place of what it reads, processes that leave their group. Root only, since
 * functions have users of their own only then.
 */
import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { startTestGateway, type TestGateway, waitFor } from '../../src/testing/index.ts';

const skip =
  process.getuid?.() !== 0 && 'functions have users of their own only when the gateway is root';
let gateway: TestGateway;
let victim: string;

before(async () => {
  victim = mkdtempSync(join(tmpdir(), 'fnway-victim-'));
  chmodSync(victim, 0o700);
  gateway = await startTestGateway({ shared: true, settings: { loadMsMax: '500ms' } });
});
after(() => rmSync(victim, { recursive: true, force: true }));

/** Processes whose command line begins so. */
function processesOf(command: string[]): string[] {
  const wanted = command.join('\0');
  return readdirSync('/proc').filter(entry => {
    try {
      return (
        Number(entry) > 0 && readFileSync(`/proc/${entry}/cmdline`, 'latin1').startsWith(wanted)
      );
    } catch {
      return false;
    }
  });
}

test('links that a build leaves lead the gateway nowhere', { skip }, async () => {
  const install = [
    'cd ..; [ -f handler.js ] || cd "$INIT_CWD"',
    `rm -rf .fnway; ln -s ${victim} .fnway; mkdir -p node_modules; ln -s ${victim} node_modules/fnway`,
  ].join('\n');
  await gateway.put('linker', {
    runtime: 'node',
    allowScripts: true,
    source: {
      files: {
        'handler.js': 'export default () => new Response("x");',
        'package.json': '{"dependencies":{"a":"file:./a"}}',
        'a/package.json': '{"name":"a","version":"1.0.0","scripts":{"postinstall":"sh ./x.sh"}}',
        'a/x.sh': install,
      },
    },
  });
  assert.equal(await (await gateway.call('/function/linker')).text(), 'x');
  await gateway.control('/v1/namespaces/default/functions/linker', { method: 'DELETE' });
  assert.deepEqual(
    [statSync(victim).uid, statSync(victim).mode & 0o777, readdirSync(victim)],
    [0, 0o700, []],
  );
});

test('a pipe in place of its script stops the function, not the gateway', { skip }, async () => {
  await gateway.put('pipe', {
    script: 'rm -f script.sh; mkfifo script.sh',
    timeout: '300ms',
  });
  assert.equal((await gateway.call('/function/pipe')).status, 200);
  await waitFor(async () => (await gateway.call('/function/pipe')).status === 504);
  assert.equal((await gateway.call('/healthz')).status, 200);
});

test('what leaves its group and its environment still goes with the last call', {
  skip,
}, async () => {
  const command = ['sleep', '9871'];
  const detached = `setsid env -i ${command.join(' ')} </dev/null >/dev/null 2>&1 &`;
  await gateway.put('daemon', { script: `${detached} echo started` });
  assert.equal(await (await gateway.call('/function/daemon')).text(), 'started\n');
  await waitFor(() => processesOf(command).length === 0);
});

test('a removed function leaves neither processes nor its user to the next', { skip }, async () => {
  const source = {
    files: {
      'handler.js': `import { spawn } from 'node:child_process';
export default () => {
  spawn('setsid', ['sleep', '9872'], { env: { PATH: process.env.PATH }, stdio: 'ignore', detached: true });
  return new Response(String(process.getuid()));
};`,
    },
  };
  await gateway.put('first', { runtime: 'node', source });
  const uid = await (await gateway.call('/function/first')).text();
  await gateway.control('/v1/namespaces/default/functions/first', { method: 'DELETE' });
  await waitFor(() => processesOf(['sleep', '9872']).length === 0);
  await gateway.put('second', { script: 'id -u' });
  assert.notEqual((await (await gateway.call('/function/second')).text()).trim(), uid);
});
