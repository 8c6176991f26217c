/**
 * What a command is given: the global options, where the gateway is and with which token, and how
 * to print. Reads the environment; makes the client only when a command asks for it.
 */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import type { Command } from 'commander';
import { type Client, createClient, type Fetch } from '../../client/client.ts';
import { GatewayError } from '../errors.ts';
import { Output } from './output.ts';

export const defaultUrl = 'http://127.0.0.1:8080';
export const defaultDataDirectory = '.fnway';

export interface GlobalOptions {
  url?: string;
  token?: string;
  namespace?: string;
  json?: boolean;
}

export interface Context {
  readonly out: Output;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly url: string;
  /** `fromManifest`: the namespace of the manifest that the command works with. */
  client(options?: { fetch?: Fetch; fromManifest?: string }): Promise<Client>;
  /** Sets the exit code of the program; the last one set counts. */
  fail(code: number): void;
  /** Ends the program at once. Only for a second signal and for `serve`. */
  exit(code: number): never;
}

export interface ContextPorts {
  fail(code: number): void;
  exit(code: number): never;
}

export function createContext(command: Command, ports: ContextPorts): Context {
  const options = command.optsWithGlobals<GlobalOptions>();
  const { env } = process;
  const { stdout, stderr } = process;
  const url = options.url || env.FNWAY_URL || defaultUrl;
  return {
    ...ports,
    env,
    url,
    out: new Output({ json: options.json === true, stdout, stderr, env }),
    async client({ fetch, fromManifest } = {}) {
      checkUrl(url);
      const namespace =
        options.namespace ||
        env.FNWAY_NAMESPACE ||
        fromManifest ||
        (await namespaceHere()) ||
        'default';
      const token = options.token || env.FNWAY_TOKEN || localToken(url, env);
      return createClient({ url, namespace, ...(token && { token }), ...(fetch && { fetch }) });
    },
  };
}

/**
 * The namespace named on the command line or in the environment; undefined leaves it to the
 * manifest.
 */
export function givenNamespace(command: Command, env: Context['env']): string | undefined {
  return command.optsWithGlobals<GlobalOptions>().namespace || env.FNWAY_NAMESPACE || undefined;
}

function checkUrl(url: string): void {
  const parsed = URL.parse(url);
  if (parsed !== null && /^https?:$/.test(parsed.protocol)) return;
  const given = JSON.stringify(url);
  const detail = `The address of the gateway is ${given}, which is not an http address.`;
  throw new GatewayError('COMMAND_INVALID', detail, {
    remedy: `Give one such as ${defaultUrl} with --url or FNWAY_URL.`,
  });
}

/**
 * A gateway on this machine keeps its admin token in its data directory; its owner need not repeat
 * it.
 */
function localToken(url: string, env: Context['env']): string | undefined {
  if (!/^(?:127(?:\.\d+){3}|localhost|\[::1\])$/.test(new URL(url).hostname)) return undefined;
  const directory = env.FNWAY_DATA || defaultDataDirectory;
  try {
    return readFileSync(path.join(directory, 'admin.token'), 'utf8').trim() || undefined;
  } catch {
    // No such gateway, or not ours: the gateway's own answer says that a token is missing.
    return undefined;
  }
}

/**
 * Of the manifest in the current directory. The YAML library is loaded only when one may name a
 * namespace.
 */
async function namespaceHere(): Promise<string | undefined> {
  let text: string;
  try {
    text = readFileSync('fnway.yaml', 'utf8');
  } catch {
    return undefined;
  }
  if (!/^["']?namespace/m.test(text)) return undefined;
  const { namespaceOf } = await import('./manifest.ts');
  return namespaceOf(text);
}
