/**
 * Accepts links: a Unix socket on which processes say HELLO with a one-time secret that somebody waits for.
 * Anything else (no secret, garbage, silence) is closed; nothing of it is read further.
 */
import { createServer, type Socket } from 'node:net';
import type { Clock, Timer } from '../clock.ts';
import { GatewayError } from '../errors.ts';
import { type Hello, Link } from './link.ts';

export const linkLimits = {
  /** From connect to HELLO. */
  helloMsMax: 5000,
  /** Connections that have not said HELLO: the oldest of more goes. A process of ours says it at once. */
  strangersMax: 256,
} as const;

export interface LinkServer {
  /** Waits for the process that knows `secret`. Rejects with INSTANCE_NOT_STARTED after `timeoutMs`. */
  expect(secret: string, timeoutMs: number): Promise<{ link: Link; hello: Hello }>;
  /** Nobody waits for `secret` any more: its process ended before HELLO. */
  forget(secret: string, reason: string): void;
  close(): Promise<void>;
}

interface Waiting {
  resolve(linked: { link: Link; hello: Hello }): void;
  reject(error: Error): void;
  timer: Timer;
}

export function listenForLinks(options: { path: string; clock: Clock }): Promise<LinkServer> {
  const { path, clock } = options;
  const waiting = new Map<string, Waiting>();
  const sockets = new Set<Socket>();
  const strangers = new Strangers();

  function accept(socket: Socket): void {
    sockets.add(socket);
    strangers.add(socket);
    socket.once('close', () => sockets.delete(socket));
    const timer = clock.after(linkLimits.helloMsMax, () => socket.destroy(), { unref: true });
    const link = new Link(socket, hello => {
      timer.cancel();
      const expected = typeof hello.secret === 'string' ? waiting.get(hello.secret) : undefined;
      // The pid is what is signalled later: 0 and 1 would be everybody.
      const isProcess = Number.isInteger(hello.pid) && hello.pid > 1;
      if (expected === undefined || hello.protocol !== 1 || !isProcess) {
        throw new GatewayError(
          'LINK_PROTOCOL_BROKEN',
          'a HELLO with an unknown secret, protocol or pid',
        );
      }
      waiting.delete(hello.secret);
      strangers.know(socket);
      expected.timer.cancel();
      expected.resolve({ link, hello });
    });
  }

  function giveUp(secret: string, reason: string): void {
    const expected = waiting.get(secret);
    if (expected === undefined) return;
    waiting.delete(secret);
    expected.timer.cancel();
    expected.reject(new GatewayError('INSTANCE_NOT_STARTED', reason));
  }

  const server = createServer(accept);
  return new Promise((resolve, reject) => {
    // A connection that cannot be accepted later is its process's trouble.
    server.on('error', reject);
    server.listen(path, () => {
      server.unref();
      resolve({
        expect: (secret, timeoutMs) =>
          new Promise((resolveLink, rejectLink) => {
            const timer = clock.after(timeoutMs, () =>
              giveUp(secret, `the process did not connect within ${timeoutMs} ms`),
            );
            waiting.set(secret, { resolve: resolveLink, reject: rejectLink, timer });
          }),
        forget: giveUp,
        close: () =>
          new Promise(closed => {
            for (const secret of [...waiting.keys()]) giveUp(secret, 'the gateway is stopping');
            for (const socket of sockets) socket.destroy();
            server.close(() => closed());
          }),
      });
    });
  });
}

/** Connections that have not said who they are. Any function can connect, and must not use up the descriptors. */
export class Strangers {
  /** Oldest first. */
  readonly #sockets = new Set<Socket>();

  add(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
    if (this.#sockets.size <= linkLimits.strangersMax) return;
    const [oldest] = this.#sockets;
    this.#sockets.delete(oldest!);
    oldest!.destroy();
  }

  /** It has said who it is. */
  know(socket: Socket): void {
    this.#sockets.delete(socket);
  }
}
