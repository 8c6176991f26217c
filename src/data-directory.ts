/**
 * The data directory: makes it, locks it for one gateway, and decides where the files of functions live so that
 * their users can reach them. Everything private in it is readable by the gateway's user alone.
 */

import { createHash } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { GatewayError, isGatewayError } from './errors.ts';

export interface DataDirectory {
  path: string;
  /**
   * Where versions' files and staged runtimes are: below the data directory, or where every user can go. Without symbolic
   * links, as interpreters name the files they load.
   */
  codePath: string;
  unlock(): void;
}

/** Of a root gateway whose data directory lies where other users cannot go, such as below a 0700 home. */
const sharedCodePath = '/var/lib/fnway';

export function openDataDirectory(options: {
  path: string;
  isRoot: boolean;
  mark: (path: string) => string;
}): DataDirectory & { mark: string } {
  const { path, isRoot } = options;
  try {
    makeDirectory(path);
    refuseForeign(path);
    // Passable for a root gateway's functions, readable for nobody; private files are 0600 besides.
    chmodSync(path, isRoot ? 0o711 : 0o700);
  } catch (cause) {
    if (isGatewayError(cause)) throw cause;
    throw new GatewayError(
      'DATA_DIRECTORY_UNUSABLE',
      `the data directory ${path} cannot be made: ${(cause as Error).message}`,
      { cause },
    );
  }
  const unlock = lock(path);
  const mark = options.mark(path);
  let codePath = !isRoot || isPassable(path) ? join(path, 'code') : join(sharedCodePath, mark);
  try {
    mkdirSync(codePath, { recursive: true, mode: 0o711 });
    codePath = realpathSync(codePath);
    if (isRoot) for (const part of new Set([codePath, dirname(codePath)])) chmodSync(part, 0o711);
    if (dirname(codePath) === sharedCodePath) {
      writeFileSync(join(codePath, ownerFile), path, { mode: 0o600 });
      sweepShared();
    }
  } catch (cause) {
    unlock();
    throw new GatewayError(
      'DATA_DIRECTORY_UNUSABLE',
      `${codePath} cannot be made: ${(cause as Error).message}`,
      { cause },
    );
  }
  if (isRoot && !isPassable(codePath)) {
    unlock();
    throw new GatewayError(
      'DATA_DIRECTORY_UNUSABLE',
      `functions run as users of their own, and those cannot reach ${codePath}`,
      {
        remedy: 'Give --data a directory whose parents all have the x permission for others.',
      },
    );
  }
  return { path, codePath, mark, unlock };
}

/** With its parents, one by one: Node's own way to make them never ends below /proc. */
function makeDirectory(path: string): void {
  if (existsSync(path)) return;
  makeDirectory(dirname(path));
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
}

/** A directory that holds something else keeps its mode and its files: somebody named the wrong one. */
function refuseForeign(path: string): void {
  const names = readdirSync(path);
  // `key` and the database are what a back-up holds.
  if (names.length === 0 || ['lock', 'key', 'fnway.db'].some(name => names.includes(name))) return;
  throw new GatewayError(
    'DATA_DIRECTORY_UNUSABLE',
    `${path} holds files that are no gateway's, such as ${names[0]}`,
    { remedy: 'Give --data (FNWAY_DATA) an empty directory, or one that does not exist yet.' },
  );
}

/** Names the data directory that a directory below `sharedCodePath` belongs to. */
const ownerFile = 'data-directory';

/** Removes the files of data directories that are gone. They could be built again from a data directory. */
function sweepShared(): void {
  for (const name of readdirSync(sharedCodePath)) {
    const directory = join(sharedCodePath, name);
    try {
      const owner = readFileSync(join(directory, ownerFile), 'utf8');
      if (!existsSync(owner)) rmSync(directory, { recursive: true, force: true });
    } catch {
      // Not one of ours, or being made just now.
    }
  }
}

const rangeCount = 65_536;

/**
 * The users of a root gateway's functions where no range is configured: one of 3,000 ranges between those that systems
 * give out (systemd's end at 1,879,048,191), so that two gateways on one machine hardly ever share users.
 */
export function uidRangeOf(mark: string): { first: number; count: number } {
  const place = createHash('sha256').update(mark).digest().readUInt32LE(0) % 3000;
  return { first: 1_900_000_000 + place * rangeCount, count: rangeCount };
}

/** SQLite's own lock: the kernel gives it back however the gateway ends. */
function lock(path: string): () => void {
  const file = join(path, 'lock');
  try {
    const database = new DatabaseSync(file, { timeout: 0 });
    database.exec(
      'PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE; COMMIT',
    );
    chmodSync(file, 0o600);
    return () => database.close();
  } catch (cause) {
    if (/locked|busy/i.test((cause as Error).message)) {
      throw new GatewayError(
        'DATA_DIRECTORY_LOCKED',
        `another gateway uses the data directory ${path}`,
        { cause },
      );
    }
    throw new GatewayError(
      'DATA_DIRECTORY_UNUSABLE',
      `the data directory ${path} cannot be locked: ${(cause as Error).message}`,
      { cause },
    );
  }
}

/** Whether any user can go through every directory on the way. */
function isPassable(path: string): boolean {
  for (let at = path; ; at = dirname(at)) {
    if ((statSync(at).mode & 0o001) === 0) return false;
    if (at === dirname(at)) return true;
  }
}
