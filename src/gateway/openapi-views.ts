/** The schemas of what the control plane answers: client/api.ts, for whoever reads no TypeScript. */
import { errorCodes } from '../../client/errors.ts';
import { severities } from '../domain/log-line.ts';
import { callers, failureKinds, origins, recordStates } from '../domain/record.ts';
import { jobKinds, jobStates } from '../store/jobs.ts';
import { slotOutcomes } from '../store/schedules.ts';

export const ref = (name: string) => ({ $ref: `#/components/schemas/${name}` });

const text = { type: 'string' };
const texts = { type: 'array', items: text };
const whole = { type: 'integer' };
const object = (properties: Record<string, unknown>, optional: string[] = []) => ({
  type: 'object',
  properties,
  required: Object.keys(properties).filter(key => !optional.includes(key)),
});
const list = (items: object) => ({ type: 'array', items });
const stringMap = { type: 'object', additionalProperties: text };
const state = { enum: ['building', 'ready', 'failed'] };

const headerList = { type: 'array', items: { type: 'array', items: text } };
/** Of a body, one of the two. */
const bodyParts = { headers: headerList, body: text, base64: text };

/** `next`: of a schedule, when it comes next. */
const resource = (definition: string, more: Record<string, unknown> = {}) =>
  object(
    {
      ...{ id: text, namespace: text, name: text, definition: ref(definition), project: text },
      ...{ paused: { type: 'boolean' }, revision: whole, createdAt: text, updatedAt: text },
      ...more,
    },
    ['project'],
  );
const put = (name: string) =>
  object({ resource: ref(name), outcome: { enum: ['created', 'updated', 'unchanged'] } });

const message = object(
  {
    ...{ data: text, attributes: stringMap, messageId: text, publishTime: text },
    orderingKey: text,
  },
  ['orderingKey'],
);
const deadOwner = {
  kind: { enum: [...jobKinds] },
  subscription: text,
  function: text,
  notification: text,
  cause: text,
};

const topicViews = {
  Message: message,
  Published: object({ messageIds: texts }),
  Pulled: object({
    receivedMessages: list(
      object({ ackId: text, message: ref('Message'), deliveryAttempt: whole }, ['deliveryAttempt']),
    ),
  }),
  Sought: object({ dropped: whole, added: whole }),
  SigningKey: object({ signingKey: text }),
  DeadLetterGroup: object({ ...deadOwner, count: whole, firstAt: text, lastAt: text }, [
    ...['subscription', 'function', 'notification'],
  ]),
  DeadLetter: object(
    {
      ...{ id: text, ...deadOwner, acceptedAt: text, endedAt: text, redriven: text },
      ...{ attempts: list(ref('Attempt')), message: ref('Message') },
    },
    ['subscription', 'function', 'notification', 'message', 'redriven'],
  ),
  Redriven: object({
    redriven: list(object({ id: text, as: text })),
    left: list(object({ id: text, reason: text })),
  }),
  Purged: object({ purged: whole }),
};

const resourceViews = {
  ...topicViews,
  Bucket: resource('BucketDefinition'),
  BucketPut: put('Bucket'),
  Notification: resource('NotificationDefinition'),
  NotificationPut: put('Notification'),
  Webhook: resource('WebhookDefinition', { path: text }),
  WebhookPut: put('Webhook'),
  Topic: resource('TopicDefinition'),
  TopicPut: put('Topic'),
  Subscription: resource('SubscriptionDefinition', { waiting: whole, running: whole }),
  SubscriptionPut: put('Subscription'),
  Schedule: resource('ScheduleDefinition', { next: texts }),
  SchedulePut: put('Schedule'),
};

/** The answers' shapes: client/api.ts in JSON Schema; test/api checks real answers against them. */
export const views = {
  Version: object(
    {
      number: whole,
      state,
      kind: { enum: ['source', 'script', 'http', 'image'] },
      runtime: text,
      source: text,
      script: text,
      url: text,
      entry: text,
      env: stringMap,
      schema: { type: 'object' },
      secrets: { type: 'array', items: object({ name: text, as: { enum: ['env', 'file'] } }) },
      buildEnv: stringMap,
      timeout: text,
      memory: text,
      stream: { type: 'boolean' },
      convention: { enum: ['operation'] },
      args: list(text),
      argKeys: list(text),
      allowExitCodes: { anyOf: [{ const: 'any' }, list(whole)] },
      result: { anyOf: [{ const: 'json' }, object({ key: text })] },
      allowScripts: { type: 'boolean' },
      signature: { enum: ['http', 'event', 'cloudevent', 'typed'] },
      createdAt: text,
      settledAt: text,
      failure: object({ code: text, message: text, file: text, line: whole, column: whole }, [
        'file',
        'line',
        'column',
      ]),
      buildLog: text,
    },
    [
      ...['runtime', 'source', 'script', 'url', 'entry', 'schema', 'secrets', 'signature'],
      ...['settledAt', 'failure', 'buildLog'],
      ...['convention', 'args', 'argKeys', 'allowExitCodes', 'result'],
    ],
  ),
  Function: object(
    {
      id: text,
      namespace: text,
      name: text,
      state,
      activeVersion: whole,
      traffic: ref('Traffic'),
      latestVersion: ref('Version'),
      auth: { enum: ['token', 'none'] },
      record: { enum: ['calls', 'bodies'] },
      retry: ref('Retry'),
      queue: object({ concurrency: whole, waiting: whole }, ['concurrency', 'waiting']),
      concurrency: whole,
      instances: object({ min: whole, max: whole, idle: text }),
      labels: stringMap,
      description: text,
      project: text,
      drifted: { type: 'boolean' },
      endpoint: text,
      revision: whole,
      createdAt: text,
      updatedAt: text,
      running: object({ ready: whole, busy: whole, starting: whole, waiting: whole }),
    },
    [
      ...['activeVersion', 'traffic', 'concurrency', 'project', 'drifted', 'running'],
      ...['retry', 'queue'],
    ],
  ),
  Retry: object(
    {
      attempts: whole,
      minDelay: text,
      maxDelay: text,
      jitter: { type: 'number' },
      maxAge: text,
      on: list(text),
    },
    ['maxAge', 'on'],
  ),
  Traffic: object({ shares: { type: 'object', additionalProperties: whole }, stickyHeader: text }, [
    'stickyHeader',
  ]),
  PutResult: object(
    {
      function: ref('Function'),
      outcome: { enum: ['created', 'updated', 'unchanged'] },
      version: whole,
    },
    ['version'],
  ),
  Token: object({ token: text, signingKey: text }),
  Accepted: object({ id: text, location: text }),
  Secret: object({ name: text, updatedAt: text }),
  ...resourceViews,
  Slot: object(
    {
      ...{ at: text, outcome: { enum: [...slotOutcomes] }, decidedAt: text },
      invocation: text,
    },
    ['invocation'],
  ),
  Source: object({ digest: text }),
  Runtime: object({ name: text, aliases: texts, entries: texts, concurrency: whole }),
  OutputLine: object(
    {
      time: text,
      version: whole,
      instance: text,
      call: text,
      stream: { enum: ['stdout', 'stderr'] },
      severity: { enum: [...severities] },
      message: text,
      fields: { type: 'object' },
      text,
    },
    ['call', 'fields'],
  ),
  Invocation: object(
    {
      ...{ id: text, namespace: text, function: text, version: whole },
      state: { enum: [...new Set([...recordStates, ...jobStates])] },
      status: whole,
      origin: { enum: [...origins] },
      caller: { enum: [...callers] },
      ...{ attempt: whole, method: text, path: text, startedAt: text },
      durationMs: { type: 'number' },
      attempts: list(ref('Attempt')),
      ...{ dueAt: text, endedAt: text, priority: whole },
      ...{ instance: text, parent: text, trigger: text, label: text },
      failure: object(
        {
          kind: { enum: [...failureKinds] },
          ...{ code: text, reason: text, message: text, type: text },
          ...{ file: text, line: whole, stack: text, exit: text },
        },
        ['reason', 'type', 'file', 'line', 'stack', 'exit'],
      ),
    },
    [
      ...['instance', 'parent', 'trigger', 'label', 'failure', 'version', 'status', 'durationMs'],
      ...['attempts', 'dueAt', 'endedAt', 'priority'],
    ],
  ),
  Attempt: object(
    {
      ...{ number: whole, startedAt: text, durationMs: { type: 'number' }, version: whole },
      ...{ instance: text, status: whole, failure: { type: 'object' } },
      givenBack: { type: 'boolean' },
    },
    ['version', 'instance', 'failure', 'givenBack'],
  ),
  InvocationBodies: object({
    id: text,
    request: object({ method: text, path: text, ...bodyParts }, ['body', 'base64']),
    reply: object({ status: whole, ...bodyParts }, ['body', 'base64']),
  }),
  Replay: object({
    id: text,
    version: whole,
    reply: object({ status: whole, ...bodyParts, failure: { type: 'object' } }, [
      ...['body', 'base64', 'failure'],
    ]),
  }),
  Problem: object(
    {
      type: text,
      title: text,
      status: whole,
      code: { enum: [...errorCodes] },
      detail: text,
      remedy: text,
      requestId: text,
      issues: {
        type: 'array',
        items: object({ path: text, message: text, hint: text, line: whole, column: whole }, [
          'hint',
          'line',
          'column',
        ]),
      },
      reason: text,
      log: { type: 'array', items: text },
    },
    ['remedy', 'requestId', 'issues', 'reason', 'log'],
  ),
};
