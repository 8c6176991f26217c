/**
 * Goal: a process that does not become ready does not stay. Method: a real process that never answers on its link; the
 * link is played, and the clock is a fake one.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Runtime } from '../../domain/runtime.ts';
import type { Link } from '../../link/link.ts';
import type { LinkServer } from '../../link/server.ts';
import { silentLog } from '../../log.ts';
import { FakeClock } from '../../testing/fake-clock.ts';
import { waitFor } from '../../testing/wait-for.ts';
import { WarmPool } from './warm.ts';

const runtime = {
  name: 'mute',
  command: ['/bin/sleep', '1000'],
  protocol: 'link',
  fork: false,
  warm: 1,
} as unknown as Runtime;

/** Says HELLO for every process, and nothing more; its link closes when the process has ended. */
function mutePool(clock: FakeClock) {
  const pids = new Set<number>();
  let pings = 0;
  let close: () => void;
  const closed = new Promise<undefined>(resolve => {
    close = () => resolve(undefined);
  });
  const link = {
    closed,
    ping: () => {
      pings++;
      return new Promise((_, reject) => void closed.then(() => reject(new Error('closed'))));
    },
  } as unknown as Link;
  const links = {
    expect: async () => ({ link, hello: {} }),
    forget: () => close(),
    close: async () => {},
  } as unknown as LinkServer;
  const pool = new WarmPool({
    ...{ runtime, links, clock, linkPath: '/nowhere', mark: 'm', baseEnv: {}, log: silentLog },
    interpreters: { node: process.execPath, python: undefined },
    outputs: undefined,
    cgroups: undefined,
    keeper: {
      add: pid => pids.add(pid),
      remove: pid => pids.delete(pid),
      close() {},
    },
  });
  return { pool, pids, pings: () => pings };
}

test('one that never answers a PING is ended after ten seconds and is not kept', async () => {
  const clock = new FakeClock();
  const { pool, pids, pings } = mutePool(clock);
  const filled = pool.fill();
  await waitFor(() => pings() === 1);
  const [pid] = pids;
  await clock.advance(9_999);
  assert.doesNotThrow(() => process.kill(pid!, 0), 'it has time until then');
  await clock.advance(1);
  // The clock stands still: what is waited for is the kernel.
  await waitFor(() => pids.size === 0);
  await filled;
  assert.equal(pool.size, 0);
  assert.throws(() => process.kill(pid!, 0));
});
