/**
 * The convention of operations over an instance of the http driver: POST a flat map of strings, answer 200 with one. What
 * is no such map is refused before anything is sent; any other answer is a failure of the function, which nobody retries.
 */
import { collect } from '../body.ts';
import { operationLimits, stringMapBody, stringMapProblem } from '../domain/operation.ts';
import {
  type Body,
  type Call,
  type CallSignal,
  failedReply,
  type HeaderPairs,
  isStream,
  type Reply,
} from '../invoke/invoke.ts';
import type { Exit, Instance } from './driver.ts';

/** Of an answer that is a failure, what its message shows. */
const shownCharsMax = 300;

export class OperationInstance implements Instance {
  readonly wholeBodies = true;
  readonly #inner: Instance;

  constructor(inner: Instance) {
    this.#inner = inner;
  }

  get id(): string {
    return this.#inner.id;
  }

  get alive(): boolean {
    return this.#inner.alive;
  }

  get exited(): Promise<Exit> {
    return this.#inner.exited;
  }

  stop(graceMs: number): Promise<Exit> {
    return this.#inner.stop(graceMs);
  }

  async invoke(call: Call, signal: CallSignal, done: () => void): Promise<Reply> {
    let body: Uint8Array;
    try {
      body = stringMapBody(await wholeInput(call.body));
      if (signal.reason !== undefined) throw signal.reason;
    } catch (error) {
      done();
      throw signal.reason ?? error;
    }
    const headers = [...withoutBody(call.headers), ...sent];
    const reply = await this.#inner.invoke(
      { ...call, method: 'POST', headers, body },
      signal,
      done,
    );
    const answer = await atMost(reply.body, operationLimits.answerBytesMax);
    if (answer === undefined) {
      return invalid(`its answer is longer than ${operationLimits.answerBytesMax} bytes`);
    }
    if (reply.status !== 200) {
      const text = Buffer.from(answer).toString('utf8').trim().slice(0, shownCharsMax);
      return invalid(`it answered ${reply.status}${text === '' ? '' : `: ${text}`}`);
    }
    const problem = stringMapProblem(answer);
    if (problem !== undefined) return invalid(`its answer ${problem}`);
    return { status: 200, headers: ['content-type', 'application/json'], body: answer };
  }
}

function invalid(what: string): Reply {
  return failedReply({
    reason: 'reply-invalid',
    message: `the server does not keep to the convention of operations: ${what}`,
  });
}

const sent = ['content-type', 'application/json', 'accept', 'application/json'];

/** The body is ours from here on, and what describes it. */
function withoutBody(headers: HeaderPairs): string[] {
  const kept: string[] = [];
  for (let i = 0; i < headers.length; i += 2) {
    if (/^(?:content-.*|transfer-encoding|accept.*)$/i.test(headers[i]!)) continue;
    kept.push(headers[i]!, headers[i + 1]!);
  }
  return kept;
}

/** A stream is one that found no room where bodies are gathered; it was bounded there. */
async function wholeInput(body: Body): Promise<Uint8Array> {
  return (await atMost(body, Number.POSITIVE_INFINITY))!;
}

/** Undefined when there is more. */
async function atMost(body: Body, bytesMax: number): Promise<Uint8Array | undefined> {
  if (isStream(body)) return collect(body, bytesMax);
  return body.length > bytesMax ? undefined : body;
}
