/**
 * A gateway in a process of its own, from source, with everything on: `node bench/gateway.ts --data
 * DIR --port N`. Prints its address and admin token as one line of JSON. Ends in good order on
 * SIGTERM, and when its standard input closes, which is when the benchmark that started it is gone.
 */
import { parseArgs } from 'node:util';
import { parseConfig } from '../src/config.ts';
import { createGateway } from '../src/main.ts';

const { values: flags } = parseArgs({
  options: { data: { type: 'string' }, port: { type: 'string', default: '0' } },
});
const gateway = await createGateway(parseConfig(flags, process.env));
const { url } = await gateway.start();
process.stdout.write(`${JSON.stringify({ url, adminToken: gateway.adminToken })}\n`);

let stopping = false;
async function stop(): Promise<void> {
  if (stopping) return;
  stopping = true;
  await gateway.stop();
  process.exit(0);
}
process.on('SIGTERM', stop);
process.stdin.on('end', stop).resume();
