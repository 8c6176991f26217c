/**
 * A fetch without its five-minute limits: a call may take as long as the function's own timeout
 * allows, and a log may be silent for hours. Loaded only by the commands that need it.
 */
import type { Fetch } from '../../client/client.ts';

export async function patientFetch(): Promise<Fetch> {
  const { Agent, fetch } = await import('undici');
  const dispatcher = new Agent({ headersTimeout: 0, bodyTimeout: 0 });
  // The casts: undici's types and those of the web platform describe the same objects.
  return (url, init) =>
    fetch(url, { ...(init as object), dispatcher }) as unknown as Promise<Response>;
}
