#!/usr/bin/env -S node --max-semi-space-size=4
/**
 * The entry of `fnway`. Imports nothing before it knows that this Node can run the rest: an older one would fail on the
 * first import of something newer, and say nothing that helps.
 */
import { isOlder, neededNode } from './node-version.ts';

const { node } = process.versions;
if (isOlder(node, neededNode)) {
  process.stderr.write(
    `✗ fnway needs Node ${neededNode} or newer\n  This is Node ${node}.\n` +
      '  → Install a newer one (https://nodejs.org), or put one first on your PATH.\n',
  );
  process.exitCode = 2;
} else {
  const { run } = await import('./program.ts');
  await run(process.argv);
}
