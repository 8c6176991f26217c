/**
 * Sealing: what the store keeps but must not know (AES-256-GCM). Sealed bytes are
 *
 *   1 format version · 4 key id · 12 nonce · ciphertext · 16 tag
 *
 * and whoever changes one of them, or has another key, opens nothing. Equal plaintexts differ when
 * sealed. Not for passwords, and not for telling whether two sealed values are the same.
 */
import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  createSecretKey,
  randomBytes,
  randomFillSync,
} from 'node:crypto';
import { assert, GatewayError } from '../errors.ts';
import { openSecretFile } from './secret-file.ts';

export interface Sealer {
  /** Text is sealed as UTF-8. */
  seal(plain: Uint8Array | string): Uint8Array;
  /** The same as pieces to write one behind another: what is large is not copied again. */
  sealParts(plain: Uint8Array): Uint8Array[];
  /** Throws DATA_DIRECTORY_UNUSABLE when the bytes were sealed by another key, or are damaged. */
  open(sealed: Uint8Array): Buffer;
  /** A key for one purpose, which follows from this one and says nothing about it. */
  derive(purpose: string): Buffer;
  /** `open`, as UTF-8 text. */
  openText(sealed: Uint8Array): string;
}

const algorithm = 'aes-256-gcm';
const formatVersion = 1;
const keyBytes = 32;
const keyIdBytes = 4;
const headerBytes = 1 + keyIdBytes;
/** Random nonces of 12 bytes are safe for 2^32 seals with one key: 136 a second for a year. */
const nonceBytes = 12;
const tagBytes = 16;
const bytesMin = headerBytes + nonceBytes + tagBytes;

/** The sealer of a data directory. The key is made at the first start; without it all is lost. */
export function openSealer(keyFile: string): Sealer {
  const text = openSecretFile(keyFile, () => randomBytes(keyBytes).toString('base64'));
  const key = Buffer.from(text, 'base64');
  if (key.length !== keyBytes || key.toString('base64') !== text) {
    throw new GatewayError(
      'DATA_DIRECTORY_UNUSABLE',
      `${keyFile}: it does not hold a key (${keyBytes} bytes in base64).`,
      { remedy: 'Restore the file from a backup; what was sealed opens with its own key only.' },
    );
  }
  return createSealer(key);
}

export function createSealer(key: Uint8Array): Sealer {
  assert(key.length === keyBytes, `a sealing key has ${keyBytes} bytes`);
  const secretKey = createSecretKey(key);
  const keyId = createHash('sha256').update(key).digest().subarray(0, keyIdBytes);
  const header = Buffer.from([formatVersion, ...keyId]);
  const options = { authTagLength: tagBytes };
  const nonces = new Nonces();

  function sealParts(plain: Uint8Array): Uint8Array[] {
    const start = Buffer.allocUnsafe(headerBytes + nonceBytes);
    start.set(header);
    nonces.take(start, headerBytes);
    const nonce = start.subarray(headerBytes);
    const cipher = createCipheriv(algorithm, secretKey, nonce, options);
    cipher.setAAD(header);
    const sealed = cipher.update(plain);
    cipher.final();
    return [start, sealed, cipher.getAuthTag()];
  }

  function seal(plain: Uint8Array | string): Uint8Array {
    return Buffer.concat(sealParts(typeof plain === 'string' ? Buffer.from(plain) : plain));
  }

  function open(sealed: Uint8Array): Buffer {
    checkHeader(sealed, header);
    const nonceEnd = headerBytes + nonceBytes;
    const tagStart = sealed.length - tagBytes;
    const nonce = sealed.subarray(headerBytes, nonceEnd);
    const decipher = createDecipheriv(algorithm, secretKey, nonce, options);
    decipher.setAAD(header);
    decipher.setAuthTag(sealed.subarray(tagStart));
    const plain = decipher.update(sealed.subarray(nonceEnd, tagStart));
    try {
      decipher.final();
    } catch (cause) {
      throw damaged('its tag does not match', cause);
    }
    return plain;
  }

  return {
    ...{ seal, sealParts, open, openText: sealed => open(sealed).toString('utf8') },
    derive: purpose => createHmac('sha256', secretKey).update(`derived: ${purpose}`).digest(),
  };
}

/** Randomness for many nonces at a time: to ask for each costs as much as sealing. */
class Nonces {
  readonly #bytes = Buffer.allocUnsafeSlow(nonceBytes * 256);
  #used = this.#bytes.length;

  take(into: Buffer, at: number): void {
    if (this.#used === this.#bytes.length) {
      randomFillSync(this.#bytes);
      this.#used = 0;
    }
    this.#bytes.copy(into, at, this.#used, this.#used + nonceBytes);
    this.#used += nonceBytes;
  }
}

function checkHeader(sealed: Uint8Array, header: Buffer): void {
  if (sealed.length < bytesMin) throw damaged('it is too short');
  if (sealed[0] !== formatVersion) throw damaged(`its format ${sealed[0]} is not known`);
  const keyId = Buffer.from(sealed.subarray(1, headerBytes)).toString('hex');
  const ownId = header.toString('hex', 1);
  if (keyId === ownId) return;
  throw new GatewayError(
    'DATA_DIRECTORY_UNUSABLE',
    `The data was sealed by another key: ${keyId}, not ${ownId}.`,
    { remedy: 'Put the key file back that belongs to this data directory.' },
  );
}

function damaged(why: string, cause?: unknown): GatewayError {
  const detail = `Sealed data is damaged: ${why}.`;
  const remedy = 'Restore the data directory from a backup.';
  return new GatewayError('DATA_DIRECTORY_UNUSABLE', detail, { cause, remedy });
}
