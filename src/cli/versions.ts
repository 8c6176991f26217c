/** `fnway versions`, `promote` and `rollback`: which version of a function answers. */
import { type Command, InvalidArgumentError } from 'commander';
import type { VersionView } from '../../client/api.ts';
import { GatewayError } from '../errors.ts';
import { type Context, checkName } from './context.ts';

export function addVersionCommands(
  program: Command,
  contextOf: (command: Command) => Context,
): void {
  program
    .command('versions')
    .description('list the versions of a function, newest first')
    .argument('<name>', 'name of the function')
    .action((name, _options, command) => list(contextOf(command), name));
  program
    .command('promote')
    .description('let a ready version answer the calls that pin none')
    .argument('<name>', 'name of the function')
    .argument('<version>', 'its number', versionNumber)
    .action((name, version, _options, command) => promote(contextOf(command), name, version));
  program
    .command('rollback')
    .description('let an earlier version answer again: the last ready one before the active')
    .argument('<name>', 'name of the function')
    .action((name, _options, command) => rollback(contextOf(command), name));
}

async function list(context: Context, name: string): Promise<void> {
  const { out } = context;
  await checkName(name);
  const client = await context.client();
  const [{ activeVersion, traffic }, { items }] = await Promise.all([
    client.getFunction(name),
    client.listVersions(name),
  ]);
  if (out.json) return out.value({ activeVersion, traffic, items });
  const shares: Record<number, number> = traffic?.shares ?? { [activeVersion ?? 0]: 100 };
  const rows = items.map(({ number, state, createdAt }) => [
    shares[number] === undefined ? '' : traffic === undefined ? '→' : `${shares[number]} %`,
    String(number),
    state,
    createdAt,
  ]);
  out.table([['', 'VERSION', 'STATE', 'CREATED'], ...rows]);
}

async function promote(context: Context, name: string, version: number): Promise<void> {
  const { out } = context;
  await checkName(name);
  const client = await context.client();
  const view = await out.during(`loading version ${version} of ${name}`, () =>
    client.promoteVersion(name, version),
  );
  if (out.json) return out.value(view);
  out.line(`${out.colors.green('✓')} ${name}  version ${version} answers`);
}

async function rollback(context: Context, name: string): Promise<void> {
  await checkName(name);
  const client = await context.client();
  const [{ activeVersion }, { items }] = await Promise.all([
    client.getFunction(name),
    client.listVersions(name),
  ]);
  const earlier = before(items, activeVersion);
  if (earlier === undefined) {
    const active = activeVersion === undefined ? 'no version' : `version ${activeVersion}`;
    const detail = `${active} of ${name} answers, and none before it is ready`;
    throw new GatewayError('VERSION_NOT_FOUND', detail);
  }
  await promote(context, name, earlier);
}

/** The last ready version before the active one. `versions`: newest first. */
function before(versions: readonly VersionView[], active: number | undefined): number | undefined {
  if (active === undefined) return undefined;
  return versions.find(({ number, state }) => number < active && state === 'ready')?.number;
}

function versionNumber(text: string): number {
  if (/^[1-9]\d{0,8}$/.test(text)) return Number(text);
  throw new InvalidArgumentError('a version is a whole number from 1');
}
