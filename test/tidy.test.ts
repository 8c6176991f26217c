/**
 * Goal: rules that matter are checked, not remembered. Method: read every source file as text; a finding names the
 * file, the line and what to write instead.
 */
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { test } from 'node:test';

const root = join(import.meta.dirname, '..');
const sources = globSync('{src,client,sdk}/**/*.ts', { cwd: root }).filter(
  file => !file.endsWith('.test.ts'),
);
const tests = globSync('{src,client,sdk,test,runtimes}/**/*.test.ts', { cwd: root });

function read(file: string): string {
  return readFileSync(join(root, file), 'utf8');
}

/** Lowest first. A file may import from its own folder and from levels below its own. */
const levels: Array<{ name: string; matches: RegExp }> = [
  { name: 'client', matches: /^client\// },
  { name: 'base', matches: /^src\/(?:errors|clock|ids|log|body|slots|timer-wheel)\.ts$/ },
  { name: 'domain', matches: /^src\/domain\// },
  { name: 'config', matches: /^src\/(?:config|data-directory)\.ts$/ },
  { name: 'waist', matches: /^src\/invoke\/invoke\.ts$/ },
  { name: 'ports', matches: /^src\/(?:store\/store|blob\/blob|driver\/driver)\.ts$/ },
  { name: 'telemetry', matches: /^src\/telemetry\// },
  { name: 'link', matches: /^src\/link\// },
  { name: 'implementations', matches: /^src\/(?:store|blob|driver|build|auth)\// },
  { name: 'invoke', matches: /^src\/invoke\// },
  { name: 'deploy', matches: /^src\/deploy\// },
  { name: 'gateway', matches: /^src\/gateway\// },
  { name: 'main', matches: /^src\/main\.ts$/ },
  { name: 'testing', matches: /^src\/testing\// },
  { name: 'cli', matches: /^src\/(?:cli\/|index\.ts)/ },
];

function levelOf(file: string): number {
  return levels.findIndex(level => level.matches.test(file));
}

function importsOf(file: string): string[] {
  const found = [...read(file).matchAll(/(?:from|import)\s*\(?\s*'(\.[^']+)'/g)];
  return found.map(([, target]) => normalize(join(dirname(file), target!)));
}

test('every source file belongs to a level', () => {
  const lost = sources.filter(file => !file.startsWith('sdk/') && levelOf(file) === -1);
  assert.deepEqual(lost, [], 'add the folder to `levels`, or move the file');
});

test('an import goes strictly down, or stays in its folder', () => {
  const findings: string[] = [];
  for (const file of sources) {
    if (file.startsWith('sdk/')) continue;
    for (const target of importsOf(file)) {
      const sameFolder =
        dirname(file).split('/').slice(0, 2).join('/') ===
        dirname(target).split('/').slice(0, 2).join('/');
      if (sameFolder && dirname(file) !== 'src') continue;
      if (levelOf(target) < levelOf(file)) continue;
      if (levels[levelOf(file)]?.name === 'base' && levels[levelOf(target)]?.name === 'base')
        continue;
      findings.push(
        `${file} imports ${target}: ${levels[levelOf(file)]?.name} may not know ${levels[levelOf(target)]?.name}`,
      );
    }
  }
  assert.deepEqual(findings, []);
});

test('implementations are imported by the composition root and by what is above them only', () => {
  const concrete =
    /^src\/(?:store\/(?:memory|sqlite)|blob\/(?:file|memory)|driver\/(?:process\/process|http|mock))/;
  const allowed = /^src\/(?:main\.ts|testing\/|store\/|blob\/|driver\/)/;
  const findings = sources
    .filter(file => !allowed.test(file))
    .flatMap(file =>
      importsOf(file)
        .filter(target => concrete.test(target))
        .map(target => `${file} imports ${target}`),
    );
  assert.deepEqual(findings, [], 'take the port as an argument; main.ts passes the implementation');
});

const banned: Array<{ pattern: RegExp; instead: string; allowed: RegExp }> = [
  {
    pattern: /\bDate\.now\(|\bnew Date\(\)|\bperformance\.now\(/,
    instead: 'clock.now() or clock.monotonicMs()',
    allowed: /^src\/(?:clock|log)\.ts$|^src\/cli\//,
  },
  {
    pattern: /(?<![.\w])(?:setTimeout|setInterval)\(/,
    instead: 'clock.after()',
    allowed: /^src\/clock\.ts$|^src\/cli\/|^client\//,
  },
  {
    pattern: /\bMath\.random\(|\brandomUUID\b/,
    instead: 'newId() or newSecret()',
    allowed: /^src\/ids\.ts$/,
  },
  {
    pattern: /\bprocess\.env\b/,
    instead: 'a field of Config',
    allowed: /^src\/(?:config\.ts|cli\/)/,
  },
  { pattern: /\bprocess\.exit\(/, instead: 'throw; the CLI exits', allowed: /^src\/cli\// },
  { pattern: /\bconsole\.\w+\(/, instead: 'the log', allowed: /^src\/cli\// },
  { pattern: /\bexport default\b/, instead: 'a named export', allowed: /^$/ },
  { pattern: /\b(?:enum|namespace) \w+ \{/, instead: 'a const array and a union', allowed: /^$/ },
  { pattern: /(?:TODO|FIXME|XXX)\b/, instead: 'an issue', allowed: /^$/ },
];

test('globals of time, chance, environment and output appear in their one place', () => {
  const findings: string[] = [];
  for (const file of sources) {
    for (const { pattern, instead, allowed } of banned) {
      if (allowed.test(file)) continue;
      read(file)
        .split('\n')
        .forEach((line, i) => {
          const code = line
            .replace(/^\s*(?:\*|\/\/|\/\*).*$/, '')
            .replace(/`[^`]*`|'[^']*'/g, "''");
          if (pattern.test(code)) findings.push(`${file}:${i + 1} ${line.trim()} → ${instead}`);
        });
    }
  }
  assert.deepEqual(findings, []);
});

test('files stay within 500 lines and begin with what they are for', () => {
  const findings: string[] = [];
  for (const file of sources) {
    const text = read(file);
    const lines = text.split('\n').length - 1;
    if (lines > 500)
      findings.push(
        `${file} has ${lines} lines: split it where two halves change for different reasons`,
      );
    if (!/^(?:#!.*\n)?\/\*\*/.test(text))
      findings.push(`${file} does not begin with a comment that says what it is for`);
  }
  assert.deepEqual(findings, []);
});

test('no test is named twice in its file', () => {
  const findings: string[] = [];
  for (const file of tests) {
    const names = [...read(file).matchAll(/^\s*(?:test|it)\('((?:[^'\\]|\\.)+)'/gm)].map(
      match => match[1]!,
    );
    for (const name of new Set(names))
      if (names.filter(other => other === name).length > 1) findings.push(`${file}: ${name}`);
  }
  assert.deepEqual(findings, []);
});

test('no folder or file has a name that says nothing', () => {
  const empty = /(?:^|\/)(?:utils?|common|shared|helpers?|core|managers?|types|misc)(?:\/|\.ts$)/;
  assert.deepEqual(
    [...sources, ...tests].filter(file => empty.test(file)),
    [],
  );
});
