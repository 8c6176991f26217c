/**
 * Notifications: of deploys and of what is dead, to addresses that ask for them. Each is a job, tried until it is taken; one
 * of a death is accepted in the transaction of that death. The same cause within a window is told once.
 */
import { createHash } from 'node:crypto';
import type { DeadLetterGroup, NotificationEvent } from '../../client/api.ts';
import type { Clock } from '../clock.ts';
import type { Registry } from '../deploy/registry.ts';
import type { Resource, Resources } from '../deploy/resources.ts';
import type { VersionFailure } from '../domain/function.ts';
import { bodyOf, notificationLimits } from '../domain/notification.ts';
import type { RecordFailure } from '../domain/record.ts';
import { isoOf, parseDuration } from '../domain/units.ts';
import { GatewayError } from '../errors.ts';
import { newId } from '../ids.ts';
import type { CallSignal, Version } from '../invoke/invoke.ts';
import type { Log } from '../log.ts';
import { attempt, causeOf, type Trial } from '../queue/attempt.ts';
import { callbackRetry, postTrial, sign } from '../queue/callbacks.ts';
import type { CallEnd } from '../queue/calls.ts';
import type { Outbound } from '../queue/outbound.ts';
import { asInput, type Payloads } from '../queue/payloads.ts';
import type { Ending, Queue } from '../queue/queue.ts';
import { jobLimits, type LeasedJob, type NewJob } from '../store/jobs.ts';
import type { Dead } from './deliveries.ts';

export interface NotificationsOptions {
  resources: Resources;
  registry: Pick<Registry, 'byId'>;
  queue: Pick<Queue, 'submit'>;
  payloads: Payloads;
  outbound: Pick<Outbound, 'post'>;
  secretOf(namespace: string, name: string): string | undefined;
  signingKeyOf(id: string): string;
  clock: Clock;
  log: Log;
  random(): number;
}

/** To one address at once. */
export const notificationsRunningMax = 4;

type Notification = Resource<'notification'>;

export class Notifications {
  readonly #options: NotificationsOptions;

  constructor(options: NotificationsOptions) {
    this.#options = options;
  }

  ofDelivery({ id, subscription, attempts, cause, told }: Dead): Promise<NewJob[]> {
    const { id: lane, namespace, name } = subscription.row;
    return this.#about(
      {
        ...this.#dead('delivery', { namespace, invocation: id, attempts, cause, message: told }),
        subscription: name,
      },
      `${lane} ${cause}`,
    );
  }

  ofCall({ job, head, result }: CallEnd): Promise<NewJob[]> {
    const { failure, status, attempts } = result;
    const { id: invocation, namespace, functionId } = job;
    const cause = causeOf({ last: { status }, ...(failure !== undefined && { failure }) });
    const message = failure?.message;
    const facts = { namespace, invocation, attempts: attempts.length, cause, message };
    return this.#about(
      { ...this.#dead('call', facts), function: head.name },
      `${functionId} ${cause}`,
    );
  }

  ofCallback(
    { id: invocation, namespace, functionId, attempts }: LeasedJob,
    { cause, told: message }: { cause: string; told: string | undefined },
  ): Promise<NewJob[]> {
    const facts = { namespace, invocation, attempts: attempts + 1, cause, message };
    const name = this.#options.registry.byId(functionId)?.row.name ?? functionId;
    return this.#about(
      { ...this.#dead('callback', facts), function: name },
      `callback ${functionId} ${cause}`,
    );
  }

  /** Has no transaction of the queue to be in: accepted as soon as it has happened. */
  ofDeploy(version: Version, failure: VersionFailure | undefined): void {
    const { queue, log, clock } = this.#options;
    const { namespace, name, number, functionId } = version;
    const event: NotificationEvent = {
      event: failure === undefined ? 'deploy-succeeded' : 'deploy-failed',
      ...{ namespace, at: isoOf(clock.now()), function: name, version: number },
      ...(failure !== undefined && { message: placedMessage(failure) }),
    };
    void this.#about(event, `${functionId} ${number}`)
      .then(async jobs => {
        if (jobs.length > 0) await queue.submit(jobs);
      })
      .catch(error => log.error('a notification could not be accepted', { error }));
  }

  #dead(
    kind: DeadLetterGroup['kind'],
    {
      message,
      ...facts
    }: {
      namespace: string;
      invocation: string;
      attempts: number;
      cause: string;
      message: string | undefined;
    },
  ): NotificationEvent {
    const at = isoOf(this.#options.clock.now());
    return {
      ...{ event: 'dead-letter', at, kind, ...facts },
      ...(message !== undefined && { message }),
    };
  }

  /** What is to be accepted with what it tells of. `sameAs`: what makes two events one within a window. */
  async #about(event: NotificationEvent, sameAs: string): Promise<NewJob[]> {
    const { message } = event;
    const short = message?.slice(0, notificationLimits.notificationMessageCharsMax);
    const told = { ...event, ...(short !== undefined && { message: short }) };
    const jobs: NewJob[] = [];
    for (const notification of this.#options.resources.all('notification')) {
      const { row, definition } = notification;
      const isAsked = row.namespace === event.namespace && definition.on.includes(event.event);
      if (isAsked && !row.isPaused) jobs.push(await this.#jobOf(notification, told, sameAs));
    }
    return jobs;
  }

  async #jobOf(
    { row, definition }: Notification,
    event: NotificationEvent,
    sameAs: string,
  ): Promise<NewJob> {
    const { payloads, clock } = this.#options;
    const nowMs = clock.now();
    const { id: lane, namespace } = row;
    const windowMs = parseDuration(definition.window)!;
    const key = createHash('sha256').update(`${lane}\n${event.event}\n${sameAs}`).digest('hex');
    return {
      ...{ id: newId('inv', nowMs), kind: 'notification', namespace, functionId: lane },
      lane: { id: lane, runningMax: notificationsRunningMax, waitingMax: 1_000_000 },
      ...{ priority: jobLimits.priorityDefault, acceptedMs: nowMs, dueMs: nowMs },
      ...(windowMs > 0 && {
        idempotency: { key: `notified ${key}`, digest: '', untilMs: nowMs + windowMs },
      }),
      ...asInput(await payloads.keep(event, new Uint8Array(0))),
    };
  }

  /** See `Run`. */
  readonly run = (job: LeasedJob, signal: CallSignal): Promise<Ending> => {
    const { resources, log } = this.#options;
    const notification = resources.byId(job.lane) as Notification | undefined;
    return attempt(
      job,
      {
        open: async () => {},
        tryOnce: () => this.#try(job, notification, signal),
        policy: () => callbackRetry,
        firstDueMs: () => job.acceptedMs,
        async finish({ state, trial }) {
          if (state === 'succeeded') return { keepsInput: false, inputBlob: job.inputBlob };
          if (notification === undefined)
            return { state: 'cancelled', keepsInput: false, inputBlob: job.inputBlob };
          const { name } = notification.row;
          log.warn('a notification was given up', { name, why: trial.failure?.message });
          return { keepsInput: true, cause: causeOf(trial) };
        },
      },
      this.#options,
    );
  };

  async #try(
    job: LeasedJob,
    notification: Notification | undefined,
    signal: CallSignal,
  ): Promise<Trial> {
    const { payloads, signingKeyOf, secretOf, clock } = this.#options;
    const { sealedInput: sealed, inputBlob: blob } = job;
    const input = await payloads.open<NotificationEvent>({ sealed, blob }).catch(() => undefined);
    if (input === undefined)
      throw new GatewayError('JOB_LOST', 'the input of the job is gone, or damaged');
    if (notification === undefined)
      throw new GatewayError('RESOURCE_NOT_FOUND', 'the notification has been removed');
    const { row, definition } = notification;
    const { url = secretOf(row.namespace, definition.secret!) } = definition;
    if (url === undefined || !URL.canParse(url)) {
      const message = `the secret ${definition.secret} is missing, or no address`;
      const failure: RecordFailure = { kind: 'system', code: 'SECRET_MISSING', message };
      return { last: { status: 503, reason: 'SECRET_MISSING' }, failure };
    }
    const body = Buffer.from(bodyOf(definition.format, input.head));
    const headers = {
      'Content-Type': 'application/json',
      'X-Fnway-Event': input.head.event,
      'X-Fnway-Notification': row.name,
      'X-Fnway-Signature': sign(signingKeyOf(row.id), clock.now(), body),
    };
    return postTrial(this.#options, { url, request: { headers, body } }, signal);
  }
}

/** With the file and the line where they are known. */
function placedMessage({ message, file, line }: VersionFailure): string {
  if (file === undefined) return message;
  return `${file}${line === undefined ? '' : `:${line}`}: ${message}`;
}
