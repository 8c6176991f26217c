/** Keeps answers to GET for as long as their Cache-Control says, and gives them again without calling the function. */
import type { Middleware, MiddlewareReply } from 'fnway/middleware';

const entriesMax = 1000;
const answers = new Map<string, { reply: MiddlewareReply; untilMs: number }>();

export default {
  name: 'cache',
  wholeBodies: true,
  async around(call, next) {
    // One function's callers may all see the same; those with a token of their own may not.
    if (call.method !== 'GET' || call.caller !== 'anonymous') return next();
    const key = `${call.namespace}/${call.function}@${call.version}${call.path}`;
    const kept = answers.get(key);
    if (kept !== undefined && kept.untilMs > Date.now()) {
      const headers = new Headers(kept.reply.headers);
      headers.set('x-cache', 'hit');
      return { status: kept.reply.status, headers, body: kept.reply.body };
    }
    const reply = await next();
    const seconds = /max-age=(\d+)/.exec(reply.headers.get('cache-control') ?? '')?.[1];
    if (reply.status === 200 && seconds !== undefined) {
      if (answers.size >= entriesMax) answers.delete(answers.keys().next().value!);
      answers.set(key, { reply, untilMs: Date.now() + Number(seconds) * 1000 });
    }
    return reply;
  },
} satisfies Middleware;
