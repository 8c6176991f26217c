/** The wire types of what brings functions their calls: schedules, topics and subscriptions, webhooks; and what is dead. */
import type { AttemptView, RetryView } from './api.ts';

/** What brings a function its calls by the clock. Either `cron`, or `every` with or without a `start`. */
export interface ScheduleDefinition {
  function: string;
  /** Five fields, or six with seconds first. */
  cron?: string | undefined;
  /** Of the cron expression: a name of the IANA list; `UTC` when absent. */
  timezone?: string | undefined;
  start?: string | undefined;
  every?: string | undefined;
  /** JSON; a string is sent as text. */
  body?: unknown;
  /** When a slot comes while the call of an earlier one has not ended: both, none, or one after the other. */
  overlap: 'allow' | 'skip' | 'queue';
  /** What becomes of slots that came while no gateway ran: none, the last, or the last `catchUpMax`. */
  catchUp: 'none' | 'one' | 'all';
  catchUpMax: number;
  description: string;
}

/** What became of a slot. */
export interface SlotView {
  at: string;
  outcome: 'fired' | 'skipped' | 'missed' | 'by-hand';
  decidedAt: string;
  invocation?: string;
}

/** Where messages are published; its subscriptions bring them to functions and others. */
export interface TopicDefinition {
  /** How long messages are kept for subscriptions that go back in time; when absent, until they are delivered. */
  retention?: string | undefined;
  description: string;
}

/** Of an attribute: it is this, or one of these; begins so; is not this, or none of these; is there or not. */
export type FilterRule =
  | string
  | string[]
  | { prefix: string }
  | { not: string | string[] }
  | { exists: boolean };

/** Brings each message of a topic to one of `function`, `push` and whoever pulls. */
export interface SubscriptionDefinition {
  topic: string;
  function?: string | undefined;
  push?: { url: string } | undefined;
  pull?: true | undefined;
  /** By attribute: every rule must hold. */
  filter?: Record<string, FilterRule> | undefined;
  retry: RetryView;
  /** The topic that gets a copy of what is dead. */
  deadLetter?: string | undefined;
  /** Of push and pull: what is not acknowledged until then is tried again. */
  ackDeadline?: string;
  /** `wrapped`: as Pub/Sub pushes it, as JSON; `raw`: the data as it is. */
  payload: 'wrapped' | 'raw';
  /** Delivered at once. */
  concurrency?: number | undefined;
  /** Deliveries that may wait. */
  waiting: number;
  description: string;
}

export interface SubscriptionView extends ResourceView<SubscriptionDefinition> {
  /** Deliveries, a moment ago. */
  waiting: number;
  running: number;
}

/** How a webhook knows who sends it. `secret` is the name of one. */
export type WebhookVerify =
  | { kind: 'github'; secret: string }
  /** `window`: how old, or how far ahead, what is signed with its time may be. */
  | { kind: 'stripe' | 'slack' | 'standard'; secret: string; window: string }
  | {
      kind: 'hmac';
      secret: string;
      /** Where the signature is, behind a `prefix`. */
      header: string;
      prefix: string;
      algorithm: 'sha256' | 'sha1' | 'sha512';
      encoding: 'hex' | 'base64';
      /** Seconds since 1970: then what is signed is `SECONDS.BODY`. */
      timestampHeader?: string | undefined;
      /** Names the event: a second one of the same name is the same invocation. */
      idHeader?: string | undefined;
      window: string;
    }
  | { kind: 'token'; secret: string; header: string; idHeader?: string | undefined }
  | { kind: 'none' };

/** What a webhook of Alertmanager makes of its alerts: a call for each that is wanted. */
export interface AlertRules {
  status: 'firing' | 'resolved' | 'all';
  /** By label. */
  match?: Record<string, FilterRule> | undefined;
  /** What the function is sent: texts with `{{ labels.NAME }}` and the like. The alert itself when absent. */
  parameters?: Record<string, string> | undefined;
  /** The same alert within this time is the same call. */
  window: string;
}

/** Calls a function with what somebody posts to `/webhook/NAME`, once it is known who sends it. */
export interface WebhookDefinition {
  function?: string | undefined;
  /** Instead of a function: a bucket that is looked at now. */
  bucket?: string | undefined;
  verify: WebhookVerify;
  alerts?: AlertRules | undefined;
  description: string;
}

export interface WebhookView extends ResourceView<WebhookDefinition> {
  /** Where it is posted to on this gateway: `/webhook/push`. */
  path: string;
}

/** Tells an address of deploys and of what is dead. */
export interface NotificationDefinition {
  /** Either the address, or the name of the secret that is it. */
  url?: string | undefined;
  secret?: string | undefined;
  /** `slack`: `{ text }`, as its incoming webhooks take it. */
  format: 'json' | 'slack';
  on: Array<NotificationEvent['event']>;
  /** The same cause within this time is told once. */
  window: string;
  description: string;
}

/** What a notification tells; as JSON with a `text` for people. */
export interface NotificationEvent {
  event: 'deploy-succeeded' | 'deploy-failed' | 'dead-letter';
  namespace: string;
  at: string;
  function?: string;
  version?: number;
  subscription?: string;
  /** Of what is dead. */
  kind?: DeadLetterGroup['kind'];
  invocation?: string;
  cause?: string;
  attempts?: number;
  /** Why, in the words of what failed. */
  message?: string;
}

export type BucketEvent = 'finalize' | 'delete' | 'archive' | 'metadataUpdate';

/** A bucket of a store behind S3. `accessKey` and `secretKey` are names of secrets. */
export interface S3Place {
  endpoint: string;
  region: string;
  bucket: string;
  accessKey: string;
  secretKey: string;
  /** What is removed or written over is archived. */
  versioned: boolean;
}

/** Calls a function when something changes in a directory of the gateway's machine, or in a bucket of a store. */
export interface BucketDefinition {
  /** Either a directory, absolute, or `s3`. */
  path?: string | undefined;
  s3?: S3Place | undefined;
  function: string;
  events: BucketEvent[];
  /** Of the path below the directory. */
  prefix?: string | undefined;
  suffix?: string | undefined;
  /** What was there before: nothing, or a call for each. */
  existing: 'ignore' | 'fire';
  /** Between two looks. */
  every: string;
  description: string;
}

/** A message as it is published; `data` is base64. Data or attributes must be there. */
export interface PublishedMessage {
  data?: string;
  attributes?: Record<string, string>;
  /** Messages of one key are delivered one at a time, in order. */
  orderingKey?: string;
}

/** A message as it is delivered. */
export interface MessageView {
  data: string;
  attributes: Record<string, string>;
  messageId: string;
  publishTime: string;
  orderingKey?: string;
}

export interface ReceivedMessage {
  /** Says which delivery is acknowledged, until its deadline. */
  ackId: string;
  message: MessageView;
  /** Only where the subscription has a dead-letter topic. */
  deliveryAttempt?: number;
}

/** What is dead of one subscription, function or kind, by cause. */
export interface DeadLetterGroup {
  /** `delivery` of a subscription, `call` of a function, its `callback`, or a `notification`. */
  kind: 'delivery' | 'call' | 'callback' | 'notification';
  subscription?: string;
  function?: string;
  notification?: string;
  cause: string;
  count: number;
  firstAt: string;
  lastAt: string;
}

export interface DeadLetterView {
  id: string;
  kind: DeadLetterGroup['kind'];
  subscription?: string;
  function?: string;
  notification?: string;
  cause: string;
  acceptedAt: string;
  endedAt: string;
  attempts: AttemptView[];
  /** Of a delivery. */
  message?: MessageView;
  /** The invocation that it was redriven as. */
  redriven?: string;
}

/** What was accepted once more, and what could not be. `as` is empty where it was only asked. */
export interface RedrivenView {
  redriven: Array<{ id: string; as: string }>;
  left: Array<{ id: string; reason: string }>;
}

/** What a manifest declares beside functions. */
export interface ResourceView<D = unknown> {
  id: string;
  namespace: string;
  name: string;
  /** As it was asked for, with every default in it. */
  definition: D;
  project?: string;
  paused: boolean;
  revision: number;
  createdAt: string;
  updatedAt: string;
}

export interface ResourcePut<V = ResourceView> {
  resource: V;
  outcome: 'created' | 'updated' | 'unchanged';
}

export interface ScheduleView extends ResourceView<ScheduleDefinition> {
  /** The next slots; none while it is paused. */
  next: string[];
}
