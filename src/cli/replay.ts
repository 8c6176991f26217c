/**
 * A recorded call against code on this machine: a gateway of its own in a temporary directory, with the function as the
 * other gateway has it but for its source.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { BodyView, FunctionDefinition, FunctionView, VersionView } from '../../client/api.ts';
import type { Client } from '../../client/client.ts';
import { endpointPath, isApiError } from '../../client/client.ts';
import { putDesired } from './apply.ts';
import type { Context } from './context.ts';
import { readUpload, withoutUndefined } from './functions.ts';
import { clientInProcess, startGateway } from './serve.ts';

export async function replayLocally(
  context: Context,
  client: Client,
  id: string,
  directory: string,
): Promise<BodyView & { status: number }> {
  const { function: name, version: number } = await client.getInvocation(id);
  const { request } = await client.getBodies(id);
  const view = await client.getFunction(name);
  const upload = await readUpload(directory);
  // As the call found it; where that version is gone, as the newest says.
  const version = await client.getVersion(name, number).catch(error => {
    if (isApiError(error) && error.code === 'VERSION_NOT_FOUND') return view.latestVersion;
    throw error;
  });
  const entry = await upload.entryOf(version.entry);
  const data = mkdtempSync(path.join(tmpdir(), 'fnway-replay-'));
  const gateway = await startGateway(
    { data, port: '0', logLevel: 'error', warm: '0' },
    context.env,
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
    const bytes = Buffer.from(await response.arrayBuffer());
    const body = bytes.toString();
    return {
      status: response.status,
      headers: [...response.headers],
      ...(Buffer.from(body).equals(bytes) ? { body } : { base64: bytes.toString('base64') }),
    };
  } finally {
    await gateway.stop();
    rmSync(data, { recursive: true, force: true });
  }
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
    auth: 'none',
  });
}
