/**
 * Whether a Python function is written for the Functions Framework (`@functions_framework.http`, `def hello(request)`) or
 * for the runtime's own `handle(event, context)`. The rule is here and nowhere else; docs/guides/cloud-functions.md tells
 * it. Decided when a version is built, because the framework's library has to be installed then. Reads text, runs nothing.
 */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import type { VersionSpec } from '../domain/function.ts';
import { type Requirement, readRequirements } from './pip.ts';

/** What is installed where requirements.txt does not name the library itself. */
export const frameworkRequirement = 'functions-framework==3.10.2';

/** What a definition says of how its handler is written. */
export type HandlerSpec = Pick<VersionSpec, 'handler' | 'signature' | 'env'>;

export interface StyleSigns {
  spec: HandlerSpec;
  /** The entry's file, relative to the source. */
  entry: string;
  /** The entry's text. */
  code: string;
  requirements: readonly Requirement[];
}

export interface FrameworkUse {
  /** The library has to be added to what is installed. */
  adds: boolean;
}

/** Undefined where the function is not of this style. */
export function frameworkUse(signs: StyleSigns): FrameworkUse | undefined {
  const isListed = signs.requirements.some(namesFramework);
  return isListed || isForFramework(signs) ? { adds: !isListed } : undefined;
}

/** Any one of these; else the function is the runtime's own kind. */
function isForFramework({ spec, entry, code }: StyleSigns): boolean {
  const { signature, env } = spec;
  if (signature !== undefined) return true;
  if (env.FUNCTION_TARGET !== undefined || env.FUNCTION_SIGNATURE_TYPE !== undefined) return true;
  if (importsFramework(code)) return true;
  return entry === 'main.py' && spec.handler !== undefined && takesRequest(code, spec.handler);
}

export async function readFrameworkUse(
  directory: string,
  options: { spec: HandlerSpec; entry: string; dependenciesFile: string },
): Promise<FrameworkUse | undefined> {
  const { spec, entry, dependenciesFile } = options;
  const [code, requirements] = await Promise.all([
    readFile(path.join(directory, entry), 'utf8'),
    readRequirements(directory, dependenciesFile),
  ]);
  return frameworkUse({ spec, entry, code, requirements });
}

/** By name, or as an archive or a repository of it. */
function namesFramework({ text, constraint }: Requirement): boolean {
  if (constraint) return false;
  return (
    /^functions[-_.]+framework(?![-_.\w])/i.test(text) ||
    (!text.startsWith('-r') && /[/@]functions[-_.]+framework(?!\w)/i.test(text))
  );
}

function importsFramework(code: string): boolean {
  return code.split('\n').some(line => {
    if (!line.includes('functions_framework')) return false;
    const [keyword, ...names] = line
      .split('#')[0]!
      .trim()
      .split(/[\s,.]+/);
    if (keyword === 'from') return names[0] === 'functions_framework';
    return keyword === 'import' && names.includes('functions_framework');
  });
}

/**
 * `def hello(request)`: exactly one positional parameter. One that is called `event` is what the runtime's own style
 * calls it, which may leave `context` out.
 */
function takesRequest(code: string, handler: string): boolean {
  // `$` may be in a handler's name.
  const name = handler.replaceAll('$', '\\$');
  const head = new RegExp(`^(?:async[ \\t]+)?def[ \\t]+${name}[ \\t]*\\(`, 'm').exec(code);
  if (head === null) return false;
  // Nobody has longer ones, and a text made for it could be slow to read.
  const parameters = parametersOf(code.slice(head.index + head[0].length).slice(0, 10_000));
  const star = parameters.findIndex(parameter => parameter.startsWith('*'));
  if (star !== -1 && /^\*\s*\w/.test(parameters[star]!)) return false;
  const positional = (star === -1 ? parameters : parameters.slice(0, star)).filter(p => p !== '/');
  return positional.length === 1 && !/^event\b/.test(positional[0]!);
}

/** What stands between commas, up to the parenthesis that closes; nothing where none does. */
function parametersOf(code: string): string[] {
  const found: string[] = [];
  let text = '';
  let depth = 0;
  // Strings and comments whole: they may hold any letter.
  const pieces = /"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|#[^\n]*|[\s\S]/g;
  for (const [piece] of code.matchAll(pieces)) {
    if (piece.startsWith('#')) continue;
    const ends = depth === 0 && piece === ')';
    if (ends || (depth === 0 && piece === ',')) {
      // After the last one may be a comma.
      if (text.trim() !== '') found.push(text.trim());
      if (ends) return found;
      text = '';
      continue;
    }
    if ('([{'.includes(piece)) depth += 1;
    if (')]}'.includes(piece)) depth -= 1;
    text += piece;
  }
  return [];
}
