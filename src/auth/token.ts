/**
 * Tokens of callers: reading one from a request, comparing it, and where the admin token comes
 * from. Who may do what with a token is not decided here. No error and no log line ever contains
 * one.
 */
import { timingSafeEqual } from 'node:crypto';
import { GatewayError } from '../errors.ts';
import { newSecret } from '../ids.ts';
import { openSecretFile } from './secret-file.ts';

/** Shorter ones can be guessed. */
const tokenCharsMin = 16;

/**
 * Whether two tokens are the same, in a time that does not tell how much of them is; their lengths
 * are no secret. Nothing equals an empty token, so that a token that is not set lets nobody in.
 */
export function tokensEqual(given: string, expected: string): boolean {
  if (given.length !== expected.length || given.length === 0) return false;
  const [a, b] = [Buffer.from(given), Buffer.from(expected)];
  // Texts of one length may still differ in bytes: é is two.
  return a.length === b.length && timingSafeEqual(a, b);
}

const authorizationPattern = /^(?:token|bearer) +([\x21-\x7e]+)$/i;

/** The token of an Authorization header: `Bearer X` or `Token X`. Undefined for anything else. */
export function parseAuthorization(header: string | undefined): string | undefined {
  return header === undefined ? undefined : authorizationPattern.exec(header)?.[1];
}

/**
 * The admin token: the one that is configured, or else the one in `file`, which is made at the
 * first start. Throws CONFIG_INVALID for a configured one that is weak or cannot be sent, and
 * DATA_DIRECTORY_UNUSABLE when the file cannot be used, holds no token, or is open to others.
 */
export function openAdminToken(options: { file: string; fromEnv: string | undefined }): string {
  const { file, fromEnv } = options;
  if (fromEnv !== undefined) {
    if (isUsable(fromEnv)) return fromEnv;
    throw new GatewayError('CONFIG_INVALID', `The admin token is not usable: ${tokenRule}.`);
  }
  const token = openSecretFile(file, () => newSecret('fna_'));
  if (isUsable(token)) return token;
  throw new GatewayError('DATA_DIRECTORY_UNUSABLE', `${file}: it holds no token: ${tokenRule}.`, {
    remedy: 'Write a token to it, or remove the file: the next start makes a new one.',
  });
}

const tokenRule = `it needs ${tokenCharsMin} or more visible ASCII characters, without spaces`;

function isUsable(token: string): boolean {
  return token.length >= tokenCharsMin && /^[\x21-\x7e]+$/.test(token);
}
