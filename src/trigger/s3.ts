/**
 * What a bucket of a store behind S3 holds: ListObjectsV2, a page at a time, in the order of the keys' bytes, as the API has it.
 * Addresses are `ENDPOINT/BUCKET`, which every such store understands.
 */
import type { S3Place } from '../../client/api.ts';
import { GatewayError } from '../errors.ts';
import type { FoundObject } from './found-object.ts';

export interface S3Credentials {
  accessKey: string;
  secretKey: string;
}

/** Of one request. */
const answerMsMax = 30_000;

/** Throws UPSTREAM_UNREACHABLE, with what the store says. */
export async function* listS3(
  { endpoint, region, bucket }: S3Place,
  { accessKey, secretKey }: S3Credentials,
  { prefix, signal }: { prefix: string; signal: AbortSignal },
): AsyncGenerator<FoundObject> {
  const { AwsClient } = await import('aws4fetch');
  const client = new AwsClient({
    ...{ accessKeyId: accessKey, secretAccessKey: secretKey, service: 's3', region },
    retries: 0,
  });
  let token: string | undefined;
  do {
    const url = new URL(`${endpoint.replace(/\/+$/, '')}/${encodeURIComponent(bucket)}`);
    // Keys may have any character, XML does not.
    const query = { 'list-type': '2', 'encoding-type': 'url', prefix };
    for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
    if (token !== undefined) url.searchParams.set('continuation-token', token);
    const text = await answerTo(client, url, signal);
    for (const [, entry] of text.matchAll(/<Contents>(.*?)<\/Contents>/gs)) yield foundIn(entry!);
    token =
      field(text, 'IsTruncated') === 'true' ? field(text, 'NextContinuationToken') : undefined;
  } while (token !== undefined);
}

async function answerTo(
  client: { sign(url: string): Promise<Request> },
  url: URL,
  signal: AbortSignal,
): Promise<string> {
  let response: Response;
  let text: string;
  try {
    const request = await client.sign(String(url));
    response = await fetch(request, {
      redirect: 'error',
      signal: AbortSignal.any([signal, AbortSignal.timeout(answerMsMax)]),
    });
    text = await response.text();
  } catch (cause) {
    const { message, cause: inner } = cause as Error;
    const why = (inner as Error | undefined)?.message ?? message;
    throw new GatewayError('UPSTREAM_UNREACHABLE', `${url.host} does not answer: ${why}`, {
      cause,
    });
  }
  if (response.ok && text.includes('<ListBucketResult')) return text;
  const code = field(text, 'Code');
  const detail = `${url.host} answered ${response.status}${code === undefined ? '' : ` ${code}`}`;
  throw new GatewayError('UPSTREAM_UNREACHABLE', detail, {
    remedy: 'See that endpoint, bucket and both secrets are right, and that the keys may list it.',
  });
}

function foundIn(entry: string): FoundObject {
  const modifiedMs = Date.parse(field(entry, 'LastModified') ?? '');
  const etag = (field(entry, 'ETag') ?? '').replaceAll('"', '');
  return {
    key: decodeURIComponent((field(entry, 'Key') ?? '').replaceAll('+', ' ')),
    bytes: Number(field(entry, 'Size') ?? 0),
    ...{ modifiedMs, changedMs: modifiedMs, content: etag },
    // Metadata are not listed: to change them is to write the same content anew.
    metadata: String(modifiedMs),
    isUnsettled: false,
  };
}

/** Of a list whose values are plain, or percent-encoded: no parser is needed for its one shape. */
function field(text: string, name: string): string | undefined {
  const value = new RegExp(`<${name}>([^<]*)</${name}>`).exec(text)?.[1];
  return value
    ?.replaceAll('&quot;', '"')
    .replaceAll('&#34;', '"')
    .replaceAll('&lt;', '<')
    .replaceAll('&gt;', '>')
    .replaceAll('&amp;', '&');
}
