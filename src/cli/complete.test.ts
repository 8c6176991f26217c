/**
 * Goal: the Tab key offers what may stand next, and a file only where one may. Method: pure, on a
 * small program with the shapes that fnway's commands have.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Command, Option } from 'commander';
import { complete } from './complete.ts';

function program(): Command {
  const root = new Command('fnway')
    .option('--url <url>', 'address')
    .option('-n, --namespace <name>', 'namespace')
    .option('--json', 'JSON');
  root.command('new').argument('<runtime>').argument('<name>');
  root.command('up').argument('[dir]').option('--log-level <level>').option('--data <dir>');
  root
    .command('deploy')
    .argument('<name>')
    .option('--source <path>')
    .option('--runtime <name>')
    .option('--stream')
    .addOption(new Option('--auth <kind>').choices(['token', 'none']));
  root.command('logs').argument('<name>').option('-f, --follow');
  root.command('invoke').argument('<name[@version]>').option('-f, --file <path>');
  root.command('secret', { hidden: true });
  const token = root.command('token');
  token.command('show').argument('<name>');
  token.command('rotate').argument('<name>');
  return root;
}

function values(line: string): string[] {
  return complete(program(), line.split(' ')).suggestions.map(suggestion => suggestion.value);
}

function kind(line: string): string {
  const { files, more } = complete(program(), line.split(' '));
  return files ? 'files' : (more ?? 'nothing');
}

test('commands and those below them, without the hidden ones', () => {
  assert.deepEqual(values('de'), ['deploy']);
  assert.deepEqual(values('s'), []);
  assert.deepEqual(values('token '), ['show', 'rotate', 'help']);
  assert.deepEqual(values('--json lo'), ['logs']);
  assert.deepEqual(values('--url http://host lo'), ['logs']);
});

test('flags of the command and of all commands', () => {
  assert.deepEqual(values('deploy x --s'), ['--source', '--stream']);
  assert.deepEqual(values('deploy --names'), ['--namespace']);
});

test('values that are known beforehand, after a space and after =', () => {
  assert.deepEqual(values('deploy x --auth '), ['token', 'none']);
  assert.deepEqual(values('deploy x --auth=n'), ['none']);
  assert.deepEqual(values('up --log-level=d'), ['debug']);
});

test('functions, runtimes and files where each belongs', () => {
  const expected = {
    'new ': 'runtimes',
    'new node ': 'nothing',
    'up ': 'files',
    'up --data ': 'files',
    'deploy ': 'functions',
    'deploy x --runtime ': 'runtimes',
    'deploy x --source ': 'files',
    'deploy x --source=./': 'files',
    'logs -f ': 'functions',
    'invoke -f ': 'files',
    'invoke x ': 'nothing',
    'token rotate ': 'functions',
  };
  for (const [line, what] of Object.entries(expected)) assert.equal(kind(line), what, line);
});

test('the namespace given so far is told, so that its functions are offered', () => {
  assert.deepEqual(complete(program(), ['-n', 'team', 'logs', '']).given, { namespace: 'team' });
  assert.deepEqual(complete(program(), ['--url=http://h', 'logs', 'a']).given, { url: 'http://h' });
});
