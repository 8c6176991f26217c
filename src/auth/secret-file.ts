/**
 * A secret kept in a file of its own: the sealing key, the admin token. The file is for its owner
 * only (0600), is never written over, and is either whole or not there, also after a power cut.
 */
import {
  closeSync,
  fchmodSync,
  fstatSync,
  fsyncSync,
  linkSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { GatewayError, isGatewayError } from '../errors.ts';

/**
 * The secret in `file`, without surrounding white space. Where there is no file, it is made with
 * what `create` gives. Throws DATA_DIRECTORY_UNUSABLE when the file cannot be used, or is open to
 * others.
 */
export function openSecretFile(file: string, create: () => string): string {
  try {
    const found = read(file);
    if (found !== undefined) return found;
    write(file, create());
    // Read back, because another process may have been first; all then use what is in the file.
    return read(file) ?? '';
  } catch (error) {
    if (isGatewayError(error) || !(error instanceof Error)) throw error;
    throw new GatewayError('DATA_DIRECTORY_UNUSABLE', `${file}: ${error.message}.`, {
      cause: error,
    });
  }
}

function read(file: string): string | undefined {
  let descriptor: number;
  try {
    descriptor = openSync(file, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  try {
    // Of the open file, not of its name: what is checked is what is read.
    const mode = fstatSync(descriptor).mode & 0o777;
    if ((mode & 0o077) !== 0) {
      const detail = `${file}: others can use this secret (mode ${mode.toString(8)}).`;
      const remedy = `Allow it to its owner only: chmod 600 ${file}. Consider it known to others.`;
      throw new GatewayError('DATA_DIRECTORY_UNUSABLE', detail, { remedy });
    }
    return readFileSync(descriptor, 'utf8').trim();
  } finally {
    closeSync(descriptor);
  }
}

/**
 * Under its name only when whole: the link fails if the name is taken, and never replaces a file.
 */
function write(file: string, secret: string): void {
  const temporary = `${file}.${process.pid}.tmp`;
  rmSync(temporary, { force: true });
  const descriptor = openSync(temporary, 'wx', 0o600);
  try {
    fchmodSync(descriptor, 0o600);
    writeFileSync(descriptor, `${secret}\n`);
    fsyncSync(descriptor);
    linkSync(temporary, file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  } finally {
    closeSync(descriptor);
    rmSync(temporary, { force: true });
  }
  const directory = openSync(path.dirname(file), 'r');
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
}
