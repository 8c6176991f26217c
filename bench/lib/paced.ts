/**
 * Posts at an even pace, on bare sockets: what it takes itself is taken from what is measured beside it, and a client of
 * node's costs more than what it asks for.
 */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

export interface Pace {
  url: string;
  path: string;
  /** Lines beside Host and Content-Length. */
  headers: readonly string[];
  bodyBytes: number;
  perSecond: number;
}

const connections = 16;
/** Between two looks at how many are due. */
const tickMs = 5;

/** Until it is stopped: then it tells how many a second were answered with 202. Throws at any other answer. */
export async function startPaced(pace: Pace): Promise<{ stop(): Promise<number> }> {
  const { url, path, headers, bodyBytes, perSecond } = pace;
  const { hostname, port, host } = new URL(url);
  const lines = [`POST ${path} HTTP/1.1`, `Host: ${host}`, `Content-Length: ${bodyBytes}`];
  const request = `${[...lines, ...headers].join('\r\n')}\r\n\r\n${'x'.repeat(bodyBytes)}`;
  let accepted = 0;
  let error: Error | undefined;
  const idle: Socket[] = [];
  const sockets = Array.from({ length: connections }, () => connect(Number(port), hostname));
  for (const socket of sockets) {
    // An answer of this size comes in one piece.
    socket.setNoDelay(true).on('data', (answer: Buffer) => {
      if (answer.toString('latin1', 0, 12) !== 'HTTP/1.1 202')
        error ??= new Error(`${path} answers ${answer.toString('latin1', 0, 300)}`);
      accepted++;
      idle.push(socket);
    });
    socket.on('error', cause => {
      error ??= cause;
    });
    await once(socket, 'connect');
    idle.push(socket);
  }
  const startMs = performance.now();
  let sent = 0;
  const timer = setInterval(() => {
    const due = Math.floor(((performance.now() - startMs) / 1000) * perSecond);
    while (sent < due && idle.length > 0) {
      idle.pop()!.write(request);
      sent++;
    }
  }, tickMs);
  return {
    async stop() {
      clearInterval(timer);
      const rate = Math.round((accepted / (performance.now() - startMs)) * 1000);
      for (const socket of sockets) socket.destroy();
      if (error !== undefined) throw error;
      return rate;
    },
  };
}
