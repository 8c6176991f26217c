/** Adds to each call who its caller is, so that functions need not look that up themselves. */
import type { Middleware } from 'fnway/middleware';

const teams: Record<string, string> = { 'web-1': 'shop', 'cron-2': 'reports' };

export default {
  name: 'enrich',
  before(call) {
    const client = call.headers.get('x-client');
    if (client === null) return undefined;
    const team = teams[client];
    // An answer of its own: the function is not called.
    if (team === undefined) return { reply: { status: 403, body: `${client} is unknown` } };
    const headers = new Headers(call.headers);
    headers.set('x-team', team);
    return { call: { headers } };
  },
} satisfies Middleware;
