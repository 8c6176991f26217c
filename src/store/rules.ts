/**
 * What every store demands of the rows that it is given. A broken rule is a mistake of ours
 * (`assert`), and the transaction leaves nothing behind. Pure, and one text for all
 * implementations, so that they cannot differ in what they refuse. Uniqueness is not here: each
 * store looks that up its own way.
 */
import type { VersionState } from '../domain/function.ts';
import { assert } from '../errors.ts';
import type { FunctionRow, NewRow, VersionRow, VersionSettlement } from './store.ts';

export function assertCreate(row: NewRow, version: VersionRow): void {
  assert(version.number === 1, 'the first version of a function has the number 1');
  assertOwner(row, version);
  if (row.activeVersion === undefined) return;
  assert(row.activeVersion === 1, 'a new function has no active version but its first');
  assertReady(version.state);
}

/**
 * `newest` is the highest number before the update; `activeState` that of the row's active version.
 */
export function assertUpdate(
  row: NewRow,
  facts: {
    stored: FunctionRow;
    newest: number;
    version: VersionRow | undefined;
    activeState: VersionState | undefined;
  },
): void {
  const { stored, newest, version, activeState } = facts;
  assert(
    row.namespace === stored.namespace &&
      row.name === stored.name &&
      row.identity === stored.identity &&
      row.createdMs === stored.createdMs,
    'namespace, name, identity and time of creation of a function never change',
  );
  if (version !== undefined) {
    assert(version.number === newest + 1, 'a new version has the next number of its function');
    assertOwner(row, version);
  }
  if (row.activeVersion !== undefined) return assertReady(activeState);
  assert(stored.activeVersion === undefined, 'a function with an active version keeps having one');
}

export function assertSettlement(settlement: VersionSettlement): void {
  assert(
    settlement.state === 'ready' || !settlement.activate,
    'a version that failed does not become the active one',
  );
}

function assertOwner(row: NewRow, version: VersionRow): void {
  assert(version.functionId === row.id, 'a version belongs to the function that it comes with');
}

function assertReady(state: VersionState | undefined): void {
  assert(state === 'ready', 'the active version of a function exists and is ready');
}

/** One text for all stores, because it is the invariant that callers of `create` must know. */
export const identityRule = 'an identity belongs to at most one living function';
export const idRule = 'the id of a function is new';
export const openRule = 'a closed store is not called';
const limitRule = 'the limit of a page is a whole number of 1 or more';

export function assertLimit(limit: number): void {
  assert(Number.isSafeInteger(limit) && limit >= 1, limitRule);
}
