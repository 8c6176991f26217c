/** What every store does with secrets. */
import assert from 'node:assert/strict';
import type { Define } from './contract-rows.ts';
import type { SecretRow } from './store.ts';

function buildSecret(name: string, changes: Partial<SecretRow> = {}): SecretRow {
  const sealedValue = Uint8Array.of(1, 0, 255);
  return { namespace: 'default', name, sealedValue, updatedMs: 1_700_000_000_000, ...changes };
}

export function secretsContract(define: Define): void {
  define('secrets are put, put anew, listed in order and removed', async store => {
    const { secrets } = store;
    const [b, a] = [buildSecret('B'), buildSecret('A')];
    const team = buildSecret('A', { namespace: 'team' });
    assert.equal(await secrets.put(b), 'created');
    assert.equal(await secrets.put(team), 'created');
    assert.equal(await secrets.put(a), 'created');
    const rotated = buildSecret('A', { sealedValue: new Uint8Array(1000), updatedMs: 5 });
    assert.equal(await secrets.put(rotated), 'updated');
    assert.deepEqual(await secrets.list(), [rotated, b, team]);
    assert.equal(await secrets.remove('default', 'A'), true);
    assert.equal(await secrets.remove('default', 'A'), false);
    assert.deepEqual(await secrets.list(), [b, team]);
  });
}
