/**
 * The users of functions, where the gateway is root. A process can leave its group, its session and its parent, but not
 * its user: when nothing that the gateway started as a user is left, whatever else runs as it was left behind by that,
 * and is ended. Builds, checks and removals run as the same user as the function's calls: all of them hold it.
 */
import { readdirSync, statSync } from 'node:fs';
import type { Identity } from '../../invoke/invoke.ts';

export class Users {
  readonly #holds = new Map<number, number>();

  /** Something is started as this user. Call what it returns when that has ended; more than once does no harm. */
  hold(uid: number): () => void {
    this.#holds.set(uid, (this.#holds.get(uid) ?? 0) + 1);
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      const left = this.#holds.get(uid)! - 1;
      if (left > 0) return void this.#holds.set(uid, left);
      this.#holds.delete(uid);
      this.end(uid);
    };
  }

  /** Holds a user while `work` runs as it; undefined when functions have no users of their own. */
  async during<T>(identity: Identity | undefined, work: () => Promise<T>): Promise<T> {
    const release = identity === undefined ? undefined : this.hold(identity.uid);
    try {
      return await work();
    } finally {
      release?.();
    }
  }

  /** Ends every process of a user at once. Only for users that belong to one function. */
  end(uid: number): void {
    for (const entry of readdirSync('/proc')) {
      if (!(Number(entry) > 0)) continue;
      try {
        if (statSync(`/proc/${entry}`).uid === uid) process.kill(Number(entry), 'SIGKILL');
      } catch {
        // Gone already.
      }
    }
  }
}
