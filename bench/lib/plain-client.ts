/**
 * One connection and one GET at a time, for calls that are timed alone: node:http needs half a
 * millisecond of its own when nothing has run for a while, which is as much as some of what is
 * measured. Takes answers with a Content-Length, and nothing else.
 */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import type { Answer } from './http.ts';

export class PlainClient {
  readonly #socket: Socket;
  readonly #host: string;
  #received = '';
  #sentAtMs = 0;
  #waiting: { resolve(answer: Answer): void; reject(error: Error): void } | undefined;

  private constructor(socket: Socket, host: string) {
    this.#socket = socket;
    this.#host = host;
    socket.setNoDelay(true);
    socket.setEncoding('latin1');
    socket.on('data', text => this.#receive(text as unknown as string));
    socket.on('error', error => this.#waiting?.reject(error));
    socket.on('close', () => this.#waiting?.reject(new Error(`${host} closed the connection`)));
  }

  static async to(url: string): Promise<PlainClient> {
    const { hostname, port, host } = new URL(url);
    const socket = connect(Number(port), hostname);
    await once(socket, 'connect');
    return new PlainClient(socket, host);
  }

  get(path: string): Promise<Answer> {
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
      this.#received = '';
      this.#sentAtMs = performance.now();
      this.#socket.write(`GET ${path} HTTP/1.1\r\nHost: ${this.#host}\r\n\r\n`, 'latin1');
    });
  }

  close(): void {
    this.#socket.destroy();
  }

  #receive(text: string): void {
    this.#received += text;
    const headEnd = this.#received.indexOf('\r\n\r\n');
    if (headEnd === -1) return;
    const head = this.#received.slice(0, headEnd);
    const length = Number(/^content-length: (\d+)$/im.exec(head)?.[1]);
    const body = this.#received.slice(headEnd + 4);
    if (body.length < length) return;
    const tookMs = performance.now() - this.#sentAtMs;
    if (Number.isNaN(length)) this.#waiting?.reject(new Error(`no Content-Length in ${head}`));
    else this.#waiting?.resolve({ status: Number(head.split(' ')[1]), body, tookMs });
    this.#waiting = undefined;
  }
}
