/**
 * The proxy that one writes in Node in an afternoon: node:http in front, an undici Pool behind, a
 * body that is piped. `node undici-proxy.ts SOCKET PORT`. Says `ready` when it listens.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { type Dispatcher, Pool } from 'undici';

const [socketPath, port] = process.argv.slice(2) as [string, string];
const pool = new Pool('http://localhost', { socketPath, connections: 64 });
const hopByHop = ['connection', 'keep-alive', 'transfer-encoding', 'upgrade', 'te', 'trailer'];

async function forward(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const headers = { ...request.headers };
  for (const name of hopByHop) delete headers[name];
  const hasBody = request.method !== 'GET' && request.method !== 'HEAD';
  const answer = await pool.request({
    method: request.method as Dispatcher.HttpMethod,
    path: request.url!,
    headers,
    body: hasBody ? request : null,
  });
  for (const name of hopByHop) delete answer.headers[name];
  response.writeHead(answer.statusCode, answer.headers);
  answer.body.pipe(response);
}

const server = createServer((request, response) => {
  forward(request, response).catch(() => {
    if (!response.headersSent) response.writeHead(502);
    response.end();
  });
});
server.listen(Number(port), '127.0.0.1', () => process.stdout.write('ready\n'));
process.stdin.once('end', () => process.exit(0)).resume();
