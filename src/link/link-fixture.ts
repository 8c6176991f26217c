/** For tests of the link: a listening gateway's end with a clock of its own, and calls whose `done` is counted. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PushedBody } from '../body.ts';
import type { Clock, Timer } from '../clock.ts';
import { GatewayError } from '../errors.ts';
import {
  type Body,
  type Call,
  CallSignal,
  emptyBody,
  isStream,
  type Reply,
} from '../invoke/invoke.ts';
import type { Link } from './link.ts';
import { Peer, types } from './peer-fixture.ts';
import { type LinkServer, listenForLinks } from './server.ts';

export interface Links {
  readonly path: string;
  readonly server: LinkServer;
  readonly clock: HandClock;
  /** A link and the process at its other end. */
  linked(): Promise<{ link: Link; peer: Peer }>;
  close(): Promise<void>;
}

export async function openLinks(): Promise<Links> {
  const directory = mkdtempSync(join(tmpdir(), 'fnway-link-'));
  const path = join(directory, 'link.sock');
  const clock = new HandClock();
  const server = await listenForLinks({ path, clock });
  let secrets = 0;
  return {
    path,
    server,
    clock,
    async linked() {
      const secret = `secret-${++secrets}`;
      const expected = server.expect(secret, 1000);
      const peer = new Peer(connect(path));
      peer.send({ type: types.HELLO, payload: hello(secret) });
      const { link } = await expected;
      return { link, peer };
    },
    async close() {
      await server.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** Timers that a test runs by hand. The fuller FakeClock lies in a layer above this one. */
export class HandClock implements Clock {
  #nowMs = 0;
  #timers: Array<{ dueMs: number; fn: () => void }> = [];

  get pending(): number {
    return this.#timers.length;
  }

  now(): number {
    return this.#nowMs;
  }

  monotonicMs(): number {
    return this.#nowMs;
  }

  after(delayMs: number, fn: () => void): Timer {
    const timer = { dueMs: this.#nowMs + delayMs, fn };
    this.#timers.push(timer);
    return {
      cancel: () => {
        this.#timers = this.#timers.filter(other => other !== timer);
      },
    };
  }

  advance(ms: number): void {
    this.#nowMs += ms;
    const due = this.#timers.filter(timer => timer.dueMs <= this.#nowMs);
    this.#timers = this.#timers.filter(timer => timer.dueMs > this.#nowMs);
    for (const timer of due) timer.fn();
  }
}

export function hello(secret: unknown, protocol: unknown = 1): string {
  return JSON.stringify({ protocol, secret, pid: 4242, runtime: 'test' });
}

export function callWith(
  parts: { body?: Body; headers?: string[]; ownHeaders?: string[]; target?: string } = {},
): Call {
  return {
    id: 'call_1',
    version: undefined as never,
    attempt: 1,
    method: 'POST',
    target: parts.target ?? '/a?b=c',
    headers: parts.headers ?? [],
    ownHeaders: parts.ownHeaders ?? [],
    body: parts.body ?? emptyBody,
    origin: 'http',
    caller: 'admin',
    label: undefined,
    parent: undefined,
    deadlineMs: 0,
    gathering: false,
    instance: undefined,
  };
}

export interface Running {
  reply: Promise<Reply>;
  signal: CallSignal;
  /** How often `done` ran. */
  ended(): number;
}

export function start(link: Link, call: Call = callWith(), remainingMs = 0): Running {
  const signal = new CallSignal();
  let ended = 0;
  const reply = link.call(call, signal, remainingMs, () => ended++);
  reply.catch(() => {});
  return { reply, signal, ended: () => ended };
}

export async function read(body: Body): Promise<string> {
  if (!isStream(body)) return Buffer.from(body).toString('latin1');
  const chunks: Uint8Array[] = [];
  for await (const chunk of body) chunks.push(chunk);
  return Buffer.concat(chunks).toString('latin1');
}

/** A request body that the test fills. */
export function source(): { body: PushedBody; read(): number; cancelled: Error[] } {
  const cancelled: Error[] = [];
  let bytes = 0;
  const body = new PushedBody({
    onRead: count => {
      bytes += count;
    },
    onCancel: reason => cancelled.push(reason),
  });
  return { body, read: () => bytes, cancelled };
}

export const leave = new GatewayError('CALL_CANCELLED', 'the caller left');

/** Waits for a state, turn by turn of the event loop. */
export async function until(holds: () => boolean): Promise<void> {
  for (let turn = 0; !holds(); turn++) {
    assert.ok(turn < 20_000, 'the state did not come');
    await new Promise<void>(resolve => setImmediate(resolve));
  }
}
