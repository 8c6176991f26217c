/** What a watched directory holds: regular files below it, by their paths relative to it. Links are not followed. */
import type { Dirent } from 'node:fs';
import { opendir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { bucketLimits } from '../domain/bucket.ts';
import { GatewayError } from '../errors.ts';
import type { FoundObject } from './found-object.ts';

/** A file that was written to a moment ago may not be whole: it is looked at again. */
const settleMs = 1000;

/**
 * In order of their keys' bytes. Throws DATA_DIRECTORY_UNUSABLE where the directory cannot be read: it is not taken for empty.
 */
export async function listDirectory(
  path: string,
  {
    isWanted,
    nowMs,
    signal,
  }: { isWanted(key: string): boolean; nowMs: number; signal: AbortSignal },
): Promise<FoundObject[]> {
  const files: FoundObject[] = [];
  const open = [''];
  for (let below = open.pop(); below !== undefined; below = open.pop()) {
    for (const entry of await entriesOf(join(path, below), below === '')) {
      signal.throwIfAborted();
      const key = below === '' ? entry.name : `${below}/${entry.name}`;
      if (entry.isDirectory()) open.push(key);
      if (!entry.isFile() || key.length > bucketLimits.objectKeyCharsMax || !isWanted(key))
        continue;
      const found = await stat(join(path, key), { bigint: true }).catch(() => undefined);
      if (found === undefined) continue;
      const modifiedMs = Number(found.mtimeMs);
      files.push({
        ...{ key, bytes: Number(found.size), modifiedMs, changedMs: Number(found.ctimeMs) },
        content: `${found.size}-${found.mtimeNs}-${found.ino}`,
        metadata: `${found.ctimeNs}-${found.mode}`,
        isUnsettled: Math.abs(nowMs - modifiedMs) < settleMs,
      });
      if (files.length > bucketLimits.bucketObjectsMax) {
        const detail = `${path} holds more than ${bucketLimits.bucketObjectsMax} files`;
        throw new GatewayError('DATA_DIRECTORY_UNUSABLE', detail);
      }
    }
  }
  return files.sort((a, b) => Buffer.compare(Buffer.from(a.key), Buffer.from(b.key)));
}

async function entriesOf(path: string, isTop: boolean): Promise<Dirent[]> {
  try {
    return await Array.fromAsync(await opendir(path));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // Below, it may have gone since it was seen.
    if (!isTop && (code === 'ENOENT' || code === 'ENOTDIR')) return [];
    throw new GatewayError('DATA_DIRECTORY_UNUSABLE', `${path} cannot be read (${code})`, {
      cause: error,
    });
  }
}
