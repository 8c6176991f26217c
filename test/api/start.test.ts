/**
 * Goal: a gateway that cannot start says why and leaves nothing behind, and what another process did to its store is
 * noticed. Method: gateways made with wrong settings, wrong runtimes and a taken port; a second hand on the database.
 */
import assert from 'node:assert/strict';
import {
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, test } from 'node:test';
import type { ApiError } from '../../client/client.ts';
import { packTree } from '../../src/build/archive.ts';
import { treeFromFiles } from '../../src/build/source.ts';
import { parseConfig } from '../../src/config.ts';
import { createGateway } from '../../src/main.ts';
import {
  javascript,
  makeDataDirectory,
  problemOf,
  startTestGateway,
  waitFor,
} from '../../src/testing/index.ts';

const scratch = mkdtempSync(join(tmpdir(), 'fnway-start-'));
after(() => rmSync(scratch, { recursive: true, force: true }));

let directories = 0;

/** A directory of runtimes with one runtime.yaml of this text. */
function runtimesWith(yaml: string): string {
  const directory = join(scratch, String(++directories));
  mkdirSync(join(directory, 'mine'), { recursive: true });
  writeFileSync(join(directory, 'mine', 'runtime.yaml'), yaml);
  return directory;
}

test('a runtime that is not as it must be stops the start with its file and key', async () => {
  const good = 'name: mine\nprotocol: stdio\ncommand: [/bin/cat]\nentries: [a]\n';
  const cases: Array<[runtimes: string, said: RegExp]> = [
    [join(scratch, 'none'), /none cannot be read/],
    [runtimesWith('name: ['), /runtime\.yaml is not YAML/],
    [runtimesWith(''), /runtime\.yaml: file: /],
    [runtimesWith(good.replace('stdio', 'http2')), /runtime\.yaml: protocol: /],
    [runtimesWith(good.replace('mine', 'Mine!')), /runtime\.yaml: name: /],
    [runtimesWith(`${good}warm: -1\n`), /runtime\.yaml: warm: /],
    [runtimesWith(`${good}wram: 1\n`), /wram/],
    [runtimesWith('name: mine\n'), /protocol: .*command: .*entries: /],
  ];
  for (const [runtimes, said] of cases)
    await assert.rejects(startTestGateway({ settings: { runtimes } }), {
      code: 'RUNTIME_INVALID',
      message: said,
    });
});

test('a version that was promoted answers after a restart too, and a newer one takes over', async () => {
  const data = makeDataDirectory();
  const says = (text: string) => javascript(`export default () => new Response('${text}');`);
  const first = await startTestGateway({ data });
  await first.put('chosen', says('v1'));
  await first.put('chosen', says('v2'));
  await first.client.promoteVersion('chosen', 1);
  await first.stop();
  const second = await startTestGateway({ data });
  try {
    assert.equal(await (await second.call('/function/chosen')).text(), 'v1');
    assert.equal((await second.client.getFunction('chosen')).activeVersion, 1);
    await second.put('chosen', says('v3'));
    assert.equal(await (await second.call('/function/chosen')).text(), 'v3');
  } finally {
    await second.stop();
    rmSync(data, { recursive: true });
  }
});

test('a version whose files and source are lost says so, until it is deployed again', async () => {
  const data = makeDataDirectory();
  const hello = javascript('export default () => new Response("hi");');
  const first = await startTestGateway({ data });
  await first.put('lost', hello);
  await first.stop();
  for (const name of ['code', 'blobs']) rmSync(join(data, name), { recursive: true });
  const second = await startTestGateway({ data });
  try {
    await problemOf(await second.call('/function/lost'), {
      status: 503,
      code: 'VERSION_NOT_READY',
    });
    const { outcome } = await second.put('lost', hello);
    assert.equal(outcome, 'unchanged');
    assert.equal(await (await second.call('/function/lost')).text(), 'hi');
  } finally {
    await second.stop();
    rmSync(data, { recursive: true });
  }
});

test('a gateway that stops waits for no function that loads, and the next one loads it', async () => {
  const data = makeDataDirectory();
  const mark = join(data, '..', `${basename(data)}-may-load`);
  const gateway = await startTestGateway({ data });
  const slow = javascript(
    `import { existsSync } from 'node:fs';
if (!existsSync(${JSON.stringify(mark)})) await new Promise(() => {});
export default () => new Response('loaded');`,
    { auth: 'none' },
  );
  await gateway.put('quick', javascript('export default () => new Response("hi");'));
  const waited = gateway.client.putFunction('slow', slow, { wait: '1m' });
  await waitFor(async () =>
    /fnway_instances\{[^}]*"slow"[^}]*"starting"\} 1/.test(
      await (await gateway.call('/metrics')).text(),
    ),
  );
  const stopped = gateway.stop();
  await assert.rejects(waited, error => {
    assert.equal((error as ApiError).problem.code, 'GATEWAY_STOPPING');
    return true;
  });
  await assert.rejects(gateway.call('/function/quick'));
  await stopped;

  writeFileSync(mark, '');
  const next = await startTestGateway({ data });
  try {
    await waitFor(async () => (await next.call('/function/slow')).status === 200);
    assert.equal(await (await next.call('/function/slow')).text(), 'loaded');
  } finally {
    await next.stop();
    rmSync(data, { recursive: true });
    rmSync(mark);
  }
});

test('the next start removes sources that no version names, and no others', async () => {
  const data = makeDataDirectory();
  const gateway = await startTestGateway({ data });
  const uploaded = await gateway.client.putSource(
    await packTree(treeFromFiles({ 'a.txt': 'never deployed' })),
  );
  await gateway.put('kept', javascript('export default () => new Response("kept");'));
  const { source } = (await gateway.client.getFunction('kept')).latestVersion;
  assert.ok(source !== undefined);
  assert.notEqual(await gateway.client.getSource(uploaded.digest), undefined);
  await gateway.stop();
  const next = await startTestGateway({ data });
  try {
    assert.equal(await next.client.getSource(uploaded.digest), undefined);
    assert.notEqual(await next.client.getSource(source), undefined);
  } finally {
    await next.stop();
    rmSync(data, { recursive: true });
  }
});

test('the next start removes the files of functions that no store knows', async () => {
  const data = makeDataDirectory();
  await (await startTestGateway({ data })).stop();
  // As a gateway leaves it that is killed between the row and the files.
  const lost = join(data, 'code', 'fn_lost');
  mkdirSync(join(lost, '1'), { recursive: true });
  writeFileSync(join(lost, '1', 'handler.mjs'), '');
  writeFileSync(join(lost, '1.json'), '{}');
  if (process.getuid?.() === 0) chownSync(join(lost, '1'), 300_001, 300_001);
  const next = await startTestGateway({ data });
  try {
    assert.equal(existsSync(lost), false);
  } finally {
    await next.stop();
    rmSync(data, { recursive: true });
  }
});

test('a directory that its function has closed is removed with it, and keeps no gateway from starting', async () => {
  const data = makeDataDirectory();
  const gateway = await startTestGateway({ data });
  await gateway.put(
    'closes',
    javascript(
      `import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
export default () => {
  const cache = process.env.HOME + '/cache';
  mkdirSync(cache);
  writeFileSync(cache + '/x', '');
  chmodSync(cache, 0o555);
  return new Response('closed');
};`,
    ),
  );
  assert.equal(await (await gateway.call('/function/closes')).text(), 'closed');
  await gateway.client.removeFunction('closes');
  await gateway.stop();
  const next = await startTestGateway({ data });
  await next.stop();
  const left = readdirSync(join(data, 'code')).filter(name => name.startsWith('fn_'));
  assert.deepEqual(left, []);
  rmSync(data, { recursive: true });
});

test('a runtime of a user is there beside the others, and may replace one', async () => {
  const directory = runtimesWith(
    'name: mine\nprotocol: stdio\ncommand: [/bin/cat, "{entry}"]\nentries: [text.txt]\n',
  );
  const gateway = await startTestGateway({ settings: { runtimes: directory } });
  try {
    const { items } = await gateway.client.listRuntimes();
    const names = items.map(item => item.name).sort();
    assert.deepEqual(names, ['go', 'mine', 'node', 'python', 'shell']);
    await gateway.put('text', { runtime: 'mine', source: { files: { 'text.txt': 'a text' } } });
    assert.equal(await (await gateway.call('/function/text')).text(), 'a text');
  } finally {
    await gateway.stop();
  }
});

test('a wrong setting stops the start with its name and what it takes', () => {
  const cases: Array<[settings: Record<string, string>, said: RegExp]> = [
    [{ port: 'x' }, /--port .*0 to 65535/],
    [{ port: '70000' }, /--port/],
    [{ headersMsMax: 'soon' }, /FNWAY_HEADERS_MS_MAX .*duration/],
    [{ headersBytesMax: 'much' }, /FNWAY_HEADERS_BYTES_MAX .*size/],
    [{ waitingCallsMax: '-1' }, /FNWAY_WAITING_CALLS_MAX/],
    [{ uidRange: '0:10' }, /FNWAY_UID_RANGE .*FIRST:COUNT/],
    [{ logLevel: 'loud' }, /--log-level .*debug, info/],
    [{ trustProxy: 'perhaps' }, /FNWAY_TRUST_PROXY/],
    [{ warm: 'x' }, /FNWAY_WARM/],
  ];
  for (const [settings, said] of cases)
    assert.throws(() => parseConfig(settings, {}), { code: 'CONFIG_INVALID', message: said });
});

test('a port that is taken stops the start with what to do, and frees what was opened', async () => {
  const first = await startTestGateway();
  const data = makeDataDirectory();
  const flags = (port: number) => ({ data, port: String(port), logLevel: 'silent', warm: '0' });
  try {
    const second = await createGateway(parseConfig(flags(first.port), {}));
    await assert.rejects(second.start(), {
      code: 'ADDRESS_IN_USE',
      remedy: /--port/,
      message: new RegExp(`${first.port}`),
    });
    await second.stop();
    const third = await createGateway(parseConfig(flags(0), {}));
    const { url } = await third.start();
    assert.equal((await fetch(`${url}/readyz`)).status, 200);
    await third.stop();
    const wrongHost = await createGateway(parseConfig({ ...flags(0), host: '192.0.2.1' }, {}));
    await assert.rejects(wrongHost.start(), { code: 'CONFIG_INVALID', message: /192\.0\.2\.1/ });
    await wrongHost.stop();
  } finally {
    await first.stop();
    rmSync(data, { recursive: true, force: true });
  }
});

test('a gateway that cannot be made does not keep its data directory', async () => {
  const data = makeDataDirectory();
  try {
    for (const [settings, env] of [
      [{ runtimes: join(scratch, 'none') }, {}],
      [{}, { FNWAY_ADMIN_TOKEN: 'weak' }],
    ] as Array<[Record<string, string>, Record<string, string>]>) {
      await assert.rejects(startTestGateway({ data, settings, env }), {
        code: /RUNTIME_INVALID|CONFIG_INVALID/,
      });
      const next = await startTestGateway({ data });
      assert.equal((await next.call('/readyz')).status, 200);
      await next.stop();
    }
  } finally {
    rmSync(data, { recursive: true, force: true });
  }
});

test('a function that another program changed meanwhile is not overwritten', async () => {
  const gateway = await startTestGateway();
  try {
    const definition = javascript('export default () => new Response("x");', { auth: 'none' });
    await gateway.put('shared', definition);
    const db = new DatabaseSync(join(gateway.data, 'fnway.db'));
    db.exec("UPDATE functions SET revision = revision + 1000 WHERE name = 'shared'");
    db.close();
    const path = '/v1/namespaces/default/functions/shared';
    const response = await gateway.control(path, {
      method: 'PUT',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ ...definition, description: 'changed' }),
    });
    await problemOf(response, { status: 409, code: 'REVISION_CONFLICT' });
    assert.equal((await gateway.client.getFunction('shared')).description, '');
    assert.equal(await (await gateway.call('/function/shared')).text(), 'x');
  } finally {
    await gateway.stop();
  }
});

test('functions run as users of the range that was configured, and no more than it has', {
  skip: process.getuid?.() !== 0 && 'only a root gateway gives functions users',
}, async () => {
  const first = 700_000 + (process.pid % 1000) * 10;
  const gateway = await startTestGateway({ env: { FNWAY_UID_RANGE: `${first}:2` } });
  try {
    const users: string[] = [];
    for (const name of ['one', 'two']) {
      await gateway.put(name, { script: 'id -u' });
      users.push((await (await gateway.call(`/function/${name}`)).text()).trim());
    }
    assert.deepEqual(users.sort(), [String(first), String(first + 1)]);
    await assert.rejects(gateway.client.putFunction('three', { script: 'id -u' }), {
      code: 'CONFIG_INVALID',
    });
  } finally {
    await gateway.stop();
  }
});

test('a Python function on a machine without Python is refused at deploy with what to install', async () => {
  const gateway = await startTestGateway({ env: { PATH: '/nonexistent' } });
  try {
    const source = { files: { 'handler.py': 'def handle(event): return "hi"' } };
    const definition = { runtime: 'python', source };
    const { function: view } = await gateway.client.putFunction('py', definition, { wait: '30s' });
    const { code, message } = view.latestVersion.failure!;
    assert.equal(code, 'BUILD_TOOL_MISSING');
    assert.match(message, /Install python3/);
  } finally {
    await gateway.stop();
  }
});
