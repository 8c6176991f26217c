/**
 * Goal: a plan names exactly what differs, and touches nothing of another project. Method: a
 * server's view is made from a definition in the gateway's own way (splitDefinition, formatted
 * units), then one thing is changed.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { FunctionDefinition, FunctionView } from '../../client/api.ts';
import { definitionSchema, splitDefinition } from '../domain/function.ts';
import { retryViewOf } from '../domain/retry.ts';
import { formatDuration, formatSize } from '../domain/units.ts';
import { type Action, planFunctions } from './plan.ts';
import type { Desired } from './sources.ts';

const digest = `sha256:${'a'.repeat(64)}`;

function desire(definition: FunctionDefinition, name = 'hello'): Desired {
  const parsed = definitionSchema.parse(definition);
  const { source } = definition;
  const known = source !== undefined && 'digest' in source ? source.digest : undefined;
  const split = splitDefinition(parsed, known);
  return { name, definition, ...split };
}

function viewOf(definition: FunctionDefinition, name = 'hello'): FunctionView {
  const { spec, settings } = desire(definition, name);
  const { timeoutMs, memoryBytes, handler, entry, image: _, ...rest } = spec;
  const { retry, ...same } = settings;
  const { min, max, idleMs } = settings.instances;
  return {
    id: `fn_${name}`,
    namespace: 'default',
    name,
    state: 'ready',
    activeVersion: 1,
    latestVersion: {
      ...rest,
      ...((entry ?? handler) && { entry: `${entry ?? ''}${handler ? `:${handler}` : ''}` }),
      timeout: formatDuration(timeoutMs),
      memory: formatSize(memoryBytes),
      number: 1,
      state: 'ready',
      createdAt: '',
    },
    ...same,
    record: settings.record ?? 'calls',
    ...(retry !== undefined && { retry: retryViewOf(retry) }),
    instances: { min, max, idle: formatDuration(idleMs) },
    endpoint: `/function/${name}`,
    revision: 1,
    createdAt: '',
    updatedAt: '',
  };
}

const base: FunctionDefinition = { runtime: 'node', source: { digest } };

function planOf(
  wanted: FunctionDefinition,
  had: FunctionDefinition | undefined,
  project?: string,
): Action {
  const current = had === undefined ? [] : [viewOf(had)];
  return planFunctions({ project, functions: [desire(wanted)] }, current)[0]!;
}

test('a function that the gateway does not have is created', () => {
  assert.equal(planOf(base, undefined).kind, 'create');
});

test('a function that was rolled back is built again, and the plan says so', () => {
  const view = viewOf(base);
  const current = { ...view, latestVersion: { ...view.latestVersion, number: 3 } };
  const plan = (latest: FunctionView) => planFunctions({ functions: [desire(base)] }, [latest])[0]!;
  const action = plan(current);
  assert.ok(action.kind === 'update');
  assert.deepEqual(action.changes, []);
  assert.equal(action.reason, 'version 3 does not answer, another one was chosen; built again');
  const building = { ...current.latestVersion, state: 'building' as const };
  assert.equal(plan({ ...current, latestVersion: building }).kind, 'unchanged');
});

for (const [name, wanted, had] of [
  ['the same definition', base, base],
  ['a default spelled out', { ...base, timeout: '60s', memory: '256Mi', auth: 'token' }, base],
  ['a default left out', base, { ...base, timeout: '1m', instances: { min: 0, max: 4 } }],
  ['other units', { ...base, timeout: '120s' }, { ...base, timeout: '2m' }],
  ['bytes as a number', { ...base, memory: 268_435_456 }, { ...base, memory: '256Mi' }],
  [
    'env of another type',
    { ...base, env: { A: 1, B: true } },
    { ...base, env: { A: '1', B: 'true' } },
  ],
  ['keys in another order', { ...base, env: { A: 1, B: 2 } }, { ...base, env: { B: 2, A: 1 } }],
  [
    'how a script is called',
    { script: 'x', args: ['a'], argKeys: ['b'], allowExitCodes: [1], result: { key: 'k' } },
    { script: 'x', args: ['a'], argKeys: ['b'], allowExitCodes: [1], result: { key: 'k' } },
  ],
  ['an empty list', { script: 'x', args: [] }, { script: 'x' }],
  [
    'a convention',
    { http: { url: 'http://a', convention: 'operation' } },
    { http: { url: 'http://a', convention: 'operation' } },
  ],
  ['a handler alone', { ...base, entry: ':go' }, { ...base, entry: ':go' }],
] as [string, FunctionDefinition, FunctionDefinition][]) {
  test(`${name} is unchanged`, () => {
    assert.equal(planOf(wanted, had).kind, 'unchanged');
  });
}

for (const [wanted, had, expected] of [
  [{ ...base, timeout: '5s' }, base, ['version timeout: 1m → 5s']],
  [{ ...base, memory: '1Gi' }, base, ['version memory: 256Mi → 1Gi']],
  [{ ...base, entry: 'a.ts:b' }, base, ['version entry: undefined → a.ts:b']],
  [{ ...base, env: { A: 'x' } }, base, ['version env.A: undefined → undefined']],
  [{ ...base, env: { A: '' } }, base, ['version env.A: undefined → undefined']],
  [base, { ...base, env: { A: 'x' } }, ['version env.A: undefined → undefined']],
  [{ ...base, auth: 'none' }, base, ['settings auth: token → none']],
  [{ ...base, concurrency: 3 }, base, ['settings concurrency: undefined → 3']],
  [{ ...base, instances: { max: 9 } }, base, ['settings instances.max: 4 → 9']],
  [{ ...base, labels: { a: 'b' } }, base, ['settings labels.a: undefined → b']],
  [{ ...base, project: 'p' }, base, ['settings project: undefined → p']],
  [
    { ...base, source: { digest: `sha256:${'b'.repeat(64)}` } },
    base,
    ['version source: undefined → undefined'],
  ],
  [{ script: 'x' }, { script: 'y' }, ['version script: undefined → undefined']],
  [
    { http: { url: 'http://a/' } },
    { http: { url: 'http://b/' } },
    ['version url: http://b/ → http://a/'],
  ],
] as [FunctionDefinition, FunctionDefinition, string[]][]) {
  test(`the change is told: ${expected} (${JSON.stringify(wanted).slice(0, 70)})`, () => {
    const action = planOf(wanted, had, wanted.project);
    assert.ok(action.kind === 'update');
    assert.deepEqual(
      action.changes.map(
        ({ part, field, before, after }) => `${part} ${field}: ${before} → ${after}`,
      ),
      expected,
    );
  });
}

test('another kind changes what belongs to both', () => {
  const action = planOf({ script: 'x' }, base);
  assert.ok(action.kind === 'update');
  const fields = action.changes.map(change => change.field).sort();
  assert.deepEqual(fields, ['kind', 'runtime', 'script', 'source']);
});

test('a value of env is never in a plan', () => {
  const action = planOf({ ...base, env: { A: 'hidden' } }, { ...base, env: { A: 'secret' } });
  assert.doesNotMatch(JSON.stringify('changes' in action && action.changes), /hidden|secret/);
});

test('a version that failed is built again, though nothing changed', () => {
  const view = viewOf(base);
  view.latestVersion.state = 'failed';
  const [action] = planFunctions({ functions: [desire(base)] }, [view]);
  assert.ok(action?.kind === 'update');
  assert.deepEqual(action.changes, []);
  assert.match(action.reason!, /version 1 failed/);
});

const mine = { ...base, project: 'mine' };
const theirs = { ...base, project: 'theirs' };

test('a function of another project is refused, with and without a project of ours', () => {
  for (const [wanted, project] of [
    [mine, 'mine'],
    [base, undefined],
  ] as const) {
    const action = planOf(wanted, theirs, project);
    assert.ok(action.kind === 'refused');
    assert.match(action.reason, /belongs to project theirs/);
  }
});

test('a function without a project is taken over by ours', () => {
  assert.equal(planOf(mine, base, 'mine').kind, 'update');
});

test('only what the own project left behind is removed', () => {
  const current = [viewOf(mine, 'left'), viewOf(theirs, 'other'), viewOf(base, 'nobodys')];
  const actions = planFunctions({ project: 'mine', functions: [] }, current);
  assert.deepEqual(
    actions.map(action => `${action.kind} ${action.name}`),
    ['remove left'],
  );
});

const runtimes = [
  { name: 'node', aliases: [] },
  { name: 'python', aliases: ['python3'] },
];

test('an alias of a runtime is no difference from its name', () => {
  const definition = { ...base, runtime: 'python' };
  const functions = [desire({ ...definition, runtime: 'python3' })];
  const [action] = planFunctions({ functions }, [viewOf(definition)], runtimes);
  assert.equal(action?.kind, 'unchanged');
});

test('what the gateway cannot run is refused by the plan already', () => {
  const [image, typo, fine] = planFunctions(
    {
      functions: [
        desire({ image: 'x' }, 'a'),
        desire({ ...base, runtime: 'nod' }, 'b'),
        desire(base, 'c'),
      ],
    },
    [],
    runtimes,
  );
  assert.ok(image?.kind === 'refused' && typo?.kind === 'refused');
  assert.equal(image.code, 'DRIVER_NOT_CONFIGURED');
  assert.equal(typo.code, 'RUNTIME_NOT_FOUND');
  assert.equal(typo.reason, 'the gateway has no runtime nod; did you mean node?');
  assert.equal(fine?.kind, 'create');
});

test('without a project nothing is removed', () => {
  assert.deepEqual(planFunctions({ functions: [] }, [viewOf(base, 'x'), viewOf(mine, 'y')]), []);
});

test('actions keep the order of the manifest, removals come last', () => {
  const functions = [desire(mine, 'b'), desire(mine, 'a')];
  const actions = planFunctions({ project: 'mine', functions }, [
    viewOf(mine, 'c'),
    viewOf(mine, 'a'),
  ]);
  assert.deepEqual(
    actions.map(action => `${action.kind} ${action.name}`),
    ['create b', 'unchanged a', 'remove c'],
  );
});
