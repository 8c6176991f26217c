/**
 * Goal: a function is of the Functions Framework's style exactly when the guide says so, and gets the library when it does
 * not bring its own. Method: a table of one sign each, against sources that have none.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseRequirements } from './pip.ts';
import { frameworkUse, type StyleSigns } from './python-framework.ts';

type Given = Partial<Omit<StyleSigns, 'requirements' | 'spec'>> & {
  spec?: Partial<StyleSigns['spec']>;
  requirements?: string;
};

function useOf({ spec = {}, requirements = '', ...more }: Given) {
  return frameworkUse({
    spec: { env: {}, ...spec },
    entry: 'main.py',
    code: 'def handle(event, context): pass',
    requirements: parseRequirements(requirements, 'requirements.txt'),
    ...more,
  });
}

/** A main.py whose definition names the handler `hello`. */
const main = (code: string): Given => ({ code, spec: { handler: 'hello' } });

const own: Record<string, Given> = {
  'nothing that says so': {},
  'other variables': { spec: { env: { TARGET: 'x', FUNCTION: 'y' } } },
  'other packages': {
    requirements: 'flask==3.1.3\nfunctions-framework-extras\n# functions-framework',
  },
  'the name in a comment': { code: '# import functions_framework\nx = 1 # functions_framework' },
  'an import of something alike': {
    code: 'import functions_framework_x\nimport a # functions_framework',
  },
  'two parameters': main('def hello(event, context): pass'),
  'no parameter': main('def hello(): pass'),
  'any number of parameters': main('def hello(*args): pass'),
  'one that is called event': main('def hello(event): pass'),
  'a second one with a default': main('def hello(request, verbose=False): pass'),
  'a method': main('class A:\n    def hello(request): pass'),
  'another function': main('def hello_you(request): pass\ndef hi(request): pass'),
  'no name in the definition': { code: 'def handle(request): pass' },
  'another file': { ...main('def hello(request): pass'), entry: 'handler.py' },
  'no end of the parameters': main(`def hello(request${'"\\"'.repeat(100_000)}`),
};

const framework: Record<string, Given> = {
  'the setting': { spec: { signature: 'http' } },
  'a target in env': { spec: { env: { FUNCTION_TARGET: 'x' } } },
  'a signature in env': { spec: { env: { FUNCTION_SIGNATURE_TYPE: 'event' } } },
  'an import': { code: 'import functions_framework' },
  'an import in a file of any name': { code: 'import functions_framework', entry: 'handler.py' },
  'an import among others': { code: 'import os, functions_framework as ff  # yes' },
  'an import of a decorator': { code: 'x = 1\ntry:\n  from functions_framework import http' },
  'an import of a part': { code: 'from functions_framework.aio import http\r\n' },
  'one parameter': main('def hello(request): pass'),
  'one parameter, typed, in lines': main(
    'import x\n\nasync def hello(\n    request: "a, b" = ("(", {}),  # one, two\n) -> str: pass',
  ),
  'one positional parameter': main('def hello(req, /, *, key=1): pass'),
};

const listed: Record<string, string> = {
  'by name': 'functions-framework',
  'in another spelling': 'Functions_Framework [x] >=3 ; python_version > "3"',
  'in a version': 'functions-framework==3.*',
  'as a wheel': './wheels/functions_framework-3.10.2-py3-none-any.whl',
  'as an address': 'functions-framework @ https://example.com/ff.whl',
  'as a repository': 'git+https://example.com/x/functions-framework-python@main',
};

test('the runtime’s own style is what has no sign of the framework', () => {
  for (const [why, given] of Object.entries(own)) assert.equal(useOf(given), undefined, why);
  const constraint = { file: 'c.txt', line: 1, text: 'functions-framework<4', constraint: true };
  const signs = { spec: { env: {} }, entry: 'main.py', code: '', requirements: [constraint] };
  assert.equal(frameworkUse(signs), undefined);
});

test('one sign makes a function one of the framework, and the library is added', () => {
  for (const [why, given] of Object.entries(framework))
    assert.deepEqual(useOf(given), { adds: true }, why);
});

test('a library that requirements.txt names is a sign, and is not added', () => {
  for (const [how, requirements] of Object.entries(listed))
    assert.deepEqual(useOf({ requirements }), { adds: false }, how);
  const both = { requirements: 'functions-framework', code: 'import functions_framework' };
  assert.deepEqual(useOf(both), { adds: false });
});
