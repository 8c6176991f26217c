/** Where a thread's program is: beside this file in the sources; in a build, beside the programs, which this is a chunk of. */
export function threadFile(name: 'queue-thread' | 'checkpoint-thread'): URL {
  const { url } = import.meta;
  if (url.endsWith('.ts')) return new URL(`./${name}.ts`, url);
  return new URL(url.includes('/chunks/') ? `../${name}.js` : `./${name}.js`, url);
}
