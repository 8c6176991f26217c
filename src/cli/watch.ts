/**
 * Watches a manifest and the sources that it names, and tells which functions may have changed.
 * Whether they did is for the caller to find out; files that the ignore rules leave out cause a
 * look, not a change. It begins with one look at everything.
 */
import path from 'node:path';
import { watch } from 'chokidar';
import { ignoredByDefault } from '../build/source.ts';

/** Editors write a file in several steps; what arrives together is looked at once. */
const debounceMs = 30;

export interface Watched {
  /** Absolute path of the manifest. */
  manifest: string;
  /** Absolute path of a source or a schema → the functions that are made of it. */
  sources: ReadonlyMap<string, readonly string[]>;
}

export interface Changes {
  manifest: boolean;
  functions: ReadonlySet<string>;
}

export interface Watcher {
  /** Replaces what is watched, after the manifest has changed. */
  update(watched: Watched): void;
  close(): Promise<void>;
}

/**
 * `onChange` is not called again before what it returned is done; what happens meanwhile comes
 * after.
 */
export async function watchProject(
  first: Watched,
  on: { onChange: (changes: Changes) => Promise<void>; onError: (error: Error) => void },
): Promise<Watcher> {
  let watched = first;
  let manifest = false;
  let functions = new Set<string>();
  let timer: NodeJS.Timeout | undefined;
  let busy = false;

  async function flush(): Promise<void> {
    timer = undefined;
    if (busy) return;
    busy = true;
    while (manifest || functions.size > 0) {
      const changes = { manifest, functions };
      manifest = false;
      functions = new Set();
      await on.onChange(changes);
    }
    busy = false;
  }

  const watcher = watch(pathsOf(first), {
    ignoreInitial: true,
    ignored: location => isIgnored(location, watched),
    ignorePermissionErrors: true,
  });
  watcher.on('all', (_event, location) => {
    const absolute = path.resolve(location);
    if (absolute === watched.manifest) manifest = true;
    for (const [source, names] of watched.sources) {
      if (absolute !== source && !absolute.startsWith(source + path.sep)) continue;
      for (const name of names) functions.add(name);
    }
    timer ??= setTimeout(flush, debounceMs);
  });
  await new Promise<void>((resolve, reject) => {
    watcher.once('ready', resolve);
    watcher.once('error', reject);
  });
  // Later ones, such as too many watches, must not end the gateway; what is watched already goes
  // on.
  watcher.on('error', error => on.onError(error as Error));
  // What was saved since the project was read and before the watch began.
  manifest = true;
  timer ??= setTimeout(flush, 0);

  return {
    update(next) {
      const before = new Set(pathsOf(watched));
      watched = next;
      const added = pathsOf(next).filter(location => !before.delete(location));
      if (added.length > 0) watcher.add(added);
      if (before.size > 0) watcher.unwatch([...before]);
    },
    async close() {
      clearTimeout(timer);
      await watcher.close();
    },
  };
}

function pathsOf({ manifest, sources }: Watched): string[] {
  return [manifest, ...sources.keys()];
}

const ignoredNames = new Set(ignoredByDefault.filter(pattern => !pattern.includes('*')));
// A change of the rules themselves changes what is uploaded.
ignoredNames.delete('.fnwayignore');

/**
 * Directories such as node_modules are large, and never part of an upload unless they are the
 * source.
 */
function isIgnored(location: string, { sources }: Watched): boolean {
  if (!ignoredNames.has(path.basename(location))) return false;
  return !sources.has(path.resolve(location));
}
