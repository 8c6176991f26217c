/**
 * A YAML document with the places of all that is in it, and the issues found in it so far. Knows
 * nothing of what a manifest may say (manifest.ts). Invariant: a text of any kind ends in a value
 * or in MANIFEST_INVALID, in a time that grows with its length.
 */
import {
  type Document,
  isAlias,
  isMap,
  isScalar,
  Lexer,
  LineCounter,
  type Node,
  parseDocument,
  visit,
} from 'yaml';
import type { Issue } from '../../client/errors.ts';
import { GatewayError } from '../errors.ts';

/** Limits of a manifest; each is in docs/reference/limits.md and has a test. */
export const manifestLimits = {
  bytesMax: 1_048_576,
  /**
   * Nesting of brackets and of dashes on a line. The deepest thing that a manifest may say has 6.
   */
  depthMax: 64,
  /** Uses of an anchor, so that a small file cannot stand for a huge one. */
  aliasesMax: 1000,
  issuesMax: 50,
} as const;

export interface Place {
  line: number;
  column: number;
}

/**
 * What the lexer says beside the text itself: start of a document, a flow's error, a scalar's
 * start.
 */
const controlTokens = new Set(['\u0002', '\u0018', '\u001f']);

/** Keys and indexes from the top of the document. */
export type Path = readonly (string | number)[];

export class YamlReader {
  readonly #file: string;
  readonly #text: string;
  readonly #lines = new LineCounter();
  #document: Document | undefined;
  readonly #issues: Issue[] = [];
  /** With those that are beyond the limit and not kept. */
  #issueCount = 0;

  constructor(text: string, file: string) {
    this.#text = text;
    this.#file = file;
  }

  /** The top-level mapping. Throws when the text is not YAML, or not a mapping. */
  read(): Record<string, unknown> {
    this.#checkDepth();
    const document = parseDocument(this.#text, {
      lineCounter: this.#lines,
      prettyErrors: false,
      merge: true,
      // Checked below: the library compares each key with each other one.
      uniqueKeys: false,
      logLevel: 'error',
    });
    this.#document = document as unknown as Document;
    for (const error of document.errors) {
      this.#addAt(error.pos[0], '', `malformed YAML: ${lowerFirst(error.message)}`);
    }
    if (document.errors.length === 0) this.#checkNodes(this.#document);
    if (this.#issues.length > 0) this.finish();
    let value: unknown;
    try {
      value = document.toJS({ maxAliasCount: manifestLimits.aliasesMax });
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      this.#addAt(0, '', `malformed YAML: ${lowerFirst(error.message)}`);
      this.finish();
    }
    if (isRecord(value)) return value;
    const found = value === null || value === undefined ? 'it is empty' : `it is ${kindOf(value)}`;
    this.#addAt(0, '', `expected \`functions:\` with a function below it; ${found}`);
    return this.finish();
  }

  /**
   * The place of a value, or of what is nearest above it. `key`: of the key that names it instead.
   */
  place(at: Path, { key = false } = {}): Place {
    return this.#linePos(this.#offset(at, key));
  }

  add(at: Path, { message, hint, key }: { message: string; hint?: string; key?: boolean }): void {
    // Finding a place costs time that grows with the text.
    const offset = this.#issueCount < manifestLimits.issuesMax ? this.#offset(at, key ?? false) : 0;
    this.#addAt(offset, at.map(String).join('.'), message, hint);
  }

  /** Throws the issues found, the first ones of very many. */
  finish(): never;
  finish(): void;
  finish(): void {
    const issues = this.#issues;
    const first = issues[0];
    if (first === undefined) return;
    const place = `${this.#file}:${first.line}:${first.column}`;
    const more = this.#issueCount > 1 ? ` (and ${this.#issueCount - 1} more)` : '';
    const where = first.path === '' ? '' : `${first.path}: `;
    throw new GatewayError(
      'MANIFEST_INVALID',
      `${place}: ${where}${sentence(first.message + more)}`,
      {
        issues,
        ...(issues.length === 1 && first.hint !== undefined && { remedy: first.hint }),
      },
    );
  }

  /** The parser calls itself at each level; some nestings cost it exponential time. */
  #checkDepth(): void {
    let [depth, run, offset] = [0, 0, 0];
    for (const token of new Lexer().lex(this.#text)) {
      const first = token[0];
      if ((first === '[' || first === '{') && token.length === 1) depth++;
      else if ((first === ']' || first === '}') && token.length === 1) depth--;
      if ((first === '-' || first === '?' || first === ':') && token.length === 1) run++;
      else if (token.trim() !== '') run = 0;
      if (Math.max(depth, run) > manifestLimits.depthMax) {
        this.#lines.addNewLine(0);
        for (let at = this.#text.indexOf('\n'); at >= 0 && at < offset; ) {
          this.#lines.addNewLine(at + 1);
          at = this.#text.indexOf('\n', at + 1);
        }
        this.#addAt(offset, '', `nested deeper than ${manifestLimits.depthMax} levels`);
        this.finish();
      }
      // Control tokens of the lexer stand for no text.
      if (!controlTokens.has(token)) offset += token.length;
    }
  }

  /** Duplicate keys, keys that are not plain, and aliases of nothing. */
  #checkNodes(document: Document): void {
    let aliases = 0;
    // In the order of the text: an alias stands for what was named before it.
    const anchors = new Set<string>();
    function note({ anchor }: { anchor?: string }): void {
      if (anchor !== undefined) anchors.add(anchor);
    }
    visit(document, {
      Scalar: (_, scalar) => note(scalar),
      Seq: (_, sequence) => note(sequence),
      Map: (_, map) => {
        note(map);
        const seen = new Set<string>();
        for (const { key } of map.items) {
          const offset = (key as Node | null)?.range?.[0] ?? map.range?.[0] ?? 0;
          if (!isScalar(key)) {
            this.#addAt(offset, '', 'a key must be plain text');
            continue;
          }
          const name = String(key.value);
          if (seen.has(name)) this.#addAt(offset, name, `the key ${quote(name)} is there twice`);
          seen.add(name);
        }
      },
      Alias: (_, alias) => {
        aliases += 1;
        if (aliases > manifestLimits.aliasesMax) {
          const message = `more than ${manifestLimits.aliasesMax} uses of aliases`;
          this.#addAt(alias.range?.[0] ?? 0, '', message);
          return visit.BREAK;
        }
        if (anchors.has(alias.source)) return undefined;
        const message = `the alias *${alias.source} stands for nothing that was named before`;
        this.#addAt(alias.range?.[0] ?? 0, '', message);
        return undefined;
      },
    });
  }

  #offset(at: Path, key: boolean): number {
    let node: unknown = this.#document?.contents;
    let offset = 0;
    for (const [index, segment] of at.entries()) {
      if (isAlias(node)) node = node.resolve(this.#document!);
      const last = index === at.length - 1;
      if (isMap(node)) {
        const pair = node.items.find(
          item => isScalar(item.key) && String(item.key.value) === String(segment),
        );
        if (pair === undefined) return offset;
        const keyOffset = (pair.key as Node).range?.[0] ?? offset;
        const valueOffset = (pair.value as Node | null)?.range?.[0] ?? keyOffset;
        // A mapping starts on the line after its key; people look for the key.
        offset = (last && key) || !isScalar(pair.value) ? keyOffset : valueOffset;
        node = pair.value;
        continue;
      }
      const item = (node as { items?: unknown[] } | undefined)?.items?.[Number(segment)];
      if (item === undefined) return offset;
      offset = (item as Node).range?.[0] ?? offset;
      node = item;
    }
    return offset;
  }

  #linePos(offset: number): Place {
    const { line, col } = this.#lines.linePos(offset);
    return { line: Math.max(line, 1), column: Math.max(col, 1) };
  }

  #addAt(offset: number, at: string, message: string, hint?: string): void {
    this.#issueCount += 1;
    if (this.#issues.length >= manifestLimits.issuesMax) return;
    const issue: Issue = { path: at, message, ...this.#linePos(offset) };
    if (hint !== undefined) issue.hint = hint;
    this.#issues.push(issue);
  }
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return value !== null && typeof value === 'object' && !Array.isArray(value);
}

export function kindOf(value: unknown): string {
  if (value === null || value === undefined) return 'nothing';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object') return 'a mapping';
  if (typeof value === 'string') return `the text ${quote(value.slice(0, 40))}`;
  return `the ${typeof value} ${String(value)}`;
}

export function lowerFirst(text: string): string {
  const trimmed = text.replace(/\.$/, '');
  // A first word in capitals is a name and stays.
  return /^[A-Z][a-z]/.test(trimmed) ? trimmed[0]!.toLowerCase() + trimmed.slice(1) : trimmed;
}

/** With a full stop, unless it ends as a question. */
function sentence(text: string): string {
  return text.endsWith('?') ? text : `${text}.`;
}

export function quote(text: string): string {
  return JSON.stringify(text);
}
