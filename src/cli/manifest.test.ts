/**
 * Goal: a manifest is read as written, and each mistake is told with its place. Method: tables of
 * texts with the issues they must give; random and mutated texts, which may only ever end in
 * MANIFEST_INVALID.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { GatewayError } from '../errors.ts';
import { loadManifest, namespaceOf, parseManifest } from './manifest.ts';
import { readSources } from './sources.ts';
import { manifestLimits } from './yaml-reader.ts';

const directory = mkdtempSync(path.join(tmpdir(), 'fnway-manifest-'));
after(() => rmSync(directory, { recursive: true }));

const good = `# A comment.
project: shop
namespace: team
functions:
  hello: { runtime: node, source: ./hello, entry: 'handler.ts:go', env: { A: hi, B: 1, C: true } }
  inline:
    runtime: python
    source: { files: { handler.py: "def handle(e, c): return 1" } }
  up:
    script: |
      uptime -p
    timeout: 2m
    memory: 64Mi
    instances: { min: 1, max: 2, idle: 1h }
  old: { http: { url: "http://10.0.0.5:8090/check" }, auth: none, labels: { team: a } }
`;

test('a manifest is read with its project, namespace and functions in order', () => {
  const manifest = parseManifest(good);
  assert.deepEqual([manifest.project, manifest.namespace], ['shop', 'team']);
  assert.deepEqual([...manifest.functions.keys()], ['hello', 'inline', 'up', 'old']);
  const hello = manifest.functions.get('hello')!;
  assert.equal(hello.path, './hello');
  assert.deepEqual(hello.definition.env, { A: 'hi', B: '1', C: 'true' });
  assert.deepEqual(hello.at, { line: 5, column: 3 });
  assert.deepEqual(hello.sourceAt, { line: 5, column: 35 });
  assert.equal(hello.input.source, undefined);
  assert.equal(hello.input.project, 'shop');
  assert.equal(manifest.functions.get('up')!.definition.timeout, 120_000);
  assert.equal(manifest.functions.get('inline')!.path, undefined);
});

test('a manifest without functions declares none', () => {
  assert.equal(parseManifest('project: a\n').functions.size, 0);
  assert.equal(parseManifest('functions:\n').functions.size, 0);
});

test('variables of the environment are not expanded', () => {
  const script = `echo $${'{HOME}'}`;
  const { functions } = parseManifest(`functions: { a: { script: "${script}" } }`);
  assert.equal(functions.get('a')!.definition.script, script);
});

test('anchors and merge keys work', () => {
  const text = 'functions:\n  a: &a { script: x, timeout: 5s }\n  b: { <<: *a, timeout: 6s }\n';
  assert.equal(parseManifest(text).functions.get('b')!.definition.timeout, 6000);
});

test('a key named __proto__ is a key like others', () => {
  const { issues } = failureOf('functions:\n  __proto__: { script: x }\n');
  assert.match(issues![0]!.message, /not a name/);
});

/** `line:column path: message` of each issue. */
function failureOf(text: string): GatewayError {
  try {
    parseManifest(text);
  } catch (error) {
    assert.ok(error instanceof GatewayError);
    assert.equal(error.code, 'MANIFEST_INVALID');
    return error;
  }
  return assert.fail('the manifest was accepted');
}

for (const [text, ...expected] of [
  ['', '1:1 : expected `functions:` with a function below it; it is empty'],
  ['- a', '1:1 : expected `functions:` with a function below it; it is a list'],
  ['a: [', /^1:5 : malformed YAML: flow sequence/],
  ['functions:\n\ta: 1', /^2:1 : malformed YAML: tabs/],
  ['project: a\n---\nproject: b', /^2:1 : malformed YAML: .*multiple documents/],
  ['project: a\nproject: b', '2:1 project: the key "project" is there twice'],
  [
    'functions:\n  a: { script: x }\n  b: { script: x }\n  a: { script: y }',
    '4:3 a: the key "a" is there twice',
  ],
  ['functions: { a: *b }', /^1:17 : the alias \*b stands for nothing/],
  ['? [a]\n: b', '1:3 : a key must be plain text'],
  ['projct: a', '1:1 projct: unknown key "projct"; did you mean "project"?'],
  ['zzzzz: a', '1:1 zzzzz: unknown key "zzzzz"'],
  ['flows: {}', '1:1 flows: flows are not supported yet by this version of fnway'],
  ['a: 1\nflows: []', /^1:1 a: unknown/, /^2:1 flows: .*not supported yet/],
  ['topics: []', '1:1 topics: expected names of topics, not a list'],
  ['schedules: { A: {} }', /^1:14 schedules\.A: not a name of a schedule/],
  [
    'schedules: { a: { function: b, every: 1d, corn: x } }',
    /^1:43 schedules\.a\.corn: unknown key "corn"; did you mean "cron"\?/,
  ],
  [
    'subscriptions: { a: { topic: b, pull: true, retry: { attempts: 101 } } }',
    /attempts: too big/i,
  ],
  ['project: Shop', /^1:10 project: use 1 to 63 of a-z/],
  ['namespace: 5', '1:12 namespace: expected text, not the number 5'],
  ['functions: [a]', '1:1 functions: expected names of functions, not a list'],
  ['functions:\n  A_b: { script: x }', /^2:3 functions\.A_b: not a name of a function/],
  ['functions:\n  a: x', '2:3 functions.a: expected a function\'s settings, not the text "x"'],
  [
    'functions:\n  a:\n    runtme: node\n    source: ./x',
    '3:5 functions.a.runtme: unknown key "runtme"; did you mean "runtime"?',
  ],
  [
    'functions:\n  a: { script: x, retry: {} }',
    '2:19 functions.a.retry.attempts: expected a number, not nothing',
  ],
  [
    'functions:\n  a: { script: x, project: b }',
    '2:19 functions.a.project: project is of the whole file',
  ],
  [
    'functions:\n  a:\n    script: x\n    instances:\n      mx: 3',
    '5:7 functions.a.instances.mx: unknown key "mx"; did you mean "max"?',
  ],
  ['functions:\n  a: { runtime: node }', '2:3 functions.a.source: a runtime needs a source'],
  ['functions:\n  a: { source: ./x }', '2:3 functions.a.runtime: source needs a runtime'],
  [
    'functions:\n  a: { runtime: node, source: 5 }',
    '2:31 functions.a.source: expected a path such as ./hello, or { files: … }, not the number 5',
  ],
  [
    'functions:\n  a: { runtime: node, source: { digest: x } }',
    /^2:23 functions\.a\.source: expected a path/,
  ],
  [
    'functions:\n  a: { runtime: node, source: { files: { b: 5 } } }',
    '2:45 functions.a.source.files.b: expected text, not the number 5',
  ],
  [
    'functions:\n  a: { script: x, env: { B: [1] } }',
    '2:26 functions.a.env.B: expected text, a number or true or false, not a list',
  ],
  [
    'functions:\n  a: { script: x, timeout: 5 }',
    /^2:28 functions\.a\.timeout: expected text such as 500ms, 30s or 2m, not the number 5/,
  ],
  ['functions:\n  a: { script: x, memory: 1x }', /^2:27 functions\.a\.memory: not a size; write/],
  ['functions:\n  a: { http: { url: ftp://x } }', /^2:21 functions\.a\.http\.url: write an http/],
  ['['.repeat(100), '1:65 : nested deeper than 64 levels'],
  [`\n${'? '.repeat(100)}`, '2:129 : nested deeper than 64 levels'],
] as [string, ...(string | RegExp)[]][]) {
  test(`the mistake is told: ${JSON.stringify(text.slice(0, 60))}`, () => {
    const { issues = [], message } = failureOf(text);
    const told = issues.map(i => `${i.line}:${i.column} ${i.path}: ${i.message}`);
    assert.equal(told.length, expected.length, told.join('\n'));
    for (const [index, pattern] of expected.entries()) {
      if (typeof pattern === 'string') assert.equal(told[index], pattern);
      else assert.match(told[index]!, pattern);
    }
    assert.match(message, new RegExp(`^fnway.yaml:${issues[0]!.line}:${issues[0]!.column}: `));
  });
}

test('very many mistakes are cut, and counted', () => {
  const keys = Array.from({ length: 200 }, (_, index) => `k${index}: 1`).join('\n');
  const error = failureOf(keys);
  assert.equal(error.issues!.length, manifestLimits.issuesMax);
  assert.match(error.message, /and 199 more/);
});

test('more than a mebibyte is refused', () => {
  const text = `functions: {} # ${'ä'.repeat(manifestLimits.bytesMax / 2)}`;
  assert.match(failureOf(text).message, /larger than 1048576 bytes/);
});

test('a small text that stands for a huge one is refused', () => {
  const lines = ['a0: &a0 [x,x,x,x,x,x,x,x,x,x]'];
  for (let i = 1; i < 12; i++) lines.push(`a${i}: &a${i} [${`*a${i - 1},`.repeat(10)}]`);
  assert.match(failureOf(lines.join('\n')).message, /alias/i);
});

test('texts that are slow for parsers are read or refused within a minute', () => {
  const startedMs = performance.now();
  for (const unit of [
    '[',
    '{',
    '? ',
    '- ',
    '&a ',
    'a: &b\n',
    '"',
    'k:\n',
    '!x ',
    '* ',
    '|\n',
    '{a: ',
  ]) {
    failureOf(unit.repeat(20_000));
  }
  failureOf(Array.from({ length: 20_000 }, (_, index) => `k${index}: 1`).join('\n'));
  const tookMs = performance.now() - startedMs;
  assert.ok(tookMs < 60_000, `took ${tookMs} ms`);
});

function parsesOrRefuses(text: string): void {
  try {
    parseManifest(text);
  } catch (error) {
    assert.ok(error instanceof GatewayError, String((error as Error).stack));
    assert.equal(error.code, 'MANIFEST_INVALID');
    for (const issue of error.issues ?? []) assert.ok(issue.line! >= 1 && issue.column! >= 1);
  }
}

test('random text is read or refused, and nothing else', () => {
  const yaml = fc.string({
    unit: fc.constantFrom(...'{}[]:,-?&*!|>#%@"\'`\n\t ~<ab1=\u0000\uFEFFä😀'),
    maxLength: 60,
  });
  fc.assert(fc.property(fc.oneof(fc.string(), yaml), parsesOrRefuses), { numRuns: 1500 });
});

test('a manifest with a piece cut out, doubled or replaced is read or refused', () => {
  const piece = fc.tuple(
    fc.nat(good.length),
    fc.nat(40),
    fc.oneof(
      fc.string({ maxLength: 8 }),
      fc.constantFrom('{', '*a', '&a ', '<<: ', 'null', '1e999', '.nan', '!!binary ', '- ', '\n'),
    ),
  );
  fc.assert(
    fc.property(fc.array(piece, { minLength: 1, maxLength: 4 }), pieces => {
      let text = good;
      for (const [at, length, put] of pieces)
        text = text.slice(0, at) + put + text.slice(at + length);
      parsesOrRefuses(text);
    }),
    { numRuns: 1500 },
  );
});

test('any values in the place of a function are read or refused', () => {
  const value = fc.jsonValue({ maxDepth: 3 });
  const keys = [
    'runtime',
    'source',
    'script',
    'http',
    'env',
    'timeout',
    'instances',
    'labels',
    'x',
  ];
  const definition = fc.dictionary(fc.constantFrom(...keys), value);
  fc.assert(
    fc.property(fc.dictionary(fc.string({ maxLength: 5 }), definition), functions =>
      parsesOrRefuses(JSON.stringify({ functions })),
    ),
    { numRuns: 1000 },
  );
});

test('a manifest that is missing, or too large on disk, is told before it is read', async () => {
  await assert.rejects(loadManifest(path.join(directory, 'nowhere')), {
    code: 'MANIFEST_INVALID',
    message: /^There is no /,
  });
  const file = path.join(directory, 'large.yaml');
  writeFileSync(file, '#'.repeat(manifestLimits.bytesMax + 1));
  await assert.rejects(loadManifest(file), { code: 'MANIFEST_INVALID', message: /larger than/ });
});

test('sources are read from beside the manifest; a missing one is told with its line', async () => {
  const text = 'functions:\n  a: { runtime: shell, source: ./a.sh }\n';
  writeFileSync(path.join(directory, 'fnway.yaml'), text);
  await assert.rejects(readSources(await loadManifest(directory)), {
    code: 'SOURCE_INVALID',
    message: /fnway\.yaml:2:32: functions\.a\.source: .* does not exist/,
  });
  writeFileSync(path.join(directory, 'a.sh'), 'echo a\n');
  const [desired] = await readSources(await loadManifest(directory));
  assert.deepEqual([...desired!.tree!.keys()], ['a.sh']);
  // A file is its own entry, whatever the runtime looks for.
  assert.equal(desired!.spec.entry, 'a.sh');
  assert.equal(desired!.definition.entry, 'a.sh');
  assert.deepEqual(desired!.definition.source, { digest: desired!.spec.source });
});

test('the namespace of a manifest with mistakes is not used', () => {
  assert.equal(namespaceOf('namespace: team\n'), 'team');
  assert.equal(namespaceOf('namespace: [\n'), undefined);
});
