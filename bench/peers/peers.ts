/** Starts the peers of the warm suite. Each answers on a port of the loopback interface. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { answers, freePort } from '../lib/http.ts';
import { type Started, start } from '../lib/processes.ts';

export interface Peer {
  url: string;
  pid: number;
  stop(): Promise<void>;
}

/** The server behind both proxies. */
export async function startBareServer(socketPath: string): Promise<Started> {
  const program = join(import.meta.dirname, 'bare-server.ts');
  const started = start([process.execPath, program, socketPath], { name: 'the bare server' });
  await started.firstLine;
  return started;
}

/** One worker, connections kept on both sides, no access log. */
export async function startNginx(directory: string, socketPath: string): Promise<Peer> {
  const port = await freePort();
  const config = join(directory, 'nginx.conf');
  writeFileSync(config, nginxConfig({ directory, socketPath, port }));
  const started = start(
    ['nginx', '-p', directory, '-c', config, '-e', join(directory, 'nginx.log')],
    {
      name: 'nginx',
    },
  );
  return ready(started, `http://127.0.0.1:${port}/`);
}

function nginxConfig(at: { directory: string; socketPath: string; port: number }): string {
  const temp = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map(name => `  ${name}_temp_path ${at.directory}/nginx-${name};`)
    .join('\n');
  return `${process.getuid?.() === 0 ? 'user root;' : ''}
daemon off;
worker_processes 1;
pid ${at.directory}/nginx.pid;
error_log ${at.directory}/nginx.log error;
events { worker_connections 1024; }
http {
  access_log off;
${temp}
  keepalive_requests 1000000000;
  client_body_buffer_size 64k;
  upstream bare {
    server unix:${at.socketPath};
    keepalive 64;
    keepalive_requests 1000000000;
  }
  server {
    listen 127.0.0.1:${at.port} backlog=4096;
    location / {
      proxy_pass http://bare;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
    }
  }
}
`;
}

export async function startUndiciProxy(socketPath: string): Promise<Peer> {
  const port = await freePort();
  const program = join(import.meta.dirname, 'undici-proxy.ts');
  const started = start([process.execPath, program, socketPath, String(port)], {
    name: 'the undici proxy',
  });
  return ready(started, `http://127.0.0.1:${port}/`);
}

/** The floor for a gateway and an instance in Node, for one call at a time. */
export async function startLeastRelay(directory: string): Promise<Peer & { pids: number[] }> {
  const port = await freePort();
  const program = join(import.meta.dirname, 'least-relay.ts');
  const socketPath = join(directory, 'least.sock');
  const back = start([process.execPath, program, 'back', socketPath], { name: 'the far end' });
  await back.firstLine;
  const front = start([process.execPath, program, 'front', socketPath, String(port)], {
    name: 'the least relay',
  });
  await front.firstLine;
  const peer = await ready(front, `http://127.0.0.1:${port}/`);
  const stop = async () => {
    await Promise.all([front.stop(), back.stop()]);
  };
  return { ...peer, stop, pids: [front.pid, back.pid] };
}

/** `node` runs it: its own command takes whatever Node is first on the PATH. */
export async function startFunctionsFramework(node: string): Promise<Peer> {
  const port = await freePort();
  const program = join(
    import.meta.dirname,
    '../node_modules/@google-cloud/functions-framework/build/src/main.js',
  );
  const source = join(import.meta.dirname, 'functions-framework.mjs');
  const started = start([node, program, `--source=${source}`, '--target=hello', `--port=${port}`], {
    name: 'functions-framework',
  });
  return ready(started, `http://127.0.0.1:${port}/`);
}

async function ready(started: Started, url: string): Promise<Peer> {
  await answers(url, 20_000);
  return { url, pid: started.pid, stop: started.stop };
}
