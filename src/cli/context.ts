/**
 * What a command is given: the global options, how to print, and a
 * client for the gateway (access.ts says where). Reads the environment; makes the client only when a command asks for it.
 */
import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { type Client, createClient, type Fetch } from '../../client/client.ts';
import type { Problem } from '../../client/errors.ts';
import { GatewayError } from '../errors.ts';
import { type Access, explainRefusal, findAccess } from './access.ts';
import { Output } from './output.ts';

export interface GlobalOptions {
  url?: string;
  token?: string;
  namespace?: string;
  json?: boolean;
}

export interface Context {
  readonly out: Output;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** `fromManifest`: the namespace of the manifest that the command works with. */
  client(options?: { fetch?: Fetch; fromManifest?: string }): Promise<Client>;
  /** The problem in the words of this command: its gateway, its token, its function. */
  explain(problem: Problem): Problem;
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
  let access: Access | undefined;
  return {
    ...ports,
    env,
    out: new Output({ json: options.json === true, stdout, stderr, env }),
    async client({ fetch, fromManifest } = {}) {
      access = await findAccess(options, env);
      const { url, token } = access;
      const namespace =
        options.namespace ||
        env.FNWAY_NAMESPACE ||
        fromManifest ||
        (await namespaceHere()) ||
        'default';
      return createClient({ url, namespace, ...(token && { token }), ...(fetch && { fetch }) });
    },
    explain: problem => explainRefusal(problem, access),
  };
}

/**
 * The namespace named on the command line or in the environment; undefined leaves it to the
 * manifest.
 */
export function givenNamespace(command: Command, env: Context['env']): string | undefined {
  return command.optsWithGlobals<GlobalOptions>().namespace || env.FNWAY_NAMESPACE || undefined;
}

/** Throws COMMAND_INVALID for what cannot be the name of a function. */
export async function checkName(name: string): Promise<void> {
  const { nameSchema } = await import('../domain/function.ts');
  const checked = nameSchema.safeParse(name);
  if (checked.success) return;
  const detail = `${JSON.stringify(name)} is not a name of a function.`;
  const remedy = `Choose another: ${checked.error.issues[0]!.message}.`;
  throw new GatewayError('COMMAND_INVALID', detail, { remedy });
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
