/**
 * What every store of records does, as a suite: what was written is found by each of its properties, in order and in
 * pages, and nothing else is.
 */
import assert from 'node:assert/strict';
import type { InvocationRecord, LogLine, RecordSubject } from '../../domain/record.ts';
import { newId } from '../../ids.ts';
import type { RecordQuery, RecordStore } from '../records.ts';

export const hello: RecordSubject = { functionId: 'fn_1', namespace: 'default', name: 'hello' };
export const other: RecordSubject = { functionId: 'fn_2', namespace: 'default', name: 'other' };
export const team: RecordSubject = { functionId: 'fn_3', namespace: 'team', name: 'hello' };

export const noon = Date.UTC(2030, 0, 1, 12);

export function buildRecord(
  timeMs: number,
  changes: Partial<InvocationRecord> = {},
): InvocationRecord {
  return {
    id: newId('inv', timeMs),
    subject: hello,
    version: 1,
    status: 200,
    state: 'succeeded',
    origin: 'http',
    caller: 'admin',
    attempt: 1,
    durationMs: 1.25,
    method: 'GET',
    target: '/',
    ...changes,
  };
}

export function buildLine(timeMs: number, text: string, changes: Partial<LogLine> = {}): LogLine {
  return {
    subject: hello,
    timeMs,
    version: 1,
    instance: 'ins_1',
    stream: 'stdout',
    text,
    ...changes,
  };
}

const all: RecordQuery = { namespace: 'default', limit: 1000 };

async function idsOf(store: RecordStore, query: Partial<RecordQuery>): Promise<string[]> {
  return (await store.list({ ...all, ...query })).items.map(({ id }) => id);
}

type Define = (name: string, body: (store: RecordStore) => Promise<void>) => void;

export function recordsContract(
  test: (name: string, body: () => Promise<void>) => void,
  open: () => RecordStore,
): void {
  const define: Define = (name, body) =>
    test(name, async () => {
      const store = open();
      try {
        await body(store);
      } finally {
        await store.close();
      }
    });
  recordsComeBack(define);
  recordsAreFound(define);
  pagesAreInOrder(define);
  linesAndBodiesComeBack(define);
}

function recordsComeBack(define: Define): void {
  define('a record comes back as it was written', async store => {
    const plain = buildRecord(noon);
    const rich = buildRecord(noon + 1, {
      subject: other,
      version: 70_000,
      status: 502,
      state: 'failed',
      origin: 'replay',
      caller: 'anonymous',
      attempt: 3,
      durationMs: 61_000.5,
      method: 'POST',
      target: '/a?b=c%20d',
      instance: newId('ins', noon),
      parent: plain.id,
      label: 'order 7',
      failure: {
        kind: 'function',
        code: 'FUNCTION_FAILED',
        reason: 'threw',
        message: 'ü – 漢 – 🙂\nsecond line',
        type: 'TypeError',
        file: 'handler.ts',
        line: 3,
        stack: 'x'.repeat(8192),
      },
    });
    store.record(plain);
    store.record(rich);
    assert.deepEqual(await store.get(plain.id), plain);
    assert.deepEqual(await store.get(rich.id), rich);
    assert.deepEqual((await store.list(all)).items, [rich, plain]);
    assert.equal(await store.get(newId('inv', noon)), undefined);
    assert.equal(await store.get('nothing'), undefined);
  });
}

function recordsAreFound(define: Define): void {
  define('records are found by each property, and by several at once', async store => {
    const kinds = ['input', 'function', 'system'] as const;
    const failed = kinds.map((kind, index) =>
      buildRecord(noon + index, {
        status: [422, 502, 503][index]!,
        state: 'failed',
        failure: { kind, code: 'X', message: kind },
      }),
    );
    const left = buildRecord(noon + 10, { status: 499, state: 'cancelled', version: 2 });
    const repeated = buildRecord(noon + 11, { origin: 'replay' });
    const others = buildRecord(noon + 12, { subject: other });
    const teams = buildRecord(noon + 13, { subject: team });
    for (const record of [...failed, left, repeated, others, teams]) store.record(record);
    const [input, thrown, system] = failed.map(({ id }) => id);
    const found: Array<[Partial<RecordQuery>, Array<string | undefined>]> = [
      [{ state: 'failed' }, [system, thrown, input]],
      [{ kind: 'input' }, [input]],
      [{ state: 'failed', kind: 'system' }, [system]],
      [{ state: 'succeeded', kind: 'system' }, []],
      [{ state: 'cancelled' }, [left.id]],
      [{ version: 2 }, [left.id]],
      [{ version: 3 }, []],
      [{ status: 502 }, [thrown]],
      [{ status: 486 }, []],
      [{ statusClass: 5 }, [system, thrown]],
      [{ origin: 'replay' }, [repeated.id]],
      [{ functionId: other.functionId }, [others.id]],
      [{ functionId: 'fn_none' }, []],
      [{ namespace: 'team' }, [teams.id]],
      [{ sinceMs: noon + 11 }, [others.id, repeated.id]],
      [{ untilMs: noon + 1 }, [thrown, input]],
      [{ idPrefix: left.id }, [left.id]],
      [{ idPrefix: left.id.slice(0, 14) }, [left.id]],
      [{ idPrefix: 'inv_zz' }, []],
      [{ idPrefix: 'req_' }, []],
      // No id begins so, though one could go on to: `inv_` is the least that says anything.
      [{ idPrefix: 'in' }, []],
    ];
    for (const [query, ids] of found)
      assert.deepEqual(await idsOf(store, query), ids, JSON.stringify(query));
    assert.equal((await idsOf(store, { idPrefix: 'inv_' })).length, 6);
  });
}

function pagesAreInOrder(define: Define): void {
  define('pages are newest first by beginning, whatever ended first', async store => {
    // They end in another order than they begin; some begin in the same millisecond.
    const records = Array.from({ length: 50 }, (_, i) =>
      buildRecord(noon + (((i * 37) % 50) >> 1), { status: 200 + (i % 3) }),
    );
    const ids = records.map(({ id }) => id).sort((a, b) => (a < b ? 1 : -1));
    for (const [index, record] of records.entries()) {
      store.record(record);
      if (index % 7 === 0) await store.list(all);
    }
    const pages: string[][] = [];
    let after: string | undefined;
    do {
      const page = await store.list({ ...all, limit: 15, ...(after !== undefined && { after }) });
      pages.push(page.items.map(({ id }) => id));
      after = page.next;
    } while (after !== undefined);
    assert.deepEqual(
      pages.map(page => page.length),
      [15, 15, 15, 5],
    );
    assert.deepEqual(pages.flat(), ids);
  });
}

function linesAndBodiesComeBack(define: Define): void {
  define('lines come back in order, of a function, a call, an instance, a time', async store => {
    const call = newId('inv', noon);
    const lines = [
      buildLine(noon, 'first', { call }),
      buildLine(noon, 'of the instance', { stream: 'stderr' }),
      buildLine(noon + 1, 'ü – 漢 – 🙂\t{"a":1}', { call, version: 2, instance: 'ins_22' }),
      buildLine(noon + 2, ''),
    ];
    for (const line of lines) {
      store.line(line);
      if (line.text === 'first') await store.lines({ functionId: hello.functionId, limit: 1 });
    }
    store.line(buildLine(noon, 'of another', { subject: other }));
    const find = (query: object) =>
      store.lines({ functionId: hello.functionId, limit: 100, ...query });
    assert.deepEqual(await find({}), lines);
    assert.deepEqual(await find({ limit: 2 }), lines.slice(2));
    assert.deepEqual(await find({ call }), [lines[0], lines[2]]);
    assert.deepEqual(await find({ instance: 'ins_22' }), [lines[2]]);
    assert.deepEqual(await find({ version: 2 }), [lines[2]]);
    assert.deepEqual(await find({ sinceMs: noon + 1 }), lines.slice(2));
    assert.deepEqual(await find({ untilMs: noon }), lines.slice(0, 2));
  });

  define('bodies come back byte for byte', async store => {
    const kept = {
      id: newId('inv', noon),
      subject: hello,
      method: 'POST',
      target: '/x',
      requestHeaders: ['Content-Type', 'application/octet-stream'],
      input: Uint8Array.from({ length: 1024 ** 2 }, (_, i) => i & 255),
      status: 200,
      replyHeaders: [],
      output: Uint8Array.of(0, 255, 128),
    };
    store.bodies({ ...kept, id: newId('inv', noon), input: new Uint8Array(0) });
    store.bodies(kept);
    const found = (await store.bodiesOf(kept.id))!;
    assert.deepEqual([...found.output], [0, 255, 128]);
    assert.deepEqual(Buffer.compare(found.input, kept.input), 0);
    const { input: _, output: __, ...rest } = found;
    const { input: ___, output: ____, ...expected } = kept;
    assert.deepEqual(rest, expected);
    assert.equal(await store.bodiesOf(newId('inv', noon)), undefined);
  });
}
