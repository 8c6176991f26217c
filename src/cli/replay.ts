/**
 * A recorded call against code on this machine: a gateway of its own in a temporary directory, with the function as the
 * other gateway has it but for its source.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type {
  BodyView,
  FunctionDefinition,
  FunctionView,
  InvocationView,
  OutputLineView,
  VersionView,
} from '../../client/api.ts';
import type { Client } from '../../client/client.ts';
import { endpointPath, isApiError } from '../../client/client.ts';
import { GatewayError } from '../errors.ts';
import { putDesired } from './apply.ts';
import type { Context } from './context.ts';
import { readUpload, withoutUndefined } from './functions.ts';
import type { Answer } from './invocations.ts';
import { clientInProcess, startGateway } from './serve.ts';

const linesMax = 10_000;
const recordTriesMax = 100;
const recordRetryMs = 50;

export async function replayLocally(
  context: Context,
  client: Client,
  id: string,
  directory: string,
): Promise<{ answer: Answer; lines: OutputLineView[] }> {
  const { function: name, version: number } = await client.getInvocation(id);
  const { request } = await client.getBodies(id);
  const view = await client.getFunction(name);
  const upload = await readUpload(directory);
  // As the call found it; where that version is gone, as the newest says.
  const version = await client
    .getVersion(name, number ?? view.latestVersion.number)
    .catch(error => {
      if (isApiError(error) && error.code === 'VERSION_NOT_FOUND') return view.latestVersion;
      throw error;
    });
  const entry = await upload.entryOf(version.entry);
  const data = mkdtempSync(path.join(tmpdir(), 'fnway-replay-'));
  const gateway = await startGateway(
    { data, port: '0', logLevel: 'error', warm: '0' },
    { ...context.env, FNWAY_RECORDS: 'true' },
  );
  try {
    const local = clientInProcess(gateway, undefined);
    const definition = { ...definitionOf(view, version), source: { digest: upload.digest } };
    await putDesired(local, {
      name,
      definition: { ...definition, ...(entry !== undefined && { entry }) },
      tree: upload.tree,
    });
    // Over the socket: the recorded headers arrive as they did.
    const response = await fetch(gateway.url + endpointPath({ name, path: request.path }), {
      method: request.method,
      headers: request.headers.filter(([key]) => !hopHeaders.has(key.toLowerCase())),
      ...(!/^(?:GET|HEAD)$/.test(request.method) && { body: bytesOf(request) }),
      redirect: 'manual',
    });
    // What the function said is in the record, as that of the other gateway is: nothing of the way between.
    const received = await response.arrayBuffer().catch(() => new ArrayBuffer(0));
    const record = await recordOf(local, name);
    const reply = await local.getBodies(record.id).then(
      bodies => bodies.reply,
      error => {
        // One that broke off, or is too long: as it came.
        if (!isApiError(error) || error.code !== 'BODIES_NOT_KEPT') throw error;
        const { status, headers } = response;
        return { status, headers: [...headers], body: Buffer.from(received).toString() };
      },
    );
    const lines = await local.readLogs(name, { lines: linesMax });
    return { answer: { ...reply, failure: record.failure }, lines };
  } finally {
    await gateway.stop();
    rmSync(data, { recursive: true, force: true });
  }
}

/** Of the only call. It is written once the answer is out. */
async function recordOf(client: Client, name: string): Promise<InvocationView> {
  for (let tries = 0; tries < recordTriesMax; tries++) {
    const { items } = await client.listInvocations({ function: name, limit: 1 });
    if (items[0] !== undefined) return items[0];
    await new Promise(resolve => setTimeout(resolve, recordRetryMs));
  }
  const detail = `The call of ${name} has left no record.`;
  throw new GatewayError('INTERNAL', detail);
}

/** Of the connection or of the way here; fetch sets what it needs. */
const hopHeaders = new Set([
  ...['connection', 'content-length', 'host', 'keep-alive', 'transfer-encoding', 'upgrade'],
  ...['x-forwarded-for', 'x-forwarded-host', 'x-forwarded-proto', 'expect'],
]);

function bytesOf({ body, base64 }: BodyView): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(Buffer.from(body ?? base64 ?? '', body === undefined ? 'base64' : 'utf8'));
}

/** Its secrets cannot be read: the code has to do without them, or with a variable of that name. */
function definitionOf(view: FunctionView, version: VersionView): FunctionDefinition {
  const { runtime, env, buildEnv, timeout, memory, stream, allowScripts } = version;
  const { schema, signature, args, argKeys, allowExitCodes, result } = version;
  return withoutUndefined<FunctionDefinition>({
    ...{ runtime, env, buildEnv, timeout, memory, stream, allowScripts },
    ...{ schema, signature, args, argKeys, allowExitCodes, result },
    concurrency: view.concurrency,
    record: 'bodies',
    auth: 'none',
  });
}
