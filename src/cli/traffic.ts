/** `fnway traffic`: how calls are split among versions. */
import type { Command } from 'commander';
import type { FunctionView } from '../../client/api.ts';
import { GatewayError } from '../errors.ts';
import { type Context, checkName } from './context.ts';

interface TrafficOptions {
  sticky?: string;
  end?: boolean;
}

export function addTrafficCommand(
  program: Command,
  contextOf: (command: Command) => Context,
): void {
  program
    .command('traffic')
    .description('split the calls of a function among its versions: fnway traffic hello 3=90 4=10')
    .argument('<name>', 'name of the function')
    .argument('[shares...]', 'VERSION=PERCENT, adding up to 100; without any, how it is now')
    .option('--sticky <header>', 'calls with the same value of this header go to the same version')
    .option('--end', 'let the active version answer all calls again')
    .action((name, shares, options, command) => traffic(contextOf(command), name, shares, options));
}

async function traffic(
  context: Context,
  name: string,
  shares: readonly string[],
  { sticky, end }: TrafficOptions,
): Promise<void> {
  const { out } = context;
  await checkName(name);
  if (end && (shares.length > 0 || sticky !== undefined))
    throw new GatewayError('COMMAND_INVALID', '--end takes no shares and no header.');
  if (sticky !== undefined && shares.length === 0)
    throw new GatewayError('COMMAND_INVALID', '--sticky needs shares, such as 3=90 4=10.');
  const parsed = parseShares(shares);
  const client = await context.client();
  const work = (): Promise<FunctionView> => {
    if (end) return client.endTraffic(name);
    if (shares.length === 0) return client.getFunction(name);
    return client.splitTraffic(name, {
      shares: parsed,
      ...(sticky !== undefined && { stickyHeader: sticky }),
    });
  };
  const view = await out.during(`loading the versions of ${name}`, work);
  if (out.json) return out.value(view.traffic ?? { shares: { [view.activeVersion ?? 0]: 100 } });
  out.line(`${name}  ${trafficText(view)}`);
}

/** `v3 90 %, v4 10 %, sticky by x-user`. */
export function trafficText({ traffic, activeVersion }: FunctionView): string {
  if (traffic === undefined)
    return activeVersion === undefined
      ? 'no version answers yet'
      : `v${activeVersion} answers all calls`;
  const shares = Object.entries(traffic.shares).map(
    ([version, percent]) => `v${version} ${percent} %`,
  );
  const sticky = traffic.stickyHeader === undefined ? '' : `, sticky by ${traffic.stickyHeader}`;
  return `${shares.join(', ')}${sticky}`;
}

/** What to say of a version that is there and that no call reaches; undefined where it does get calls. */
export function withoutCalls(
  view: Pick<FunctionView, 'name' | 'traffic' | 'latestVersion'> | undefined,
): string | undefined {
  const number = view?.latestVersion.number;
  if (view?.traffic === undefined || view.traffic.shares[number!] !== undefined) return undefined;
  return `gets no calls: they are split (fnway traffic ${view.name})`;
}

function parseShares(texts: readonly string[]): Record<string, number> {
  return Object.fromEntries(
    texts.map(text => {
      const match = /^v?([1-9]\d{0,8})=(\d{1,3})%?$/.exec(text);
      if (match !== null) return [match[1]!, Number(match[2])];
      const detail = `${JSON.stringify(text)} is no share of a version.`;
      throw new GatewayError('COMMAND_INVALID', detail, {
        remedy: 'Write VERSION=PERCENT: 3=90 4=10.',
      });
    }),
  );
}
