/**
 * Whether what is posted to a webhook comes from who it says. Pure: told the time and the secret. The schemes are those of
 * the senders' own documents: GitHub, Stripe, Slack, Standard Webhooks 1.0, and HMAC in general.
 */
import { createHmac } from 'node:crypto';
import type { WebhookVerify } from '../../client/api.ts';
import { parseDuration } from '../domain/units.ts';
import { textAt } from '../domain/webhook.ts';
import { tokensEqual } from './token.ts';

export interface Received {
  /** By name in lower case. */
  headers: ReadonlyMap<string, string>;
  body: Uint8Array;
}

/** `stale`: signed, and too old, or from the future. `id`: of the event, where its sender gives one. */
export type Verified = { id?: string } | 'wrong' | 'stale';

/** In constant time for what is signed. `secret` is undefined where the kind needs none, or it was removed. */
export function verify(
  rule: WebhookVerify,
  received: Received,
  { secret, nowMs }: { secret: string | undefined; nowMs: number },
): Verified {
  if (rule.kind === 'none') return {};
  const signed = secret === undefined ? undefined : signedBy(rule, received, secret);
  if (signed === undefined) return 'wrong';
  const { id, seconds } = signed;
  if (seconds !== undefined && 'window' in rule) {
    const ageMs = Math.abs(nowMs - Number(seconds) * 1000);
    if (!(ageMs <= parseDuration(rule.window)!)) return 'stale';
  }
  return id ? { id } : {};
}

/** What a right signature says beside the body: of which event, and when. */
interface Signed {
  id?: string | undefined;
  seconds?: string;
}

function signedBy(
  rule: Exclude<WebhookVerify, { kind: 'none' }>,
  received: Received,
  secret: string,
): Signed | undefined {
  switch (rule.kind) {
    case 'github':
      return byGithub(received, secret);
    case 'stripe':
      return byStripe(received, secret);
    case 'slack':
      return bySlack(received, secret);
    case 'standard':
      return byStandard(received, secret);
    case 'hmac':
      return byHmac(rule, received, secret);
    case 'token':
      return byToken(rule, received, secret);
  }
}

function sign(algorithm: string, secret: string | Buffer, ...parts: Array<string | Uint8Array>) {
  const hmac = createHmac(algorithm, secret);
  for (const part of parts) hmac.update(part);
  return hmac;
}

function byGithub({ headers, body }: Received, secret: string): Signed | undefined {
  const expected = `sha256=${sign('sha256', secret, body).digest('hex')}`;
  const isSigned = tokensEqual(headers.get('x-hub-signature-256') ?? '', expected);
  return isSigned ? { id: headers.get('x-github-delivery') } : undefined;
}

function byStripe({ headers, body }: Received, secret: string): Signed | undefined {
  const parts = (headers.get('stripe-signature') ?? '')
    .split(',')
    .map(part => part.trim().split('='));
  const seconds = parts.find(([key]) => key === 't')?.[1] ?? '';
  const expected = sign('sha256', secret, `${seconds}.`, body).digest('hex');
  // Several, while a secret is changed.
  const isSigned = parts.some(([key, value]) => key === 'v1' && tokensEqual(value ?? '', expected));
  return isSigned ? { seconds, id: textAt(body, 'id') } : undefined;
}

function bySlack({ headers, body }: Received, secret: string): Signed | undefined {
  const seconds = headers.get('x-slack-request-timestamp') ?? '';
  const expected = `v0=${sign('sha256', secret, `v0:${seconds}:`, body).digest('hex')}`;
  const isSigned = tokensEqual(headers.get('x-slack-signature') ?? '', expected);
  return isSigned ? { seconds, id: textAt(body, 'event_id') } : undefined;
}

function byStandard({ headers, body }: Received, secret: string): Signed | undefined {
  const [id, seconds] = [headers.get('webhook-id'), headers.get('webhook-timestamp') ?? ''];
  const text = secret.replace(/^whsec_/, '');
  // What is no base64 would be a key that anybody knows: none.
  if (!/^[A-Za-z0-9+/]{16,}={0,2}$/.test(text)) return undefined;
  const key = Buffer.from(text, 'base64');
  const expected = sign('sha256', key, `${id}.${seconds}.`, body).digest('base64');
  const isSigned = (headers.get('webhook-signature') ?? '')
    .split(' ')
    .some(part => part.startsWith('v1,') && tokensEqual(part.slice(3), expected));
  return isSigned ? { seconds, id } : undefined;
}

function byHmac(
  rule: WebhookVerify & { kind: 'hmac' },
  { headers, body }: Received,
  secret: string,
): Signed | undefined {
  const { algorithm, encoding, prefix, header, timestampHeader, idHeader } = rule;
  const seconds = timestampHeader === undefined ? undefined : (headers.get(timestampHeader) ?? '');
  const parts = seconds === undefined ? [body] : [`${seconds}.`, body];
  const expected = `${prefix}${sign(algorithm, secret, ...parts).digest(encoding)}`;
  if (!tokensEqual(headers.get(header) ?? '', expected)) return undefined;
  const id = idHeader === undefined ? undefined : headers.get(idHeader);
  return { id, ...(seconds !== undefined && { seconds }) };
}

function byToken(
  { header, idHeader }: WebhookVerify & { kind: 'token' },
  { headers }: Received,
  secret: string,
): Signed | undefined {
  const given = headers.get(header) ?? '';
  const token = header === 'authorization' ? given.replace(/^Bearer +/i, '') : given;
  if (!tokensEqual(token, secret)) return undefined;
  return { id: idHeader === undefined ? undefined : headers.get(idHeader) };
}
