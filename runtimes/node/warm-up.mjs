/**
 * What a generic process does while it waits for LOAD: runs once through everything that a first call needs, so that
 * the engine has compiled it and Node has set up its module loader. A cold call then costs half. Runs nothing of a user's.
 */
import { answerCall, useHandler } from './calls.mjs';
import { endFlag } from './link.mjs';

export async function warmUp() {
  // With a source map, as compiled TypeScript has: Node reads it by a path of its own.
  await import('./warm-up-module.mjs');
  const link = { head() {}, frame() {}, json() {}, drained: true };
  const settings = { function: '', namespace: '', version: 0, bufferedBodyBytesMax: 0 };
  useHandler('web', handler, settings);
  const head = 'GET\0/?a=b\0inv_0\x001000\0Host\0localhost';
  for (let i = 0; i < 3; i++) {
    const chunk = Buffer.from(head, 'latin1');
    answerCall(link, endFlag, 1, chunk, 0, chunk.length, chunk.length, () => {});
  }
}

async function handler(request, context) {
  const { searchParams } = new URL(request.url);
  request.headers.get('host');
  return new Response(`${searchParams.get('a')}${context.callId}`, { headers: { 'x-y': 'z' } });
}
