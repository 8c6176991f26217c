/**
 * A TCP connection on which a test says exactly the bytes it wants to and sees exactly those that come back, as
 * Latin-1 text. For what no HTTP client would send.
 */
import { connect, type Socket } from 'node:net';
import { waitFor } from './wait-for.ts';

export class RawConnection {
  /** All that has come so far. */
  text = '';
  readonly socket: Socket;
  /** Resolves when the connection is gone, however it ended. */
  readonly closed: Promise<void>;
  isClosed = false;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.text += chunk.toString('latin1');
    });
    // A reset is an end like any other here.
    socket.on('error', () => {});
    this.closed = new Promise(resolve => {
      socket.once('close', () => {
        this.isClosed = true;
        resolve();
      });
    });
  }

  static open(port: number): Promise<RawConnection> {
    return new Promise((resolve, reject) => {
      const socket = connect({ host: '127.0.0.1', port, noDelay: true });
      socket.once('error', reject);
      socket.once('connect', () => {
        socket.off('error', reject);
        resolve(new RawConnection(socket));
      });
    });
  }

  write(bytes: string | Uint8Array): void {
    this.socket.write(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes);
  }

  /** Resolves with all text once `part` is in it; fails when the connection ends without. */
  async until(part: string | RegExp, timeoutMs = 10_000): Promise<string> {
    const has = () => (typeof part === 'string' ? this.text.includes(part) : part.test(this.text));
    await waitFor(() => has() || this.isClosed, {
      what: `${part} on the connection`,
      timeoutMs,
      everyMs: 1,
    });
    if (!has()) throw new Error(`the connection ended without ${part}; it said: ${this.text}`);
    return this.text;
  }

  /** Takes the next whole answer off the text; `bodiless` for one to HEAD. */
  async next(options: { bodiless?: boolean } = {}): Promise<RawAnswer> {
    const take = () => takeAnswer(this.text, { ...options, isClosed: this.isClosed });
    const taken = await waitFor(() => take() ?? (this.isClosed ? 'none' : undefined), {
      what: 'an answer on the connection',
      everyMs: 1,
    });
    if (taken === 'none') throw new Error(`no whole answer before the end: ${this.text}`);
    this.text = taken.rest;
    return taken.answer;
  }

  destroy(): void {
    this.socket.destroy();
  }
}

export interface RawAnswer {
  status: number;
  /** Names in lower case; the values of repeated ones in order. */
  headers: Map<string, string[]>;
  /** One character a byte. */
  body: string;
}

/** The body of an answer as text. */
export function utf8Of(answer: RawAnswer): string {
  return Buffer.from(answer.body, 'latin1').toString('utf8');
}

/** The first whole answer in the text and what follows it; undefined while there is none. */
function takeAnswer(
  text: string,
  how: { bodiless?: boolean; isClosed: boolean },
): { answer: RawAnswer; rest: string } | undefined {
  if (!text.includes('\r\n\r\n')) return undefined;
  const head = parseAnswer(text);
  const cut = (bytes: number) => ({
    answer: { ...head, body: head.body.slice(0, bytes) },
    rest: head.body.slice(bytes),
  });
  const { status, headers } = head;
  if (how.bodiless || status < 200 || status === 204 || status === 304) return cut(0);
  const length = headers.get('content-length')?.[0];
  if (length !== undefined)
    return head.body.length < Number(length) ? undefined : cut(Number(length));
  if (headers.get('transfer-encoding')?.[0] !== 'chunked')
    return how.isClosed ? cut(head.body.length) : undefined;
  const chunks = takeChunks(head.body);
  return chunks && { answer: { ...head, body: chunks.body }, rest: chunks.rest };
}

/** A chunked body without its framing. */
function takeChunks(text: string): { body: string; rest: string } | undefined {
  let body = '';
  for (let at = 0; ; ) {
    const line = text.indexOf('\r\n', at);
    if (line === -1) return undefined;
    const size = Number.parseInt(text.slice(at, line), 16);
    const end = line + 2 + size + 2;
    if (text.length < end) return undefined;
    if (size === 0) return { body, rest: text.slice(end) };
    body += text.slice(line + 2, end - 2);
    at = end;
  }
}

/** The first answer in a text of raw bytes; `body` is all that follows its head. */
export function parseAnswer(text: string): RawAnswer {
  const end = text.indexOf('\r\n\r\n');
  if (end === -1) throw new Error(`not a whole answer: ${JSON.stringify(text)}`);
  const [first, ...lines] = text.slice(0, end).split('\r\n');
  const headers = new Map<string, string[]>();
  for (const line of lines) {
    const colon = line.indexOf(':');
    const name = line.slice(0, colon).toLowerCase();
    headers.set(name, [...(headers.get(name) ?? []), line.slice(colon + 1).trim()]);
  }
  return { status: Number(first!.split(' ')[1]), headers, body: text.slice(end + 4) };
}
