/**
 * Carries a plan out on a gateway: uploads sources that it does not have, puts functions, waits for
 * their builds, and removes last. A function that fails does not stop the others; while one has
 * failed, nothing is removed.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { FunctionView, VersionFailure, VersionView } from '../../client/api.ts';
import type { Client } from '../../client/client.ts';
import type { ErrorCode, Problem } from '../../client/errors.ts';
import type { ResourceKind } from '../domain/resource.ts';
import { resourceKinds, resourceRules } from '../domain/resource.ts';
import { GatewayError } from '../errors.ts';
import { type ExitCode, exitCodeOf, exitCodes, placeOf, problemOf } from './failure.ts';
import type { Output } from './output.ts';
import { limited } from './parallel.ts';
import type { Action } from './plan.ts';
import type { ResourceAction } from './plan-resources.ts';
import type { Desired } from './sources.ts';

/**
 * One request waits so long for a build, and is then repeated: fetch gives up after five minutes.
 */
const waitPerRequest = '4m';
const pollMs = 250;

export interface Outcome {
  name: string;
  result: 'created' | 'updated' | 'unchanged' | 'removed' | 'failed' | 'refused' | 'kept';
  /** The version that this made. */
  version?: number;
  durationMs: number;
  /** As the gateway has it now; absent when it was removed or could not be put. */
  function?: FunctionView;
  problem?: Problem;
}

export interface Put {
  outcome: 'created' | 'updated' | 'unchanged';
  version?: number;
  function: FunctionView;
}

/** As a manifest has it: the gateway tells later whether somebody has changed it since. */
export function asApplied(desired: Desired): Desired {
  return { ...desired, definition: { ...desired.definition, applied: true } };
}

/**
 * Puts one function and waits for its build. Throws what the gateway refused, and BUILD_FAILED and
 * its like.
 */
export async function putDesired(
  client: Client,
  desired: Pick<Desired, 'name' | 'definition' | 'tree'>,
): Promise<Put> {
  const { name, definition, tree } = desired;
  const { source } = definition;
  if (tree !== undefined && source !== undefined && 'digest' in source) {
    if ((await client.getSource(source.digest)) === undefined) {
      const { packTree } = await import('../build/archive.ts');
      await client.putSource(await packTree(tree));
    }
  }
  const put = await client.putFunction(name, definition, { wait: waitPerRequest });
  let latest: VersionView = put.function.latestVersion;
  while (latest.state === 'building') {
    // The gateway waits for the build; should it answer at once, it is not asked in a frenzy.
    await sleep(pollMs);
    latest = await client.getVersion(name, latest.number, { wait: waitPerRequest });
  }
  if (latest.state === 'failed') throw buildFailure(put.function, latest);
  const settled = { ...put.function, state: latest.state, latestVersion: latest };
  const made = put.version === undefined ? {} : { version: put.version };
  return { outcome: put.outcome, function: settled, ...made };
}

/** A failed version as an error that names the file and the line. */
function buildFailure(view: FunctionView, version: VersionView): GatewayError {
  const { name, activeVersion } = view;
  const failure: VersionFailure = version.failure ?? {
    code: 'BUILD_FAILED',
    message: 'no reason was recorded',
  };
  const place = placeOf(failure);
  // A tool's own message may begin with the place already.
  const told = place === '' || failure.message.startsWith(place);
  const message = told ? failure.message : `${place}: ${failure.message}`;
  const log = `See \`fnway describe ${name}\` for the build log.`;
  const answers = activeVersion === undefined ? '' : ` Version ${activeVersion} still answers.`;
  return new GatewayError(
    failure.code as ErrorCode,
    `${name} version ${version.number}: ${message}`,
    {
      remedy: `Correct it and deploy again. ${log}${answers}`,
    },
  );
}

/** `report` is called once for each action, as soon as it is done. */
export async function applyActions(
  client: Client,
  actions: ReadonlyArray<Action | ResourceAction>,
  { out, report }: { out: Output; report: (outcome: Outcome) => void },
): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  function settle(outcome: Outcome): void {
    outcomes.push(outcome);
    report(outcome);
  }
  const carryOut = async (action: Action | ResourceAction) =>
    settle(await out.during(labelOf(action), () => applyOne(client, action)));
  for (const phase of phasesOf(actions.filter(action => action.kind !== 'remove')))
    await limited(phase, carryOut);
  const failed = outcomes.filter(isFailure).length;
  for (const phase of phasesOf(actions.filter(action => action.kind === 'remove')).reverse())
    await limited(phase, async action => {
      // What is left over may be what the failed function was to replace.
      if (failed > 0) settle({ name: action.name, result: 'kept', durationMs: 0 });
      else await carryOut(action);
    });
  return outcomes;
}

/** What names others comes after them: functions, then each kind of resource. */
function phasesOf(
  actions: ReadonlyArray<Action | ResourceAction>,
): Array<Array<Action | ResourceAction>> {
  const kindOf = (action: Action | ResourceAction): ResourceKind | undefined =>
    'resource' in action ? action.resource : undefined;
  return [undefined, ...resourceKinds].map(kind =>
    actions.filter(action => kindOf(action) === kind),
  );
}

function isFailure(outcome: Outcome): boolean {
  return outcome.result === 'failed' || outcome.result === 'refused';
}

/** Of the first failure; 0 when there is none. */
export function exitCodeOfAll(outcomes: readonly Outcome[]): ExitCode {
  const problem = outcomes.find(isFailure)?.problem;
  return problem === undefined ? exitCodes.ok : exitCodeOf(problem);
}

async function applyOne(client: Client, action: Action | ResourceAction): Promise<Outcome> {
  const startedMs = performance.now();
  const { name } = action;
  const done = (outcome: Omit<Outcome, 'name' | 'durationMs'>): Outcome => ({
    name,
    ...outcome,
    durationMs: Math.round(performance.now() - startedMs),
  });
  try {
    if (action.kind === 'refused')
      return done({ result: 'refused', problem: problemOf(refusal(action)) });
    if ('resource' in action) return done({ result: await applyResource(client, action) });
    switch (action.kind) {
      case 'remove':
        await client.removeFunction(name);
        return done({ result: 'removed' });
      case 'unchanged':
        // One that another apply is still building is waited for; a ready one costs no request.
        if (action.current.state === 'ready') {
          return done({ result: 'unchanged', function: action.current });
        }
        break;
      case 'create':
      case 'update':
        break;
    }
    const { outcome, ...rest } = await putDesired(client, asApplied(action.desired));
    return done({ result: outcome, ...rest });
  } catch (error) {
    return done({ result: 'failed', problem: problemOf(error) });
  }
}

async function applyResource(
  client: Client,
  action: Exclude<ResourceAction, { kind: 'refused' }>,
): Promise<Outcome['result']> {
  const { resource, key } = action;
  const routes = client.resources(resourceRules[resource].plural);
  switch (action.kind) {
    case 'unchanged':
      return 'unchanged';
    case 'remove':
      await routes.remove(key);
      return 'removed';
    default:
      return (await routes.put(key, action.definition)).outcome;
  }
}

type Refused = (Action | ResourceAction) & { kind: 'refused' };

/** As it is told. */
export function refusalOf({ name, reason }: Refused): string {
  return `${name} was not touched: ${reason.replace(/([^?])$/, '$1.')}`;
}

function refusal(action: Refused): GatewayError {
  const { code } = action;
  const detail = refusalOf(action);
  if (code !== 'FUNCTION_EXISTS' && code !== 'RESOURCE_EXISTS')
    return new GatewayError(code, detail);
  const remedy =
    'Rename it in the manifest, or set the same `project:`, or use another namespace (-n).';
  return new GatewayError(code, detail, { remedy });
}

function labelOf(action: Action | ResourceAction): string {
  const making = 'resource' in action ? 'making' : 'building';
  return `${action.kind === 'remove' ? 'removing' : making} ${action.name}`;
}
