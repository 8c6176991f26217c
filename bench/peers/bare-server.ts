/**
 * What the proxies have behind them: a bare node:http server on a Unix socket, `node bare-server.ts
 * SOCKET`. Answers GET with the text that `hello` answers, and POST with the body it got. Says
 * `ready` when it listens.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';

const text = 'Hello world\n';

function hello(response: ServerResponse): void {
  response.writeHead(200, {
    'content-type': 'text/plain;charset=UTF-8',
    'content-length': text.length,
  });
  response.end(text);
}

function echo(request: IncomingMessage, response: ServerResponse): void {
  const chunks: Buffer[] = [];
  request.on('data', chunk => chunks.push(chunk));
  request.once('end', () => {
    const body = Buffer.concat(chunks);
    response.writeHead(200, {
      'content-type': 'application/octet-stream',
      'content-length': body.length,
    });
    response.end(body);
  });
}

const server = createServer((request, response) => {
  if (request.method === 'POST') echo(request, response);
  else hello(response);
});
server.keepAliveTimeout = 0;
server.listen(process.argv[2], () => process.stdout.write('ready\n'));
process.stdin.once('end', () => process.exit(0)).resume();
