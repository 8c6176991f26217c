/**
 * `fnway invoke`: calls a function and streams its answer to standard output. The function's answer
 * is the result whatever it is; a failing status is told on standard error and by the exit code.
 */
import { fstatSync, openAsBlob, statSync } from 'node:fs';
import { METHODS } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Command } from 'commander';
import type { InvocationView } from '../../client/api.ts';
import { ApiError, type Client, type InvokeOptions } from '../../client/client.ts';
import type { Problem } from '../../client/errors.ts';
import { GatewayError } from '../errors.ts';
import type { Context } from './context.ts';
import { exitCodes } from './failure.ts';

/** A program that started us may keep our input open without ever writing to it. */
const quietInputMs = 100;

interface Options {
  data?: string;
  file?: string;
  method?: string;
  header?: string[];
  path?: string;
  async?: boolean;
  wait?: boolean;
}

export function addInvokeCommand(program: Command, contextOf: (command: Command) => Context): void {
  program
    .command('invoke')
    .description('call a function; its answer goes to standard output')
    .argument('<name[@version]>', 'the function, and the version when it is not the active one')
    .option('-d, --data <text>', 'body of the call')
    .option('-f, --file <path>', 'file that is the body; - is standard input')
    .option('-X, --method <method>', 'POST with a body, else GET')
    .option('-H, --header <name: value>', 'header of the call (repeat for several)', collect)
    .option('--path <rest>', 'what follows the name: /orders?page=2')
    .option('--async', 'accept the call, which runs later; prints its id')
    .option('--wait', 'with --async: wait for its end, and print its result')
    .action((target, options, command) => invoke(contextOf(command), target, options));
}

async function invoke(context: Context, target: string, options: Options): Promise<void> {
  const { out } = context;
  const { name, version } = parseTarget(target);
  const { patientFetch } = await import('./patient-fetch.ts');
  const client = await context.client({ fetch: await patientFetch() });
  const headers = parseHeaders(options.header);
  const body = await bodyOf(options, headers);
  const call: InvokeOptions = { headers, body, redirect: 'manual' };
  if (version !== undefined) call.version = version;
  if (options.method !== undefined) call.method = parseMethod(options.method);
  if (options.path !== undefined) call.path = options.path;
  if (body !== null && /^(?:GET|HEAD)$/.test(call.method ?? '')) {
    throw new GatewayError('COMMAND_INVALID', `A ${call.method} call cannot have a body.`, {
      remedy: 'Leave out the body, or use another method: -X POST.',
    });
  }
  if (options.async)
    return invokeAsync(context, client, name, { call, waits: options.wait === true });
  if (options.wait) {
    throw new GatewayError('COMMAND_INVALID', '--wait is for --async; other calls wait anyway.', {
      remedy: 'Leave it out, or add --async.',
    });
  }
  const response = await out.during(`calling ${name}`, () => client.invoke(name, call));
  await printAnswer(context, name, response);
}

/** Prints the id, for `ID=$(fnway invoke hello --async)`; or waits, and prints what came of it. */
async function invokeAsync(
  context: Context,
  client: Client,
  name: string,
  { call, waits }: { call: InvokeOptions; waits: boolean },
): Promise<void> {
  const { out } = context;
  if (call.method !== undefined && call.method !== 'POST') {
    const detail = `An async call is a POST, not a ${call.method}.`;
    throw new GatewayError('COMMAND_INVALID', detail, { remedy: 'Leave out -X.' });
  }
  const accepted = await client.invokeAsync(name, call);
  if (waits) return printResult(context, client, accepted.id);
  if (out.json) out.value(accepted);
  else out.line(accepted.id);
}

/** The result of an async call, once there is one. */
export async function printResult(
  context: Context,
  client: Client,
  id: string,
  waitMs = Number.POSITIVE_INFINITY,
): Promise<void> {
  const { out } = context;
  const endMs = Date.now() + waitMs;
  for (;;) {
    const leftMs = Math.max(0, endMs - Date.now());
    const wait = `${Math.min(30_000, leftMs)}ms`;
    const response = await out.during(`waiting for ${id}`, () => client.getResult(id, { wait }));
    if (response.status !== 202 || response.headers.has('x-function-status'))
      return printAnswer(context, id, response);
    if (leftMs > 0) continue;
    const { state } = (await response.json()) as InvocationView;
    const detail = `${id} has no result yet: it is ${state}.`;
    throw new GatewayError('INVOCATION_NOT_ENDED', detail);
  }
}

async function printAnswer(context: Context, name: string, response: Response): Promise<void> {
  const { out } = context;
  const problem = await gatewayProblem(response);
  // The gateway's remedies are for any function; this one has a name.
  if (problem !== undefined)
    throw new ApiError({ ...problem, remedy: problem.remedy?.replaceAll('NAME', name) });
  if (response.status >= 400) context.fail(exitCodes.function);
  if (out.json) {
    const bytes = Buffer.from(await response.arrayBuffer().catch(cause => brokenOff(name, cause)));
    const text = bytes.toString('utf8');
    const isText = Buffer.from(text, 'utf8').equals(bytes);
    out.value({
      status: response.status,
      headers: [...response.headers],
      ...(isText ? { body: text } : { bodyBase64: bytes.toString('base64') }),
    });
    return;
  }
  if (response.body !== null) {
    const answer = Readable.fromWeb(response.body as never);
    let last = 0x0a;
    answer.on('data', (chunk: Uint8Array) => {
      last = chunk.at(-1) ?? last;
    });
    await pipeline(answer, process.stdout, { end: false }).catch(cause => brokenOff(name, cause));
    // The next prompt begins on a line of its own.
    if (process.stdout.isTTY && last !== 0x0a) process.stdout.write('\n');
  }
  if (response.status >= 400) {
    out.note(`${out.errorColors.red('✗')} ${name} answered ${statusText(response)}`);
  }
}

function brokenOff(name: string, cause: unknown): never {
  const remedy = `See its output: fnway logs ${name}`;
  throw new GatewayError('FUNCTION_FAILED', `${name} broke off its answer.`, { cause, remedy });
}

/** Those that an HTTP parser of Node knows and fetch can send. */
function parseMethod(text: string): string {
  const method = text.toUpperCase();
  if (METHODS.includes(method) && !/^(?:CONNECT|TRACE)$/.test(method)) return method;
  throw new GatewayError('COMMAND_INVALID', `${JSON.stringify(text)} is no method of a call.`, {
    remedy: 'Write -X GET, POST, PUT, PATCH, DELETE, HEAD or OPTIONS.',
  });
}

function statusText({ status, statusText }: Response): string {
  return `${status} ${statusText}`.trim();
}

/** What the gateway says about the call, told apart from what the function itself answers. */
async function gatewayProblem(response: Response): Promise<Problem | undefined> {
  if (response.status < 400) return undefined;
  if (!response.headers.get('content-type')?.startsWith('application/problem+json')) {
    return undefined;
  }
  const problem = (await response
    .clone()
    .json()
    .catch(() => undefined)) as Problem | undefined;
  return problem?.type?.startsWith('urn:fnway:error:') ? problem : undefined;
}

function parseTarget(target: string): { name: string; version?: number } {
  const match = /^([^@/]+)(?:@v?(\d{1,9}))?$/.exec(target);
  if (match === null) {
    throw new GatewayError('COMMAND_INVALID', `${JSON.stringify(target)} names no function.`, {
      remedy: 'Write NAME or NAME@VERSION; what follows goes into --path.',
    });
  }
  return match[2] === undefined
    ? { name: match[1]! }
    : { name: match[1]!, version: Number(match[2]) };
}

function parseHeaders(texts: readonly string[] = []): Headers {
  const headers = new Headers();
  for (const text of texts) {
    const at = text.indexOf(':');
    try {
      headers.append(text.slice(0, Math.max(at, 0)).trim(), text.slice(at + 1).trim());
    } catch {
      throw new GatewayError('COMMAND_INVALID', `${JSON.stringify(text)} is not a header.`, {
        remedy: 'Write -H "Name: value".',
      });
    }
  }
  return headers;
}

async function bodyOf(options: Options, headers: Headers): Promise<BodyInit | null> {
  const { data, file } = options;
  if (data !== undefined && file !== undefined) {
    throw new GatewayError('COMMAND_INVALID', 'Both -d and -f give a body.', {
      remedy: 'Use one of them.',
    });
  }
  if (data !== undefined) {
    setType(headers, isJson(data) ? 'application/json' : 'text/plain;charset=utf-8');
    return data;
  }
  if (file === '-' || (file === undefined && (await isPiped()))) {
    return Readable.toWeb(process.stdin) as ReadableStream;
  }
  if (file === undefined) return null;
  setType(headers, file.endsWith('.json') ? 'application/json' : 'application/octet-stream');
  try {
    if (statSync(file).isDirectory()) throw new Error('it is a directory');
    return await openAsBlob(file);
  } catch (cause) {
    throw new GatewayError('COMMAND_INVALID', `The file ${file} cannot be read.`, {
      cause,
      remedy: 'Give an existing file with -f.',
    });
  }
}

function setType(headers: Headers, type: string): void {
  if (!headers.has('content-type')) headers.set('content-type', type);
}

/**
 * Whether standard input holds a body. A shell's pipe or file does. A socket is what another
 * program made: it counts once something arrives, because most leave it open and empty.
 */
async function isPiped(): Promise<boolean> {
  let info: ReturnType<typeof fstatSync>;
  try {
    info = fstatSync(0);
  } catch {
    return false;
  }
  if (info.isFIFO() || info.isFile()) return true;
  if (!info.isSocket()) return false;
  const { stdin } = process;
  const arrived = await new Promise<boolean>(resolve => {
    const timer = setTimeout(settle, quietInputMs, false);
    function settle(value: boolean) {
      clearTimeout(timer);
      stdin.off('readable', onReadable);
      resolve(value);
    }
    function onReadable() {
      settle(stdin.readableLength > 0);
    }
    stdin.on('readable', onReadable);
  });
  // An open input would keep this program from ending.
  if (!arrived) stdin.destroy();
  return arrived;
}

function isJson(text: string): boolean {
  if (!/^\s*[[{]/.test(text)) return false;
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function collect(value: string, before: string[] = []): string[] {
  return [...before, value];
}
