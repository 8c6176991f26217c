/**
 * Requests to addresses that callers name: callbacks, pushes, notifications. What the name of a host comes to is checked
 * where the connection is made, so that no name can come to one address when it is looked at and to another when it is used.
 * Redirects are not followed.
 */
import { lookup as systemLookup } from 'node:dns';
import type { ClientRequest, IncomingMessage, RequestOptions } from 'node:http';
import { BlockList, isIP, isIPv6, type LookupFunction } from 'node:net';
import type { Clock } from '../clock.ts';
import { GatewayError } from '../errors.ts';
import type { CallSignal } from '../invoke/invoke.ts';

export const outboundLimits = {
  /** Until the answer's head is there. */
  answerMsMax: 30_000,
} as const;

export interface OutboundAnswer {
  status: number;
  retryAfter: string | undefined;
}

export interface OutboundRequest {
  headers: Record<string, string>;
  body: Uint8Array;
  /** Until the answer's head is there. */
  answerMsMax?: number;
}

export interface OutboundOptions {
  /** No address is refused. */
  allowPrivate: boolean;
  clock: Clock;
  /** Of names; the system's when absent. */
  lookup?: LookupFunction;
}

/** Networks of nobody's public machines, by RFC 6890 and its updates, and Azure's own host. */
const privateNetworks: ReadonlyArray<[string, number]> = [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.0.2.0', 24],
  ['192.88.99.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['198.51.100.0', 24],
  ['203.0.113.0', 24],
  ['224.0.0.0', 4],
  ['240.0.0.0', 4],
  ['168.63.129.16', 32],
  ['::', 96],
  ['::ffff:0:0:0', 96],
  ['64:ff9b::', 96],
  ['64:ff9b:1::', 48],
  ['100::', 64],
  ['2001::', 23],
  ['2001:db8::', 32],
  ['2002::', 16],
  ['3fff::', 20],
  ['5f00::', 16],
  ['fc00::', 7],
  ['fe80::', 9],
  ['ff00::', 8],
];

const refusedNetworks = new BlockList();
for (const [network, prefix] of privateNetworks)
  refusedNetworks.addSubnet(network, prefix, isIPv6(network) ? 'ipv6' : 'ipv4');

/** Whether an address, as text, is one that callers may name. */
export function isPublic(address: string): boolean {
  const family = isIP(address);
  return family !== 0 && !refusedNetworks.check(address, family === 6 ? 'ipv6' : 'ipv4');
}

export class Outbound {
  readonly #options: OutboundOptions;

  constructor(options: OutboundOptions) {
    this.#options = options;
  }

  /** Throws ADDRESS_REFUSED for an address, or a name, that is private by itself: a name's addresses come later. */
  check(url: string): void {
    if (this.#options.allowPrivate) return;
    const { hostname } = new URL(url);
    const host = hostname.replace(/^\[|\]$/g, '');
    const isLocal = /^(?:.*\.)?localhost\.?$/i.test(host);
    if (isLocal || (isIP(host) !== 0 && !isPublic(host))) throw refusal(host);
  }

  /** Rejects with ADDRESS_REFUSED, with UPSTREAM_UNREACHABLE when no answer came, or with the signal's reason. */
  async post(
    url: string,
    { headers, body, answerMsMax = outboundLimits.answerMsMax }: OutboundRequest,
    signal: CallSignal,
  ): Promise<OutboundAnswer> {
    this.check(url);
    const { request } =
      new URL(url).protocol === 'https:' ? await import('node:https') : await import('node:http');
    const options: RequestOptions = {
      method: 'POST',
      headers: { ...headers, 'content-length': String(body.length) },
      // A connection for each: what is kept open could lead elsewhere than what was checked.
      agent: false,
      lookup: this.#lookup,
    };
    return new Promise((resolve, reject) => {
      const sent: ClientRequest = request(url, options);
      const { clock } = this.#options;
      const fail = (error: Error) => {
        late.cancel();
        reject(signal.reason ?? asFailure(error, url));
        sent.destroy();
      };
      const late = clock.after(answerMsMax, () =>
        fail(new Error(`no answer within ${answerMsMax / 1000} s`)),
      );
      signal.onAbort(fail);
      sent.on('response', (response: IncomingMessage) => {
        late.cancel();
        resolve({ status: response.statusCode!, retryAfter: response.headers['retry-after'] });
        // Whatever it says is of no use.
        response.destroy();
      });
      // Without a listener a server that upgrades would be heard of no more.
      sent.on('upgrade', (_response, socket) => {
        socket.destroy();
        fail(new Error('it answered 101, which nobody asked for'));
      });
      sent.on('error', fail);
      sent.on('close', () => fail(new Error('the connection was closed')));
      sent.end(body);
    });
  }

  readonly #lookup: LookupFunction = (hostname, options, callback) => {
    const lookup = this.#options.lookup ?? (systemLookup as LookupFunction);
    lookup(hostname, { ...options, all: true }, (error, found) => {
      if (error !== null) return callback(error, []);
      const all = Array.isArray(found) ? found : [];
      const allowed = all.filter(({ address }) => this.#options.allowPrivate || isPublic(address));
      const [first] = allowed;
      if (first === undefined) return callback(refusal(hostname), []);
      if (options.all) callback(null, allowed);
      else callback(null, first.address, first.family);
    });
  };
}

function refusal(host: string): GatewayError {
  const detail = `${host} is not a public address: it leads into a private network, or to this machine`;
  return new GatewayError('ADDRESS_REFUSED', detail);
}

function asFailure(error: Error & { code?: string }, url: string): GatewayError {
  if (error instanceof GatewayError) return error;
  const detail = `${new URL(url).host} does not answer: ${error.message || error.code}`;
  return new GatewayError('UPSTREAM_UNREACHABLE', detail, { cause: error });
}
