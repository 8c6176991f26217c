/** Goal: the last lines of each function are kept whole, bounded and in order. Method: bytes and lines by hand. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { LogLine } from '../domain/record.ts';
import { LineSplitter, type OutputLine, OutputLog, outputLimits, readMark } from './output.ts';

const nowMs = 0;

function split(chunks: readonly Buffer[]): string[] {
  const lines: string[] = [];
  const splitter = new LineSplitter(
    text => lines.push(text),
    () => nowMs,
  );
  for (const chunk of chunks) splitter.push(chunk);
  splitter.end();
  return lines;
}

test('lines are the same however the bytes are cut, letters of several bytes included', () => {
  const text = fc.array(fc.string({ unit: fc.constantFrom('a', 'é', '日', '😀', ' ') }));
  fc.assert(
    fc.property(text, fc.array(fc.nat(200)), (lines, cuts) => {
      const bytes = Buffer.from(lines.map(line => `${line}\n`).join(''));
      const places = cuts.map(cut => cut % (bytes.length + 1)).sort((a, b) => a - b);
      const chunks = [...places, bytes.length].map((end, i) =>
        bytes.subarray(places[i - 1] ?? 0, end),
      );
      assert.deepEqual(split(chunks), lines);
    }),
  );
});

test('a last line without its end counts, and a carriage return goes', () => {
  assert.deepEqual(split([Buffer.from('a\r\nb')]), ['a', 'b']);
});

test('a line over the limit is cut and marked once, in one piece or in many', () => {
  const long = 'x'.repeat(outputLimits.lineCharsMax * 3);
  for (const size of [1000, outputLimits.lineCharsMax, long.length]) {
    const bytes = Buffer.from(`before\n${long}\nafter\n`);
    const chunks: Buffer[] = [];
    for (let at = 0; at < bytes.length; at += size) chunks.push(bytes.subarray(at, at + size));
    const lines = split(chunks);
    assert.equal(lines.length, 3, `pieces of ${size}`);
    assert.equal(lines[0], 'before');
    assert.match(lines[1]!, /^x+ … \(line cut\)$/);
    assert.equal(lines[2], 'after');
  }
});

const subject = (functionId: string) => ({ functionId, namespace: 'default', name: functionId });
const line = (text: string, instance = 'ins_1') => ({
  version: 1,
  instance,
  stream: 'stdout' as const,
  text,
});

test('the tail is the last lines, oldest first, of one instance where one is named', () => {
  const log = new OutputLog(() => 5);
  for (let i = 0; i < 10; i++)
    log.append(subject('fn'), line(String(i), i % 2 === 0 ? 'even' : 'odd'));
  const texts = (options: { linesMax: number; instance?: string }) =>
    log.tail('fn', options).map(entry => entry.text);
  assert.deepEqual(texts({ linesMax: 3 }), ['7', '8', '9']);
  assert.deepEqual(texts({ linesMax: 2, instance: 'even' }), ['6', '8']);
  assert.deepEqual(texts({ linesMax: 0 }), []);
  assert.deepEqual(log.tail('other', { linesMax: 3 }), []);
});

test('no more lines than the limit and a quarter are kept', () => {
  const log = new OutputLog(() => 5);
  for (let i = 0; i < outputLimits.linesMax * 3; i++) {
    log.append(subject('fn'), line(String(i)));
    const kept = log.tail('fn', { linesMax: Number.MAX_SAFE_INTEGER }).length;
    assert.ok(kept <= outputLimits.linesMax * 1.25);
  }
});

test('a follower gets every line until it leaves', () => {
  const log = new OutputLog(() => 5);
  const seen: string[] = [];
  const follower = { onLine: (entry: OutputLine) => seen.push(entry.text), onEnd: assert.fail };
  const leave = log.follow('fn', follower);
  log.append(subject('fn'), line('a'));
  log.append(subject('other'), line('x'));
  leave();
  log.append(subject('fn'), line('b'));
  log.remove('fn');
  assert.deepEqual(seen, ['a']);
});

test('a follower of a removed function is told that nothing comes any more', () => {
  const log = new OutputLog(() => 5);
  let ends = 0;
  const follower = { onLine: () => assert.fail(), onEnd: () => ends++ };
  const leave = log.follow('fn', follower);
  log.remove('fn');
  leave();
  log.follow('fn', follower)();
  assert.equal(ends, 2);
});

/** What a line of `length` letters is counted as; see `sizeOf`. */
const bytesOf = (length: number) => 128 + 2 * length;

test('the lines of one function take no more memory than the limit and a quarter', () => {
  const log = new OutputLog(() => 5);
  const { keptBytesMax, lineCharsMax, linesMax } = outputLimits;
  for (let i = 0; i < 500; i++) {
    log.append(subject('fn'), line(String(i).padEnd(lineCharsMax, '日')));
    const kept = log.tail('fn', { linesMax });
    assert.ok(kept.length * bytesOf(lineCharsMax) <= keptBytesMax * 1.25);
    assert.equal(kept.at(-1)!.text.slice(0, String(i).length), String(i));
  }
});

test('beyond the limit for all, those that have written nothing for longest lose their lines', () => {
  const log = new OutputLog(() => 5);
  const { keptBytesTotalMax, linesMax } = outputLimits;
  const text = 'x'.repeat(10_000);
  const count = Math.ceil(keptBytesTotalMax / bytesOf(text.length)) + 10;
  for (let i = 0; i < count; i++) {
    log.append(subject(`fn${i}`), line(text));
    log.append(subject('often'), line('short'));
  }
  const kept = Array.from({ length: count }, (_, i) => log.tail(`fn${i}`, { linesMax }).length);
  const first = kept.indexOf(1);
  assert.ok(first > 9 && first < 40, `from ${first} on`);
  assert.ok(kept.slice(first).every(lines => lines === 1));
  assert.equal(log.tail('often', { linesMax: 10 }).length, 10);
  // What is removed makes room.
  for (let i = first; i < count; i++) log.remove(`fn${i}`);
  log.append(subject('another'), line(text));
  assert.equal(log.tail('often', { linesMax: 10 }).length, 10);
});

test('a removed function keeps nothing, though its instances write a little longer', () => {
  const log = new OutputLog(() => 5);
  log.append(subject('fn'), line('a'));
  log.remove('fn');
  log.append(subject('fn'), line('last words'));
  assert.deepEqual(log.tail('fn', { linesMax: 10 }), []);
});

test('many lines at once are taken, a flood is cut, and says so once', () => {
  const { linesAtOnceMax, linesPerSecondMax } = outputLimits;
  let nowMs = 0;
  const lines: string[] = [];
  const splitter = new LineSplitter(
    text => lines.push(text),
    () => nowMs,
  );
  const flood = Buffer.from('\n'.repeat(linesAtOnceMax));
  splitter.push(flood);
  assert.equal(lines.length, linesAtOnceMax);
  splitter.push(flood);
  splitter.push(flood);
  assert.equal(lines.length, linesAtOnceMax + 1);
  assert.match(lines.at(-1)!, /left out/);
  // After a second, what comes in one; and the bound is told again.
  nowMs = 1000;
  splitter.push(flood);
  assert.equal(lines.length, linesAtOnceMax + 1 + linesPerSecondMax + 1);
  nowMs = 3600_000;
  splitter.push(flood);
  assert.equal(lines.at(-1), '');
});

test('long lines are bounded by their bytes', () => {
  const line = Buffer.from(`${'x'.repeat(16_000)}\n`);
  const count = Math.ceil(outputLimits.outputBytesAtOnceMax / line.length) + 10;
  const lines = split(Array.from({ length: count }, () => line));
  assert.equal(lines.length, Math.floor(outputLimits.outputBytesAtOnceMax / (line.length - 1)) + 1);
  assert.match(lines.at(-1)!, /left out/);
});

test('every line is given to be kept, with whose it is', () => {
  const kept: LogLine[] = [];
  const log = new OutputLog(
    () => 5,
    line => kept.push(line),
  );
  log.append(subject('fn'), { ...line('a'), call: 'inv_1' });
  log.remove('fn');
  log.append(subject('fn'), line('b'));
  assert.deepEqual(kept, [{ subject: subject('fn'), timeMs: 5, ...line('a'), call: 'inv_1' }]);
});

test('what is hidden is told where the line was cut, and hidden before the mark', () => {
  const asked: Array<[text: string, isCut: boolean]> = [];
  const log = new OutputLog(
    () => 5,
    undefined,
    (_, text, options) => {
      asked.push([text.slice(-3), options?.isCut === true]);
      return 'hidden';
    },
  );
  for (const text of split([Buffer.from(`${'x'.repeat(outputLimits.lineCharsMax + 1)}\nwhole\n`)]))
    log.append(subject('fn'), line(text));
  assert.deepEqual(asked, [
    ['xxx', true],
    ['ole', false],
  ]);
  const [cut, whole] = log.tail('fn', { linesMax: 2 }).map(({ text }) => text);
  assert.match(cut!, /^hidden … /);
  assert.equal(whole, 'hidden');
});

test('a mark names the call; what only looks like one is text', () => {
  const id = '01kb7x3c2dabcdefghjkmnpqrs';
  assert.deepEqual(readMark(`\x1e${id}\x1fhello`), { call: `inv_${id}`, text: 'hello' });
  assert.deepEqual(readMark(`\x1e${id}\x1f`), { call: `inv_${id}`, text: '' });
  for (const text of ['', 'hello', `\x1e${id}`, `\x1e${id}x\x1f`, `\x1e${'*'.repeat(26)}\x1fx`])
    assert.deepEqual(readMark(text), { text });
});
