/**
 * For the tests of sources: trees of any shape, and how a refusal is checked. Not for production
 * code.
 */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { isGatewayError } from '../errors.ts';
import { pathProblem, type Tree, type TreeFile } from './source.ts';

export async function refuses(
  promise: Promise<unknown>,
  code: string,
  said: RegExp,
): Promise<void> {
  await assert.rejects(promise, error => {
    assert.ok(isGatewayError(error), String(error));
    assert.equal(error.code, code);
    assert.match(error.message, said);
    return true;
  });
}

export function textOf(tree: Tree): Record<string, string> {
  return Object.fromEntries(
    [...tree].map(([name, { bytes }]) => [name, Buffer.from(bytes).toString()]),
  );
}

const segment = fc
  .string({ minLength: 1, maxLength: 12, unit: 'grapheme' })
  .map(text => `s${text.replaceAll('/', '_')}`)
  .filter(text => pathProblem(text) === undefined);
const treeFile: fc.Arbitrary<TreeFile> = fc.record({
  mode: fc.constantFrom(0o644 as const, 0o755 as const),
  bytes: fc.uint8Array({ maxLength: 2000 }),
});
/** Files and directories have different endings, so that none is both. */
export const anyTree: fc.Arbitrary<Tree> = fc
  .array(fc.tuple(fc.array(segment, { maxLength: 4 }), segment, treeFile), { maxLength: 12 })
  .map(
    entries =>
      new Map(
        entries.map(([folders, name, file]) => [
          [...folders.map(folder => `${folder}.d`), `${name}.f`].join('/'),
          file,
        ]),
      ),
  );
