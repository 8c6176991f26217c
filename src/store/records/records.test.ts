/**
 * Goal: records in files behave as the port says, survive restarts, are bounded, sealed, and never in the way of calls.
 * Method: the suite of the port for both stores; then real directories that are opened again, damaged, filled and read.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { createSealer } from '../../auth/seal.ts';
import type { InvocationRecord } from '../../domain/record.ts';
import { newId } from '../../ids.ts';
import { type Log, silentLog } from '../../log.ts';
import { FakeClock } from '../../testing/fake-clock.ts';
import { waitFor } from '../../testing/wait-for.ts';
import type { RecordStore } from '../records.ts';
import { buildLine, buildRecord, hello, noon, other, recordsContract } from './contract.ts';
import { ItemWriter } from './items.ts';
import { createMemoryRecords } from './memory.ts';
import { listRecords } from './search.ts';
import { Series } from './series.ts';
import { createSqliteRecords, writeLimits } from './sqlite.ts';
import { sortIntoBlocks } from './worker.ts';

const root = mkdtempSync(join(tmpdir(), 'fnway-records-'));
after(() => rmSync(root, { recursive: true }));
const keyFile = join(root, 'key');

let directories = 0;
const newDirectory = () => join(root, String(directories++));

function openIn(
  directory: string,
  options: { clock?: FakeClock; keptMs?: number; bytesMax?: number; log?: Log } = {},
): RecordStore {
  const { clock = new FakeClock(noon), keptMs = 7 * 86_400_000, bytesMax = 1024 ** 3 } = options;
  const retention = { keptMs, bytesMax };
  return createSqliteRecords({
    directory,
    keyFile,
    retention: { records: retention, lines: retention, bodies: retention },
    clock,
    log: options.log ?? silentLog,
  });
}

for (const [name, open] of [
  ['memory', createMemoryRecords],
  ['sqlite', () => openIn(newDirectory())],
] as const) {
  recordsContract((title, body) => test(`${name}: ${title}`, body), open);
}

const all = { namespace: 'default', limit: 1000 };
const instances = [newId('ins', noon), newId('ins', noon)] as const;

test('what was written is there after a restart, and new things come behind it', async () => {
  const directory = newDirectory();
  const first = openIn(directory);
  const records = [buildRecord(noon), buildRecord(noon + 1), buildRecord(noon + 2)];
  first.record(records[0]!);
  first.line(buildLine(noon, 'one'));
  await first.close();
  const second = openIn(directory, { clock: new FakeClock(noon + 1000) });
  second.record(records[1]!);
  second.record(records[2]!);
  second.line(buildLine(noon + 1, 'two'));
  assert.deepEqual((await second.list(all)).items, records.toReversed());
  const lines = await second.lines({ functionId: hello.functionId, limit: 10 });
  assert.deepEqual(
    lines.map(({ text }) => text),
    ['one', 'two'],
  );
  await second.close();
});

test('it waits for more, but not for long', async () => {
  const clock = new FakeClock(noon);
  const directory = newDirectory();
  const store = openIn(directory, { clock });
  store.record(buildRecord(noon));
  assert.equal(clock.pending, 1, 'one timer for all that waits');
  await clock.advance(writeLimits.flushMsMax);
  // The thread is told; what it wrote is seen by whoever asks behind it.
  assert.equal((await store.list(all)).items.length, 1);
  await store.close();
  assert.equal(clock.pending, 0);
});

test('files are the owner’s, and hold no text of calls', async () => {
  const directory = newDirectory();
  const store = openIn(directory);
  const canary = 'canary-of-a-secret';
  store.record(
    buildRecord(noon, {
      target: `/?token=${canary}`,
      label: canary,
      state: 'failed',
      failure: { kind: 'function', code: 'FUNCTION_FAILED', message: canary },
    }),
  );
  store.line(buildLine(noon, canary));
  const body = Buffer.from(canary);
  const kept = { ...buildRecord(noon), requestHeaders: [canary, canary], replyHeaders: [canary] };
  store.bodies({ ...kept, input: body, output: body });
  await store.list(all);
  const files = readdirSync(directory);
  assert.ok(files.length >= 3);
  for (const name of files) {
    const file = join(directory, name);
    assert.equal(statSync(file).mode & 0o777, 0o600, name);
    assert.equal(readFileSync(file).includes(canary), false, name);
  }
  await store.close();
  for (const name of readdirSync(directory))
    assert.equal(readFileSync(join(directory, name)).includes(canary), false, name);
});

test('what is too old goes, a file at a time', async () => {
  const directory = newDirectory();
  const clock = new FakeClock(noon);
  const store = openIn(directory, { clock, keptMs: 80_000 });
  const ids: string[] = [];
  for (let i = 0; i < 20; i++) {
    const record = buildRecord(clock.now());
    ids.push(record.id);
    store.record(record);
    await store.list(all);
    clock.skip(10_000);
  }
  const left = (await store.list(all)).items.map(({ id }) => id);
  assert.ok(left.length >= 7 && left.length <= 10, `${left.length} of the last 8`);
  assert.deepEqual(left, ids.slice(-left.length).reverse());
  // Also where nothing is written any more.
  await clock.advance(200_000);
  assert.deepEqual((await store.list(all)).items, []);
  await waitFor(() => readdirSync(directory).length === 0);
  await store.close();
});

test('what is too much goes, oldest first', async () => {
  const directory = newDirectory();
  const clock = new FakeClock(noon);
  const bytesMax = 2 * 1024 ** 2;
  const store = openIn(directory, { clock, bytesMax });
  const text = 'x'.repeat(10_000);
  for (let i = 0; i < 600; i++) {
    store.line(buildLine(clock.now(), `${i} ${text}`));
    clock.skip(10);
    if (i % 20 === 0) await store.lines({ functionId: hello.functionId, limit: 1 });
  }
  const lines = await store.lines({ functionId: hello.functionId, limit: 1000 });
  assert.match(lines.at(-1)!.text, /^599 /);
  assert.ok(lines.length > 100 && lines.length < 300, `${lines.length} lines of 10 kB in 2 MiB`);
  await store.close();
});

test('a damaged file is set aside, the others are read', async () => {
  const directory = newDirectory();
  const clock = new FakeClock(noon);
  const first = openIn(directory, { clock, keptMs: 800_000 });
  const records = [buildRecord(noon), buildRecord(noon + 100_000)];
  first.record(records[0]!);
  await first.list(all);
  clock.skip(100_000);
  first.record(records[1]!);
  await first.list(all);
  await first.close();
  const [oldest] = readdirSync(directory)
    .filter(name => /^records-.*\.db$/.test(name))
    .sort();
  writeFileSync(
    join(directory, oldest!),
    'this is not a database, and longer than a header of one. '.repeat(40),
  );
  const warnings: string[] = [];
  const log = { ...silentLog, warn: (message: string) => warnings.push(message) };
  const second = openIn(directory, { clock, keptMs: 800_000, log });
  assert.deepEqual((await second.list(all)).items, [records[1]]);
  assert.match(warnings.join(), /records-\d+\.db cannot be read and is set aside as .*\.damaged/);
  await second.close();
});

test('what cannot be written is told and counted, is tried again in a while, and nobody fails for it', async () => {
  const directory = join(root, 'a-file');
  writeFileSync(directory, '');
  const errors: string[] = [];
  const log = { ...silentLog, error: (message: string) => errors.push(message) };
  const clock = new FakeClock(noon);
  const store = openIn(directory, { clock, log });
  store.record(buildRecord(noon));
  await assert.rejects(store.list(all), { code: 'DATA_DIRECTORY_UNUSABLE' });
  assert.match(errors[0]!, /the thread that writes records ended/);
  // No thread is started for each record, only to end again.
  store.record(buildRecord(noon));
  store.line(buildLine(noon, 'x'));
  await assert.rejects(store.list(all), { code: 'DATA_DIRECTORY_UNUSABLE', message: /has ended/ });
  assert.deepEqual([store.dropped.records, store.dropped.lines, errors.length], [1, 1, 1]);
  rmSync(directory);
  clock.skip(10_000);
  const record = buildRecord(noon);
  store.record(record);
  assert.deepEqual((await store.list(all)).items, [record]);
  await store.close();
});

test('when the thread falls behind, records of successful calls are dropped first, and counted', async () => {
  const store = openIn(newDirectory());
  // Each another: what is the same as before takes no room.
  const target = () => `/${written}${'x'.repeat(900)}`;
  let written = 0;
  // In one turn: the thread's word that it has written cannot arrive.
  while (store.dropped.records === 0 && written < 50_000) {
    store.record(buildRecord(noon, { target: target() }));
    written++;
  }
  assert.ok(written * 1000 > writeLimits.unwrittenBytesMax && written < 20_000, `${written}`);
  const failed = buildRecord(noon + 1, {
    status: 502,
    state: 'failed',
    failure: { kind: 'function', code: 'FUNCTION_FAILED', message: 'x' },
  });
  store.record(failed);
  assert.equal(store.dropped.records, 1);
  assert.deepEqual((await store.list({ ...all, state: 'failed' })).items, [failed]);
  await store.close();
});

test('a record that is like the one before it costs forty bytes, and few more where its address differs', () => {
  const writer = new ItemWriter(1024 ** 2);
  const sizeOf = (changes: (i: number) => Partial<InvocationRecord>) => {
    writer.clear();
    for (let i = 0; i < 1000; i++)
      writer.record(buildRecord(noon, { instance: instances[0], ...changes(i) }), 0);
    return writer.used / 1000;
  };
  assert.ok(sizeOf(() => ({})) < 40.2);
  assert.ok(sizeOf(i => ({ instance: instances[i % 2] })) < 80.2);
  assert.ok(sizeOf(i => ({ status: 200 + (i % 2) })) < 104.2);
});

test('what is called rarely is merged into few blocks, and stays in order', async () => {
  const directory = newDirectory();
  const store = openIn(directory);
  const lines: string[] = [];
  for (let i = 0; i < 200; i++) {
    store.record(buildRecord(noon + i, { subject: i % 2 === 0 ? hello : other }));
    store.line(buildLine(noon + i, `${i}`));
    lines.push(`${i}`);
    await store.list({ ...all, limit: 1 });
  }
  const found = await store.lines({ functionId: hello.functionId, limit: 1000 });
  assert.deepEqual(
    found.map(({ text }) => text),
    lines,
  );
  const { items } = await store.list(all);
  assert.equal(items.length, 200);
  assert.deepEqual(
    items.map(({ id }) => id),
    items
      .map(({ id }) => id)
      .sort()
      .reverse(),
  );
  await store.close();
  const { DatabaseSync } = await import('node:sqlite');
  const [file] = readdirSync(directory).filter(name => /^lines-\d+\.db$/.test(name));
  const db = new DatabaseSync(join(directory, file!));
  const { blocks } = db.prepare('SELECT count(*) AS blocks FROM blocks').get() as {
    blocks: number;
  };
  db.close();
  assert.ok(blocks <= 3 + 63, `${blocks} blocks`);
});

test('a search that opens too many blocks gives what it has, and where to go on', () => {
  const series = new Series({
    kind: 'records',
    directory: newDirectory(),
    sealer: createSealer(new Uint8Array(32)),
    retention: { keptMs: 1e12, bytesMax: 1e12 },
    onTrouble: assert.fail,
  });
  // Each block has one record of version 1 and one of version 3, and is looked into for version 2.
  const batches = 1200;
  for (let i = 0; i < batches; i++) {
    const writer = new ItemWriter(16_384);
    for (let n = 0; n < 9; n++) {
      const version = n === 1 ? 3 : 1;
      writer.record(buildRecord(noon + i, { version, target: `/${n}${'x'.repeat(1000)}` }), 0);
    }
    const blocks = sortIntoBlocks(writer.bytes.subarray(0, writer.used), [hello]);
    series.insert([...blocks.records.values()], noon);
  }
  const query = { namespace: 'default', version: 2, limit: 10 };
  const page = listRecords(series, query);
  assert.deepEqual(page.items, []);
  assert.ok(page.next !== undefined);
  assert.deepEqual(listRecords(series, { ...query, after: page.next }), { items: [] });
  series.close();
});

test('any records in any order are found as the memory store finds them', async () => {
  const record = fc.record({
    ms: fc.integer({ min: 0, max: 40 }),
    subject: fc.constantFrom(hello, other),
    version: fc.integer({ min: 1, max: 3 }),
    status: fc.constantFrom(200, 404, 500),
    shape: fc.constantFrom<Partial<InvocationRecord>>(
      {},
      ...[instances[0], instances[1]].map(instance => ({ instance })),
      { instance: instances[0], label: 'mine' },
    ),
    method: fc.constantFrom('GET', 'GET', 'POST'),
    target: fc.constantFrom('/', '/', '/a?b=c', `/${'x'.repeat(1000)}`),
    durationMs: fc.constantFrom(1, 2.5),
    origin: fc.constantFrom('http' as const, 'http' as const, 'replay' as const),
    // A line between two records of one function: each begins a run.
    line: fc.boolean(),
    flush: fc.boolean(),
  });
  const query = fc.record(
    {
      functionId: fc.constantFrom(hello.functionId, other.functionId),
      version: fc.integer({ min: 1, max: 3 }),
      status: fc.constantFrom(200, 404, 500),
      sinceMs: fc.integer({ min: noon, max: noon + 40 }),
      untilMs: fc.integer({ min: noon, max: noon + 40 }),
    },
    { requiredKeys: [] },
  );
  await fc.assert(
    fc.asyncProperty(
      fc.array(record, { maxLength: 60 }),
      fc.array(query, { minLength: 1, maxLength: 8 }),
      fc.integer({ min: 1, max: 20 }),
      async (records, queries, limit) => {
        const directory = newDirectory();
        const [real, memory] = [openIn(directory), createMemoryRecords()];
        for (const { ms, flush, line, shape, ...changes } of records) {
          const made = buildRecord(noon + ms, { ...changes, ...shape });
          if (line) real.line(buildLine(noon, 'between', { subject: changes.subject }));
          real.record(made);
          memory.record(made);
          if (flush) await real.list(all);
        }
        for (const query of queries) {
          const wanted = { namespace: 'default', limit, ...query };
          const found = await memory.list(wanted);
          assert.deepEqual(await real.list(wanted), found);
          if (found.next === undefined) continue;
          const rest = { ...wanted, after: found.next };
          assert.deepEqual(await real.list(rest), await memory.list(rest));
        }
        await real.close();
        rmSync(directory, { recursive: true, force: true });
      },
    ),
    { numRuns: 15 },
  );
});
