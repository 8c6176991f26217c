/**
 * A real store behind S3 for tests: Ceph's gateway with one monitor and one daemon that keeps objects in memory, all in a
 * temporary directory and on loopback. Debian: ceph-mon, ceph-osd, ceph-common, radosgw. It takes ten seconds to start.
 */
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { newSecret } from '../../src/ids.ts';
import { waitFor } from '../../src/testing/wait-for.ts';

const programs = ['ceph-mon', 'ceph-osd', 'ceph', 'radosgw', 'radosgw-admin', 'ceph-authtool'];

/** For a suite: skipped, and told so, where the programs are missing. */
export function needsRadosgw(path: string): { skip?: string } {
  const has = (name: string) =>
    path.split(':').some(directory => existsSync(join(directory, name)));
  const missing = programs.filter(name => !has(name));
  if (missing.length === 0) return {};
  return {
    skip: `${missing.join(', ')} not installed (Debian: ceph-mon ceph-osd ceph-common radosgw)`,
  };
}

export interface Radosgw {
  endpoint: string;
  accessKey: string;
  secretKey: string;
  stop(): void;
}

export async function startRadosgw(): Promise<Radosgw> {
  const root = mkdtempSync(join(tmpdir(), 'fnway-radosgw-'));
  const [monitorPort, port] = [await freePort(), await freePort()];
  const fsid = '6f0e8f54-6d3c-4d53-a1d5-2e61a0f0c0de';
  const file = (name: string) => join(root, name);
  writeFileSync(file('ceph.conf'), configOf({ root, fsid, monitorPort, port }));
  for (const name of ['mon', 'osd']) mkdirSync(file(name));
  const run = (program: string, ...args: string[]) =>
    execFileSync(program, args, {
      ...{ cwd: root, encoding: 'utf8', timeout: 60_000, stdio: ['ignore', 'pipe', 'pipe'] },
      env: { PATH: process.env.PATH, CEPH_CONF: file('ceph.conf') },
    }).trim();
  const stop = () => {
    for (const name of ['client.admin', 'osd.0', 'mon.a']) endOf(file(`${name}.pid`));
    rmSync(root, { recursive: true, force: true, maxRetries: 20 });
  };
  // A process of root may not give its rights away in a temporary directory of its own.
  const asRoot = process.getuid?.() === 0 ? ['--setuser', 'root', '--setgroup', 'root'] : [];
  try {
    makeKeys(run);
    run(
      'monmaptool',
      '--create',
      '--fsid',
      fsid,
      '--addv',
      'a',
      `[v2:127.0.0.1:${monitorPort}]`,
      'monmap',
    );
    run('ceph-mon', '--mkfs', '-i', 'a', '--monmap', 'monmap', '--keyring', 'mon.keyring');
    run('ceph-mon', '-i', 'a', ...asRoot);
    const uuid = '0a7d3c0e-3b0f-4b1e-9d0c-6a1c64b7a001';
    const id = run('ceph', 'osd', 'new', uuid);
    const rights = ['mon', 'allow profile osd', 'osd', 'allow *'];
    run('ceph', 'auth', 'get-or-create', `osd.${id}`, ...rights, '-o', 'osd/keyring');
    run('ceph-osd', '-i', id, '--mkfs', '--osd-uuid', uuid, ...asRoot);
    run('ceph-osd', '-i', id, ...asRoot);
    const keys = { accessKey: 'access', secretKey: newSecret('') };
    const gateway = spawn('radosgw', ['-n', 'client.admin', ...asRoot], {
      ...{ cwd: root, stdio: 'ignore' as const },
      env: { PATH: process.env.PATH, CEPH_CONF: file('ceph.conf') },
    });
    gateway.unref();
    const endpoint = `http://127.0.0.1:${port}`;
    await waitFor(
      () =>
        fetch(endpoint).then(
          () => true,
          () => false,
        ),
      {
        ...{ what: 'radosgw', timeoutMs: 60_000, everyMs: 100 },
      },
    );
    const user = ['--uid=test', '--display-name=test'];
    run(
      'radosgw-admin',
      'user',
      'create',
      ...user,
      `--access-key=${keys.accessKey}`,
      `--secret-key=${keys.secretKey}`,
    );
    return { endpoint, ...keys, stop };
  } catch (error) {
    stop();
    throw error;
  }
}

function makeKeys(run: (program: string, ...args: string[]) => string): void {
  const all = ['mon', 'osd', 'mgr'].flatMap(what => ['--cap', what, 'allow *']);
  const make = (keyring: string, name: string, ...caps: string[]) =>
    run('ceph-authtool', '--create-keyring', keyring, '--gen-key', '-n', name, ...caps);
  make('mon.keyring', 'mon.', '--cap', 'mon', 'allow *');
  make('admin.keyring', 'client.admin', ...all);
  run('ceph-authtool', 'mon.keyring', '--import-keyring', 'admin.keyring');
}

function configOf(options: {
  root: string;
  fsid: string;
  monitorPort: number;
  port: number;
}): string {
  const { root, fsid, monitorPort, port } = options;
  return `[global]
fsid = ${fsid}
mon host = [v2:127.0.0.1:${monitorPort}]
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
auth allow insecure global id reclaim = false
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
osd objectstore = memstore
memstore device bytes = 536870912
run dir = ${root}
admin socket = ${root}/$name.$pid.asok
log file = ${root}/$name.log
mon cluster log file = ${root}/cluster.log
pid file = ${root}/$name.pid
mon data = ${root}/mon
osd data = ${root}/osd
[client]
keyring = ${root}/admin.keyring
[osd]
keyring = ${root}/osd/keyring
[client.admin]
rgw frontends = beast endpoint=127.0.0.1:${port}
debug rgw = 0
`;
}

function endOf(pidFile: string): void {
  try {
    process.kill(Number(readFileSync(pidFile, 'utf8')), 'SIGKILL');
  } catch {
    // It never started, or is gone.
  }
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise(resolve => server.close(resolve));
  return port;
}
