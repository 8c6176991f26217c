/**
 * `POST /webhook/{name}[.{namespace}][/path]`: what somebody posts is verified, and becomes a job of the webhook's function.
 * Without a right signature nobody learns whether there is such a webhook.
 */
import { verify } from '../auth/signatures.ts';
import type { Clock } from '../clock.ts';
import type { FunctionEntry, Registry } from '../deploy/registry.ts';
import type { Resource, Resources } from '../deploy/resources.ts';
import type { Secrets } from '../deploy/secrets.ts';
import { type Alert, alertsIn, alertsPayloadSchema, bodyOf, isWanted } from '../domain/alert.ts';
import { parseDuration } from '../domain/units.ts';
import { jsonOf, textAt } from '../domain/webhook.ts';
import { GatewayError } from '../errors.ts';
import { newTraceparent } from '../ids.ts';
import type { HeaderPairs, Version } from '../invoke/invoke.ts';
import type { Log } from '../log.ts';
import type { Calls } from '../queue/calls.ts';
import type { Exchange } from './exchange.ts';
import { malformedJson } from './malformed-json.ts';
import { parse } from './parse.ts';
import { queuedFunctionOf } from './queued-function.ts';
import type { Reading } from './reading.ts';
import type { WholeBodies } from './whole-bodies.ts';

export interface WebhooksOptions {
  resources: Pick<Resources, 'get'>;
  registry: Pick<Registry, 'get'>;
  secrets: Pick<Secrets, 'valueOf'>;
  calls: Pick<Calls, 'submit'>;
  refuseInput(version: Version, body: Uint8Array): Promise<GatewayError | undefined>;
  /** Something has changed in a bucket. */
  lookNow(bucket: Resource<'bucket'>): void;
  bodies: WholeBodies;
  clock: Clock;
  log: Log;
}

type Webhook = Resource<'webhook'>;

const alertsAtOnce = 100;

interface Arrived {
  webhook: Webhook;
  entry: FunctionEntry;
  /** Of the event, where its sender gives one. */
  eventId: string | undefined;
  body: Uint8Array;
}

export class Webhooks {
  readonly #options: WebhooksOptions;

  constructor(options: WebhooksOptions) {
    this.#options = options;
  }

  /** Answers 202 once it is on disk. Throws what it is refused with. */
  async receive(exchange: Exchange, reading: Reading): Promise<void> {
    const { method } = exchange.head;
    if (method !== 'POST') {
      const detail = `${method} is not for webhooks; they take POST`;
      throw new GatewayError('METHOD_NOT_ALLOWED', detail);
    }
    await this.#options.bodies.whole(exchange, body => this.#receive(exchange, reading, body));
  }

  async #receive(exchange: Exchange, reading: Reading, body: Uint8Array): Promise<void> {
    const { resources, registry } = this.#options;
    const { namespace, name } = reading.address;
    const webhook = resources.get('webhook', namespace, name);
    const eventId = this.#verified(webhook, { body, headers: headersOf(exchange.head.headers) });
    if (webhook === undefined) throw denied();
    const { definition, row } = webhook;
    const challenge = slackChallenge(webhook, body);
    if (challenge !== undefined) return answer(exchange, 200, challenge, 'text/plain');
    if (row.isPaused)
      throw new GatewayError('WEBHOOK_PAUSED', `webhook ${name} is paused`, {
        retryAfterMs: 60_000,
      });
    if (definition.bucket !== undefined) {
      const bucket = resources.get('bucket', namespace, definition.bucket);
      if (bucket !== undefined) this.#options.lookNow(bucket);
      return answer(exchange, 202, '{}', 'application/json');
    }
    const entry = registry.get(namespace, definition.function!);
    if (entry === undefined)
      throw new GatewayError('FUNCTION_NOT_FOUND', `${definition.function} has been removed`);
    const arrived = { webhook, entry, eventId, body };
    if (definition.alerts !== undefined) return this.#alerts(exchange, reading, arrived);
    const headers = withoutToken(reading.headersFor(true), webhook);
    const { target, callId } = { target: reading.address.rest, callId: reading.incoming.callId };
    const id = await this.#submit(arrived, { body, headers, target, eventId });
    const location = `/v1/namespaces/${namespace}/invocations/${id}`;
    answer(exchange, 202, JSON.stringify({ id, location }), 'application/json', {
      ...{ location, callId: callId ?? id },
    });
  }

  /** The id of the event. Throws UNAUTHENTICATED. */
  #verified(
    webhook: Webhook | undefined,
    received: { headers: ReadonlyMap<string, string>; body: Uint8Array },
  ): string | undefined {
    const { secrets, clock, log } = this.#options;
    if (webhook === undefined) {
      // As long as it takes where there is one.
      const rule = { kind: 'github', secret: '' } as const;
      verify(rule, received, { secret: 'of nobody', nowMs: clock.now() });
      return undefined;
    }
    const { row, definition } = webhook;
    const rule = definition.verify;
    const secret = 'secret' in rule ? secrets.valueOf(row.namespace, rule.secret) : undefined;
    if ('secret' in rule && secret === undefined)
      log.warn('the secret of a webhook is missing', { webhook: row.name, secret: rule.secret });
    const verified = verify(rule, received, { secret, nowMs: clock.now() });
    if (verified === 'wrong') throw denied();
    if (verified !== 'stale') return verified.id;
    const detail =
      'the signature is right and too old, or from the future: sent again, or by a clock that is wrong';
    throw new GatewayError('UNAUTHENTICATED', detail);
  }

  /** A call for each alert that is wanted and was not there a moment ago. */
  async #alerts(exchange: Exchange, reading: Reading, arrived: Arrived): Promise<void> {
    const { clock } = this.#options;
    const rules = arrived.webhook.definition.alerts!;
    const payload = jsonOf(arrived.body);
    if (payload === undefined) throw malformedJson(Buffer.from(arrived.body).toString());
    const alerts = alertsIn(parse(alertsPayloadSchema, payload, 'INPUT_INVALID'), clock.now());
    const wanted = alerts.filter(alert => isWanted(rules, alert));
    const windowMs = parseDuration(rules.window)!;
    const submit = async (alert: Alert): Promise<string> => {
      const body = Buffer.from(bodyOf(rules, alert));
      const headers = ['Content-Type', 'application/json', 'X-Fnway-Alert', alert.fingerprint];
      const eventId =
        windowMs === 0 ? undefined : `${alert.fingerprint} ${alert.status} ${alert.startsAt}`;
      const given = { body, headers, target: reading.address.rest, eventId };
      return this.#submit(arrived, { ...given, ...(windowMs > 0 && { windowMs }) });
    };
    const ids: string[] = [];
    // Many at a time share a sync of the disk.
    for (let i = 0; i < wanted.length; i += alertsAtOnce)
      ids.push(...(await Promise.all(wanted.slice(i, i + alertsAtOnce).map(submit))));
    const ignored = alerts.length - wanted.length;
    answer(exchange, 202, JSON.stringify({ invocations: ids, ignored }), 'application/json');
  }

  async #submit(
    { webhook, entry }: Arrived,
    given: {
      body: Uint8Array;
      headers: HeaderPairs;
      target: string;
      eventId: string | undefined;
      windowMs?: number;
    },
  ): Promise<string> {
    const { calls, refuseInput } = this.#options;
    const { body, headers, target, eventId, windowMs } = given;
    const version = entry.active;
    const refusal = version && (await refuseInput(version, body));
    if (refusal !== undefined) throw refusal;
    const submission = {
      function: queuedFunctionOf(entry),
      head: {
        ...{ name: entry.row.name, method: 'POST', target, headers, caller: 'trigger' as const },
        traceparent: newTraceparent(),
        trigger: { origin: 'webhook' as const, name: webhook.row.name },
      },
      body,
    };
    if (eventId === undefined) return (await calls.submit(submission)).id;
    const key = { idempotencyKey: `webhook ${webhook.row.id} ${eventId}` };
    const window = windowMs === undefined ? {} : { idempotencyMs: windowMs };
    try {
      return (await calls.submit({ ...submission, ...key, ...window })).id;
    } catch (error) {
      // The same name for something else: a sender that uses its names twice. Nothing of it is lost.
      if ((error as GatewayError).code !== 'IDEMPOTENCY_CONFLICT') throw error;
      return (await calls.submit(submission)).id;
    }
  }
}

/** The last of a name counts, as for most servers. */
function headersOf(pairs: HeaderPairs): Map<string, string> {
  const found = new Map<string, string>();
  for (let i = 0; i < pairs.length; i += 2) found.set(pairs[i]!.toLowerCase(), pairs[i + 1]!);
  return found;
}

/** What was checked here is not passed on. */
function withoutToken(
  headers: HeaderPairs,
  { definition: { verify: rule } }: Webhook,
): HeaderPairs {
  if (rule.kind !== 'token') return headers;
  return headers.filter((_, i) => headers[i - (i % 2)]!.toLowerCase() !== rule.header);
}

/** Slack asks once, when the address is entered, whether somebody is there who knows the secret. */
function slackChallenge({ definition }: Webhook, body: Uint8Array): string | undefined {
  if (definition.verify.kind !== 'slack' || textAt(body, 'type') !== 'url_verification')
    return undefined;
  return textAt(body, 'challenge');
}

function denied(): GatewayError {
  const detail = 'the signature is missing or wrong, or there is no such webhook';
  return new GatewayError('UNAUTHENTICATED', detail, {
    remedy: 'See that the sender has the secret that the webhook names, and signs as it says.',
  });
}

function answer(
  exchange: Exchange,
  status: number,
  text: string,
  type: string,
  { location, callId }: { location?: string; callId?: string } = {},
): void {
  exchange.respond({
    status,
    headers: [...['Content-Type', type], ...(location === undefined ? [] : ['Location', location])],
    mayRepeat: false,
    ownHeaders: callId === undefined ? [] : ['X-Call-Id', callId],
    body: Buffer.from(`${text}${type === 'text/plain' ? '' : '\n'}`),
  });
}
