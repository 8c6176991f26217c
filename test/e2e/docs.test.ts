/**
 * Goal: the pages work for somebody who follows them. Method: a gateway in an empty directory as docs/start.md starts it,
 * then each page's own commands in order. Blocks marked `test=e2e` must end with 0, `test=fails` with 1; what a block
 * marked `test=background` starts runs until the page is done.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { findGo, goCache, waitFor } from '../../src/testing/index.ts';

const root = join(import.meta.dirname, '../..');
const { needsGo } = findGo(process.env.PATH ?? '');
const limit = { timeout: 120_000 };
let directory: string;
let url: string;
let environment: NodeJS.ProcessEnv;
let stop: () => Promise<unknown>;

before(async () => {
  directory = mkdtempSync(join(tmpdir(), 'fnway-docs-'));
  url = `http://127.0.0.1:${await freePort()}`;
  const { FNWAY_URL: _, FNWAY_TOKEN: __, FNWAY_DATA: ___, ...rest } = process.env;
  environment = {
    ...rest,
    PATH: `${join(root, 'node_modules/.bin')}:${rest.PATH}`,
    FNWAY_PORT: new URL(url).port,
    FNWAY_URL: url,
    FNWAY_GO_CACHE: goCache,
  };
  const gateway = spawn('fnway', ['serve'], { cwd: directory, env: environment });
  const exited = new Promise(resolve => gateway.once('exit', resolve));
  stop = () => {
    gateway.kill('SIGTERM');
    return exited;
  };
  await new Promise<void>((resolve, reject) => {
    let text = '';
    for (const stream of [gateway.stdout, gateway.stderr])
      stream.on('data', chunk => {
        text += chunk;
        if (text.includes('listening on')) resolve();
      });
    void exited.then(() => reject(new Error(text)));
  });
});

after(async () => {
  await stop();
  rmSync(directory, { recursive: true, force: true });
});

test('the commands of docs/start.md do what it says', { timeout: 120_000 }, async () => {
  const outputs = await outputsOf('docs/start.md');
  assert.equal(outputs.length, 6);
  const [applied, called, changed, back, broken, described] = outputs as [string, ...string[]];
  assert.match(applied, /hello +created version 1/);
  assert.match(called!, /Hello you\nHello world\n/);
  assert.match(changed!, /Good day, you\nHello you\n/);
  assert.match(back!, /version 1 answers\nHello you\n[\s\S]*version 2 answers\n/);
  assert.match(back!, /→ +2 +ready[^\n]*\n +1 +ready/);
  assert.match(broken!, /handler\.ts:\d+/);
  assert.match(described!, /Good day, you/);
  assert.match(described!, /v3 +failed[\s\S]*v2 +ready[\s\S]*v1 +ready/);
});

test('the commands of docs/guides/debug-a-failure.md show each step', async () => {
  const [, answer, logs, described, metrics] = await outputsOf('docs/guides/debug-a-failure.md');
  assert.match(answer!, /^HTTP\/1\.1 502 [\s\S]*X-Fnway-Failure: threw[\s\S]*handler\.mjs:3/);
  assert.match(logs!, /TypeError: no such order/);
  assert.match(described!, /v1 +ready/);
  assert.match(metrics!, /function="fail",reason="threw"\} 1/);
});

test(
  'the commands of docs/guides/topics.md deliver, and drive what died again',
  limit,
  async () => {
    const [published, acked, paused, dead] = await outputsOf('docs/guides/topics.md');
    assert.match(acked!, /^msg_\w+\n$/);
    assert.match(published!, /^msg_\w+$/m);
    assert.match(published!, /^orders-bill +orders +bill +\d+ +\d+ +orders-failed$/m);
    assert.match(published!, /kind=new\n\{"order": 1\}/);
    assert.match(paused!, /^orders-audit {2}paused {2}\d+ waiting, 0 running$/m);
    assert.match(dead!, /^subscription returns-never +exit +1 /m);
    assert.match(dead!, /^inv_\w+ {2}as inv_\w+$/m);
  },
);

test('the commands of docs/guides/webhooks.md post what is signed', limit, async () => {
  const [posted] = await outputsOf('docs/guides/webhooks.md');
  assert.match(posted!, /^push +deploy +github +http:\/\/\S+\/webhook\/push$/m);
  assert.match(posted!, /\{"id":"inv_\w+","location":/);
});

test('the commands of docs/guides/notifications.md make two', limit, async () => {
  const [made] = await outputsOf('docs/guides/notifications.md');
  assert.match(made!, /^2 created$/m);
  assert.match(made!, /^ops +deploy-failed, dead-letter +the secret SLACK_URL +slack$/m);
  assert.match(made!, /^audit {2}paused\naudit {2}removed$/m);
});

test('the commands of docs/guides/async.md call, wait, and drive again', limit, async () => {
  const [accepted, results, dead] = await outputsOf('docs/guides/async.md');
  assert.match(
    accepted!,
    /\{"id":"inv_\w+","location":"\/v1\/namespaces\/default\/invocations\/inv_/,
  );
  assert.match(results!, /ANOTHER PICTURE\n?A THIRD ONE/);
  assert.match(dead!, /^ +state +dead/m);
  assert.match(dead!, /^inv_\w+$/m);
});

test('the commands of docs/guides/buckets.md call for a new file', limit, async () => {
  const [called] = await outputsOf('docs/guides/buckets.md');
  assert.match(called!, /^inv_\w+ .* thumbnail +v1 +200 /m);
  assert.match(called!, /^uploads +thumbnail +\/\S+\/photos\/uploads +finalize/m);
});

test('the commands of docs/guides/schedules.md list, run and pause', limit, async () => {
  const [listed, run] = await outputsOf('docs/guides/schedules.md');
  assert.match(listed!, /^daily +report +every 1d from 2021-01-01T04:00:00\.000Z/m);
  assert.match(listed!, /^nightly +report +0 4 \* \* \* Europe\/Berlin/m);
  assert.match(run!, /by-hand +inv_\w+/);
  assert.match(run!, /nightly {2}paused\nnightly {2}resumed.*\nnightly {2}removed/);
});

test('the commands of docs/guides/http-function.md show both answers', async () => {
  const [deployed, refused] = await outputsOf('docs/guides/http-function.md');
  assert.match(deployed!, /up\n$/);
  assert.match(refused!, /ECONNREFUSED/);
});

test('the function of docs/guides/stream-and-cancel.md streams', async () => {
  await outputsOf('docs/guides/stream-and-cancel.md');
  const response = await fetch(`${url}/function/ticker`);
  for await (const chunk of response.body!) {
    assert.equal(Buffer.from(chunk).toString(), 'data: 1\n\n');
    break;
  }
});

test('the commands of docs/guides/dependencies.md install a package', limit, async () => {
  const [node, python] = await outputsOf('docs/guides/dependencies.md');
  assert.match(node!, /a-b\n$/);
  assert.match(python!, /a-b\n$/);
});

test('the commands of docs/guides/go.md build, and name the line that does not', {
  ...needsGo,
  timeout: 300_000,
}, async () => {
  const [built, broken] = await outputsOf('docs/guides/go.md');
  assert.match(built!, /3 words\n$/);
  assert.match(broken!, /words version 2: handler\.go:15:11: undefined: x\n/);
});

test(
  'the commands of docs/guides/cloud-functions.md run directories as they are',
  limit,
  async () => {
    const [called, python, sent] = await outputsOf('docs/guides/cloud-functions.md');
    assert.match(called!, /Hello you\n$/);
    assert.match(python!, /Hello Ada\n$/);
    assert.doesNotMatch(sent!, /✗/);
  },
);

test('the commands of docs/reference/api.md make a function', async () => {
  const [made] = await outputsOf('docs/reference/api.md');
  assert.match(made!, /42$/);
});

/** What each of a page's blocks printed. */
async function outputsOf(page: string): Promise<string[]> {
  const otherPort = String(await freePort());
  const text = readFileSync(join(root, page), 'utf8')
    .replaceAll('http://127.0.0.1:8080', url)
    .replaceAll('8090', otherPort);
  const outputs: string[] = [];
  const background: ChildProcess[] = [];
  try {
    for (const [, kind, block] of text.matchAll(/```sh test=(\w+)\n([\s\S]*?)```/g)) {
      if (kind === 'background') {
        background.push(spawn('sh', ['-c', `exec ${block}`], { cwd: directory, env: environment }));
        const answers = () => fetch(`http://127.0.0.1:${otherPort}`).then(Boolean, () => false);
        await waitFor(answers, { what: `the server of ${page}` });
        continue;
      }
      const expected = { e2e: 0, fails: 1 }[kind!];
      assert.notEqual(expected, undefined, `${page}: a block of kind ${kind}`);
      const { status, text: output } = await shell(block!);
      assert.equal(status, expected, output);
      outputs.push(output);
    }
  } finally {
    for (const child of background) child.kill();
  }
  return outputs;
}

/** As one script, so that a block may change directories; ends at the first command that fails. */
function shell(script: string): Promise<{ status: number | null; text: string }> {
  return new Promise(resolve => {
    const options = { cwd: directory, env: environment };
    const child = spawn('sh', ['-ec', script], { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
    let text = '';
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', chunk => {
        text += chunk;
      });
    child.once('close', status => resolve({ status, text }));
  });
}

function freePort(): Promise<number> {
  return new Promise(resolve => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}
