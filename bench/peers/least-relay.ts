/**
 * The least that a gateway in Node can be: `node least-relay.ts front SOCKET PORT` passes whatever comes on a connection
 * on to `node least-relay.ts back SOCKET`, and back. Nothing is parsed; the far end answers every piece with the same
 * bytes, those of `hello`. For one call at a time only. Says `ready` when it listens.
 */
import { connect, createServer } from 'node:net';

const [role, socketPath, port] = process.argv.slice(2) as [string, string, string];
const answer = Buffer.from(
  'HTTP/1.1 200 OK\r\nContent-Type: text/plain;charset=UTF-8\r\nContent-Length: 12\r\n\r\nHello world\n',
);

function startBack(): void {
  createServer(socket => socket.on('data', () => socket.write(answer))).listen(socketPath, ready);
}

function startFront(): void {
  // As a gateway has it: the way to the other process is there before a call comes.
  const back = connect(socketPath);
  let waiting = (_bytes: Uint8Array): void => {};
  back.on('data', bytes => waiting(bytes as Buffer));
  createServer({ noDelay: true }, socket => {
    socket.on('data', bytes => {
      waiting = reply => socket.write(reply);
      back.write(bytes);
    });
    socket.on('error', () => socket.destroy());
  }).listen(Number(port), '127.0.0.1', ready);
}

function ready(): void {
  process.stdout.write('ready\n');
}

if (role === 'back') startBack();
else startFront();
process.stdin.once('end', () => process.exit(0)).resume();
