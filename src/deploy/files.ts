/**
 * Removes the files of versions. What belongs to a function's user is removed as that user: root walking a tree that
 * somebody may still change could be led out of it.
 */
import { execFile } from 'node:child_process';
import { lstat, readdir, rm, rmdir } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { Identity } from '../invoke/invoke.ts';

/** A version's directory. Whatever cannot be removed stays: its name is not used again. */
export async function removeVersion(path: string, identity: Identity | undefined): Promise<void> {
  if (identity === undefined) return removeOwn(path);
  await removeByForce(path, identity);
  // Its own name stands in a directory of ours, which only we may change.
  await rmdir(path).catch(() => {});
}

async function removeOwn(path: string): Promise<void> {
  await rm(path, { recursive: true, force: true }).catch(() => removeByForce(path));
}

/** As its user, also where a function has taken its own permissions away. Never fails: what cannot go stays. */
function removeByForce(path: string, identity?: Identity): Promise<void> {
  const script =
    'rm -rf -- "$1" 2>/dev/null || { chmod -R u+rwX -- "$1"; rm -rf -- "$1"; } 2>/dev/null';
  return new Promise(resolve => {
    try {
      const user = identity && { uid: identity.uid, gid: identity.gid };
      execFile('/bin/sh', ['-c', script, 'sh', path], { ...user, cwd: '/' }, () => resolve());
    } catch {
      // Not ours to become: a root gateway made it, and this one is none.
      resolve();
    }
  });
}

/**
 * The versions in a function's directory that are not `kept`: also those that a gateway which was killed had taken out of
 * its store only.
 */
export async function removeOthers(
  directory: string,
  kept: ReadonlySet<number>,
  identity: Identity | undefined,
): Promise<void> {
  for (const name of await readdir(directory).catch(() => [])) {
    const number = /^([1-9]\d*)(?:\.json)?$/.exec(name)?.[1];
    if (number === undefined || kept.has(Number(number))) continue;
    const path = join(directory, name);
    if (name.endsWith('.json')) await rm(path, { force: true });
    else await removeVersion(path, identity);
  }
}

/** Where a version's source is written until it is whole: beside the version's directory, and for root alone. */
export function stagingOf(directory: string): string {
  return join(dirname(directory), `${stagingPrefix}${basename(directory)}`);
}

const stagingPrefix = '.writing-';

/** Removes directories of functions that no store knows: a gateway that was killed had only begun to. */
export async function removeLost(code: string, isKnown: (id: string) => boolean): Promise<void> {
  const names = await readdir(code).catch(() => []);
  // Asked after the names were read: a function is known before it has a directory.
  for (const name of names.filter(name => name.startsWith('fn_') && !isKnown(name))) {
    const path = join(code, name);
    // Whose they were is known by the owner of what is in it.
    const inside = await readdir(path).catch(() => []);
    const owners = await Promise.all(
      inside.map(entry => lstat(join(path, entry)).catch(() => undefined)),
    );
    const owner = owners.find(stats => stats !== undefined && stats.uid !== process.getuid?.());
    await removeFunction(path, owner && { uid: owner.uid, gid: owner.gid });
  }
}

/** The directory of all versions of a function; it and the markers in it are the gateway's. */
export async function removeFunction(path: string, identity: Identity | undefined): Promise<void> {
  const entries = await readdir(path, { withFileTypes: true }).catch(() => []);
  for (const entry of entries) {
    // Nobody else could ever go into one of these.
    if (entry.name.startsWith(stagingPrefix))
      await rm(join(path, entry.name), { recursive: true, force: true });
    else if (entry.isDirectory()) await removeVersion(join(path, entry.name), identity);
    else await rm(join(path, entry.name), { force: true });
  }
  await rmdir(path).catch(() => {});
}
