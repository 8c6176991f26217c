/** Which Node runs fnway. Imports nothing: any Node must be able to read it. */

/** As in `engines` of package.json. */
export const neededNode = '24.15';

/** Of versions such as `24.15.0`; what follows the numbers (`-rc.1`) is not looked at. */
export function isOlder(version: string, needed: string): boolean {
  const [have, want] = [version, needed].map(text =>
    text.split('.').map(part => parseInt(part, 10)),
  );
  for (const [i, part] of want!.entries()) {
    if (have![i] !== part) return (have![i] ?? 0) < part;
  }
  return false;
}
