/**
 * Where the gateway is, and the token for it: from flags, then the environment, then the data
 * directory of a gateway on this machine. Remembers what it took from where, so that a refusal can
 * say which token of which gateway was wrong. `up` and `serve` leave their address in the data
 * directory, for the commands that run beside it.
 */
import { readFileSync, rmSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { Problem } from '../../client/errors.ts';
import { GatewayError } from '../errors.ts';

export const defaultUrl = 'http://127.0.0.1:8080';
const defaultDataDirectory = '.fnway';
const addressFile = 'address';
const tokenFile = 'admin.token';

/** A gateway on this machine answers at once; one that is gone refuses at once. */
const probeMsMax = 1000;

export interface Access {
  url: string;
  token?: string;
  /** As people know it: `--token`, `FNWAY_TOKEN`, or the path of a file. */
  tokenFrom?: string;
  /** Where a token would have been read. Absent for a gateway elsewhere. */
  tokenPath?: string;
}

interface Given {
  url?: string;
  token?: string;
}

type Env = Readonly<Record<string, string | undefined>>;

/** Throws COMMAND_INVALID when an address or a token cannot be one. */
export async function findAccess(given: Given, env: Env): Promise<Access> {
  const directory = dataDirectoryOf(env);
  const named = given.url || env.FNWAY_URL;
  const left = named ? undefined : await leftAddress(directory);
  const url = named || left || defaultUrl;
  checkUrl(url);
  const access: Access = { url };
  if (left !== undefined || isLocal(url)) access.tokenPath = path.join(directory, tokenFile);
  const found = findToken(given, env, access.tokenPath);
  if (found === undefined) return access;
  checkToken(found);
  return { ...access, token: found.token, tokenFrom: found.from };
}

function findToken(given: Given, env: Env, file: string | undefined) {
  if (given.token) return { token: given.token, from: '--token' };
  if (env.FNWAY_TOKEN) return { token: env.FNWAY_TOKEN, from: 'FNWAY_TOKEN' };
  // Its owner need not repeat the token of a gateway on this machine.
  const token = file === undefined ? undefined : readText(file);
  return file === undefined || token === undefined ? undefined : { token, from: file };
}

/** Where commands look for a gateway of this machine. */
export function dataDirectoryOf(env: Env): string {
  return env.FNWAY_DATA || defaultDataDirectory;
}

/** Of the gateway that serves the data directory; undefined when none answers there. */
export async function leftAddress(directory: string): Promise<string | undefined> {
  const url = readText(path.join(directory, addressFile));
  // On this machine only: whoever gives us a directory must not be sent our token.
  if (url === undefined || !URL.canParse(url) || !isLocal(url)) return undefined;
  try {
    const signal = AbortSignal.timeout(probeMsMax);
    const { ok } = await fetch(`${url}/healthz`, { signal });
    return ok ? url : undefined;
  } catch {
    return undefined;
  }
}

/** Undefined when it is not there, empty, or not ours to read. */
function readText(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8').trim() || undefined;
  } catch {
    return undefined;
  }
}

/** Leaves it for the commands that run in the same directory. */
export async function leaveAddress(directory: string, url: string): Promise<void> {
  // What listens on all addresses is reached on this one.
  const reachable = url.replace('//0.0.0.0:', '//127.0.0.1:').replace('//[::]:', '//[::1]:');
  await writeFile(path.join(directory, addressFile), `${reachable}\n`, { mode: 0o600 });
}

export function takeAddress(directory: string): void {
  rmSync(path.join(directory, addressFile), { force: true });
}

function isLocal(url: string): boolean {
  return /^(?:127(?:\.\d+){3}|localhost|\[::1\])$/.test(new URL(url).hostname);
}

function checkUrl(url: string): void {
  const parsed = URL.parse(url);
  if (parsed !== null && /^https?:$/.test(parsed.protocol)) {
    if (parsed.pathname === '/') return;
    const detail = `The address ${url} has a path, and a gateway has none.`;
    throw new GatewayError('COMMAND_INVALID', detail, { remedy: `Write ${parsed.origin}.` });
  }
  const given = JSON.stringify(url);
  const detail = `The address of the gateway is ${given}, which is not an http address.`;
  throw new GatewayError('COMMAND_INVALID', detail, {
    remedy: `Give one such as ${defaultUrl} with --url or FNWAY_URL.`,
  });
}

/** A token of other characters cannot be sent. It is not shown: it may be nearly the right one. */
function checkToken({ token, from }: { token: string; from: string }): void {
  if (/^[\x21-\x7e]+$/.test(token)) return;
  const detail = `The token of ${from} has a space, a line break or another character no token has.`;
  throw new GatewayError('COMMAND_INVALID', detail, {
    remedy: `Give the text of ${tokenFile} alone, without what stands around it.`,
  });
}

/** A refusal with the gateway that was asked, where the token came from, and what to set. */
export function explainRefusal(problem: Problem, access: Access | undefined): Problem {
  if (problem.code !== 'UNAUTHENTICATED' || access === undefined) return problem;
  const { url, tokenFrom, tokenPath } = access;
  const own = `the text of ${tokenFile} in the data directory of that gateway`;
  const detail = `The gateway at ${url} refused: ${problem.detail}.`;
  if (tokenFrom === undefined) {
    const looked = ['--token', 'FNWAY_TOKEN', tokenPath].filter(part => part !== undefined);
    return {
      ...problem,
      detail: `${detail} No token was sent; none is in ${orText(looked)}.`,
      remedy: `Set FNWAY_TOKEN to ${own}.`,
    };
  }
  const remedy =
    tokenFrom === tokenPath
      ? `Name the gateway of that file with --url or FNWAY_URL, or set FNWAY_TOKEN to ${own}.`
      : `Correct ${tokenFrom}: it is ${own}.`;
  return { ...problem, detail: `${detail} The token came from ${tokenFrom}.`, remedy };
}

function orText(parts: readonly string[]): string {
  return `${parts.slice(0, -1).join(', ')} or ${parts.at(-1)}`;
}
