/**
 * What a generic process does while it waits for LOAD: becomes an instance of a function of our own and answers it, until
 * the engine has compiled what a first call needs. A cold call then takes half as long. Runs nothing of a user's, and
 * takes no other identity.
 */
import { answerCall } from './calls.mjs';
import { becomeInstance, LoadText } from './instance.mjs';
import { endFlag } from './link.mjs';

/** Fewer leave parts of it interpreted; more are no faster, and take a processor from the call before. */
const rounds = 12;

export async function warmUp() {
  for (let round = 0; round < rounds; round++) {
    const frame = Buffer.from(JSON.stringify(loadOf(round)));
    const { problem } = await becomeInstance(new LoadText().add(endFlag, frame, 0, frame.length));
    if (problem !== undefined) throw new Error(problem.message);
    const head = `GET\0/?a=b\0inv_0\x001000\0X-Call-Id\0${round}\0Traceparent\0${round}\0Host\0localhost`;
    const chunk = Buffer.from(head, 'latin1');
    answerCall(nowhere, endFlag, 1, chunk, 0, chunk.length, chunk.length, () => {});
  }
  process.chdir('/');
}

function loadOf(round) {
  return {
    directory: import.meta.dirname,
    entry: 'warm-up.fnway.mjs',
    // Another address each time: a module is loaded once.
    query: `?${round}`,
    env: { ...process.env },
    function: '',
    namespace: '',
    version: 0,
    bufferedBodyBytesMax: 0,
  };
}

const nowhere = { head() {}, frame() {}, json() {}, drained: true };
