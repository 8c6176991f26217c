/**
 * What somebody waits for while nothing is under load: the first chunk of a streamed answer, from
 * when the function sends it to when the client has it (one machine, one clock), and the first
 * answer of new code, from when its file is saved under `fnway up`.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { FunctionDefinition } from '../../client/api.ts';
import { deploy, settled, startGateway } from '../lib/fnway.ts';
import { answers, call, freePort } from '../lib/http.ts';
import { start } from '../lib/processes.ts';
import type { SuiteOptions } from './suite.ts';

const callsEach = 20;
const savesEach = 7;
/** Not counted: what compiles for the first time. */
const warmUps = 3;
const pollMs = 3;

/** Each sends the time first, in milliseconds since 1970, and something else long after. */
const streams: Record<string, FunctionDefinition> = {
  node: {
    runtime: 'node',
    source: {
      files: {
        'handler.mjs': `export default () => new Response((async function* () {
  await new Promise(resolve => setTimeout(resolve, 20));
  yield String(performance.timeOrigin + performance.now());
  await new Promise(resolve => setTimeout(resolve, 200));
  yield ' end';
})());`,
      },
    },
  },
  python: {
    runtime: 'python',
    source: {
      files: {
        'handler.py': `import time
def handle(event, context):
    time.sleep(.02)
    yield str(time.time() * 1000)
    time.sleep(.2)
    yield " end"`,
      },
    },
  },
};

/** What a save changes; each answers its own text. */
const saved: Record<string, { file: string; code: (text: string) => string }> = {
  node: {
    file: 'handler.ts',
    code: text => `export default (): Response => new Response('${text}');`,
  },
  python: { file: 'handler.py', code: text => `def handle(event, context): return "${text}"` },
  shell: { file: 'handler.sh', code: text => `#!/bin/sh\nprintf ${text}\n` },
};

export async function prompt(options: SuiteOptions): Promise<void> {
  await measureFirstChunk(options);
  await measureSaves(options);
}

async function measureFirstChunk({ report, directory }: SuiteOptions): Promise<void> {
  const gateway = await startGateway({ data: join(directory, 'chunks') });
  try {
    for (const [name, definition] of Object.entries(streams)) {
      await deploy(gateway, name, { ...definition, auth: 'none' });
      await settled(gateway.url);
      const samples: number[] = [];
      for (let i = -warmUps; i < callsEach; i++) {
        const tookMs = await firstChunkMs(`${gateway.url}/function/${name}`);
        if (i >= 0) samples.push(tookMs);
      }
      const measure = `first chunk of a stream, ${name}: from its send to the client`;
      report.row({ measure, samples, unit: 'ms', target: { atMost: 50 } });
    }
  } finally {
    await gateway.stop();
  }
}

function firstChunkMs(url: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const sent = request(url, response => {
      response.once('data', chunk => {
        resolve(performance.timeOrigin + performance.now() - Number(String(chunk)));
        response.resume();
      });
    });
    sent.once('error', reject);
    sent.end();
  });
}

async function measureSaves({ report, directory }: SuiteOptions): Promise<void> {
  const project = join(directory, 'project');
  const manifest = ['functions:'];
  for (const [runtime, { file, code }] of Object.entries(saved)) {
    mkdirSync(join(project, runtime), { recursive: true });
    writeFileSync(join(project, runtime, file), code('first'));
    manifest.push(`  ${runtime}: { runtime: ${runtime}, source: ./${runtime}, auth: none }`);
  }
  writeFileSync(join(project, 'fnway.yaml'), `${manifest.join('\n')}\n`);
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const cli = join(import.meta.dirname, '../../src/cli/cli.ts');
  const up = start(
    [process.execPath, '--max-semi-space-size=4', cli, 'up', project, '--port', String(port)],
    { name: 'fnway up', env: { FNWAY_DATA: join(directory, 'saves'), FNWAY_LOG_LEVEL: 'warn' } },
  );
  try {
    await answers(`${url}/readyz`, 30_000);
    for (const runtime of Object.keys(saved))
      await untilAnswers(`${url}/function/${runtime}`, 'first');
    for (const [runtime, { file, code }] of Object.entries(saved)) {
      const samples: number[] = [];
      for (let i = -1; i < savesEach; i++) {
        await sleep(300);
        const startMs = performance.now();
        writeFileSync(join(project, runtime, file), code(`save-${i}`));
        await untilAnswers(`${url}/function/${runtime}`, `save-${i}`);
        if (i >= 0) samples.push(performance.now() - startMs);
      }
      const measure = `saved file, ${runtime}: until it answers`;
      report.row({ measure, samples, unit: 'ms', target: { atMost: 300 } });
    }
  } finally {
    await up.stop();
  }
}

async function untilAnswers(url: string, text: string): Promise<void> {
  const lateMs = performance.now() + 30_000;
  while ((await call(url)).body !== text) {
    if (performance.now() > lateMs) throw new Error(`${url} does not answer ${text}`);
    await sleep(pollMs);
  }
}
