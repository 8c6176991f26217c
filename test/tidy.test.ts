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

/** All code that people read and change, tests included. */
const everything = globSync('{src,client,sdk,runtimes,scripts,bench,test}/**/*.{ts,mjs,py,sh,go}', {
  cwd: root,
  exclude: path => path.includes('node_modules'),
});

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
  {
    name: 'ports',
    matches:
      /^src\/(?:store\/(?:store|records|jobs|schedules|messages|objects)|blob\/blob|driver\/driver)\.ts$/,
  },
  { name: 'telemetry', matches: /^src\/telemetry\// },
  { name: 'link', matches: /^src\/link\// },
  { name: 'auth', matches: /^src\/auth\// },
  { name: 'implementations', matches: /^src\/(?:store|blob|driver|build)\// },
  { name: 'invoke', matches: /^src\/invoke\// },
  { name: 'deploy', matches: /^src\/deploy\// },
  { name: 'queue', matches: /^src\/queue\// },
  { name: 'trigger', matches: /^src\/trigger\// },
  { name: 'gateway', matches: /^src\/gateway\// },
  { name: 'jobs', matches: /^src\/main-jobs\.ts$/ },
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

test('the level table of ARCHITECTURE.md says the same', () => {
  const table = read('ARCHITECTURE.md').split('## Levels')[1]!.split('\n## ')[0]!;
  const rows = [...table.matchAll(/^\| (\w+) \| (.*?) \|/gm)].slice(1);
  assert.deepEqual(
    rows.map(([, name]) => name),
    levels.map(({ name }) => name),
  );
  const named = rows.map(([, , files]) => {
    const paths = [...files!.matchAll(/`([^`]+)`/g)].map(([, path]) => path!);
    return new Set(
      paths.flatMap(path => globSync(path.endsWith('/') ? `${path}**/*.ts` : path, { cwd: root })),
    );
  });
  const findings = sources
    .filter(file => !file.startsWith('sdk/'))
    .map(file => ({ file, row: named.findIndex(files => files.has(file)), level: levelOf(file) }))
    .filter(({ row, level }) => row !== level)
    .map(({ file, row, level }) => `${file}: ${levels[level]?.name}, but ${rows[row]?.[1]} there`);
  assert.deepEqual(findings, []);
});

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
    /^src\/(?:store\/(?:memory|sqlite|records\/(?:memory|sqlite))|blob\/(?:file|memory)|driver\/(?:process\/process|http|mock))/;
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
  {
    // Not whether there is one, nor of what kind it is.
    pattern:
      /\btimingSafeEqual\b|(?:[tT]oken|[sS]ecret) [!=]== (?!undefined|null|'')|[!=]== [\w.]*(?:[tT]oken|[sS]ecret)\b(?!\.)/,
    instead: 'tokensEqual(), which takes as long whatever is wrong',
    allowed: /^src\/(?:auth|cli)\//,
  },
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

/** Files that may be longer, each with its reason. */
const longFiles: Record<string, string> = {
  'runtimes/python/main.py':
    'one file by design: what every instance needs is read once, by the fork server',
  'runtimes/python/main.test.ts':
    'speaks the protocol to one program; its table of replies is long',
  'runtimes/node/main.test.ts': 'the same for the node runtime',
  'runtimes/node/web.test.ts': 'a table against Node’s own Request, Response and Headers',
};

test('files stay within 500 lines', () => {
  const findings = everything
    .map(file => ({ file, lines: read(file).split('\n').length - 1 }))
    .filter(({ file, lines }) => lines > 500 && longFiles[file] === undefined)
    .map(({ file, lines }) => `${file} has ${lines} lines`);
  const needless = Object.keys(longFiles).filter(file => read(file).split('\n').length <= 501);
  assert.deepEqual(needless, [], 'exceptions that are needed no more');
  assert.deepEqual(findings, [], 'split where two halves change for different reasons');
});

test('files begin with what they are for', () => {
  const findings = sources.filter(file => !/^(?:#!.*\n)?\/\*\*/.test(read(file)));
  assert.deepEqual(findings, [], 'begin with a comment that says what it is for');
});

const functionLinesMax = 70;

/** Functions that may be longer, each with its reason. */
const longFunctions: Record<string, string> = {
  'src/main.ts build': 'the composition root: read top to bottom, branches nowhere',
  'src/gateway/openapi.ts operations': 'a list of routes',
  'src/gateway/routes/functions.ts functionRoutes': 'a list of routes, each a function of its own',
  'src/gateway/server.ts createServer': 'the wiring of the listener; its closures share one state',
  'src/driver/contract.ts defineAborting': 'a list of tests',
  'src/driver/contract.ts defineEnding': 'a list of tests',
  'src/testing/test-gateway.ts startTestGateway': 'what a test gets, field by field',
  'runtimes/python/main.py read':
    'one loop over frames: a call less a frame is a tenth of its time',
};

test(`functions stay within ${functionLinesMax} lines`, () => {
  // In a test file the longest functions are lists of tests.
  const code = everything.filter(file => !file.endsWith('.test.ts') && !file.endsWith('.sh'));
  const long = code.flatMap(file =>
    functionsOf(file)
      .filter(({ lines }) => lines > functionLinesMax)
      .map(({ name, lines }) => ({ place: `${file} ${name}`, lines })),
  );
  const needless = Object.keys(longFunctions).filter(
    place => !long.some(found => found.place === place),
  );
  assert.deepEqual(needless, [], 'exceptions that are needed no more');
  const findings = long
    .filter(({ place }) => longFunctions[place] === undefined)
    .map(({ place, lines }) => `${place} has ${lines} lines`);
  assert.deepEqual(findings, [], 'name a part of it and take it out');
});

interface Found {
  name: string;
  lines: number;
}

/** Found by indentation: the formatter puts the end of what a line opens below its beginning. */
function functionsOf(file: string): Found[] {
  const lines = read(file).split('\n');
  return lines.flatMap((line, at) => {
    const name = file.endsWith('.py')
      ? /^ *(?:async )?def (\w+)/.exec(line)?.[1]
      : functionName(line);
    if (name === undefined) return [];
    const end = file.endsWith('.py') ? endOfBlock(lines, at) : endOfBraces(lines, at);
    return end === undefined ? [] : [{ name, lines: end - at + 1 }];
  });
}

function functionName(line: string): string | undefined {
  const inGo = /^func (?:\([^)]*\) )?(\w+)/.exec(line);
  if (inGo !== null) return inGo[1];
  const declared = /^\s*(?:export )?(?:async )?function\*? ?(\w*)/.exec(line);
  if (declared !== null) return declared[1];
  if (/=> \{$/.test(line)) return line.trim();
  const method =
    /^\s+(?:static |async |get |set |\*)*(?!(?:if|for|while|switch|catch|return|await|super)\b)(#?[\w$]+)(?:<.*>)?\((?:.*\{)?$/;
  return method.exec(line)?.[1];
}

/** The line that closes what this one opens; undefined when it is a call, not a declaration. */
function endOfBraces(lines: string[], from: number): number | undefined {
  const indent = indentOf(lines[from]!);
  let opened = lines[from]!.endsWith('{');
  for (let at = from + 1; at < lines.length; at++) {
    const line = lines[at]!;
    if (line.trim() === '' || indentOf(line) > indent) continue;
    // The end of a long list of parameters.
    if (/^\s*[)}].*\{$/.test(line)) opened = true;
    else return opened && /^\s*\}/.test(line) ? at : undefined;
  }
  return undefined;
}

function endOfBlock(lines: string[], from: number): number {
  let last = from;
  for (let at = from + 1; at < lines.length; at++) {
    if (lines[at]!.trim() === '') continue;
    if (indentOf(lines[at]!) <= indentOf(lines[from]!)) break;
    last = at;
  }
  return last;
}

function indentOf(line: string): number {
  return line.length - line.trimStart().length;
}

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
