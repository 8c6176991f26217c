/** Goal: a user is ended when the last that runs as it has, however that ended. Method: `end` is watched, not done. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Users } from './users.ts';

class WatchedUsers extends Users {
  readonly ended: number[] = [];
  override end(uid: number): void {
    this.ended.push(uid);
  }
}

test('a user is ended with the last that holds it, once', () => {
  const users = new WatchedUsers();
  const [first, second, other] = [users.hold(7), users.hold(7), users.hold(8)];
  first();
  first();
  assert.deepEqual(users.ended, []);
  second();
  assert.deepEqual(users.ended, [7]);
  other();
  users.hold(7)();
  assert.deepEqual(users.ended, [7, 8, 7]);
});

test('work that fails lets its user go, and work without a user needs none', async () => {
  const users = new WatchedUsers();
  const failing = async () => {
    throw new Error('no process');
  };
  await assert.rejects(users.during({ uid: 7, gid: 7 }, failing), /no process/);
  assert.deepEqual(users.ended, [7]);
  assert.equal(await users.during(undefined, async () => 'done'), 'done');
  assert.deepEqual(users.ended, [7]);
});
