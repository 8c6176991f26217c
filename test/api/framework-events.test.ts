/**
 * Goal: events arrive in functions for the npm functions framework as they do there, whatever form they are sent in.
 * Method: as framework-node.test.ts; functions return what they were given, and a value that is returned is the answer.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { startTestGateway } from '../../src/testing/index.ts';
import { compare, post } from './framework-oracle.ts';

const gateway = await startTestGateway({ shared: true, env: { PATH: process.env.PATH! } });

const files = {
  'index.js': `
const functions = require('@google-cloud/functions-framework');
const outcomes = {
  nothing: () => undefined, null: () => null, number: () => 7, zero: () => 0, text: () => 'text ü',
  truth: () => true, object: () => ({ a: 1 }), bytes: () => Buffer.from('bytes'),
  cycle: () => { const a = {}; a.a = a; return a; }, big: () => 10n,
  throw: () => { throw new Error('thrown'); }, reject: () => Promise.reject(new Error('rejected')),
  later: () => new Promise(() => setTimeout(() => { throw new Error('thrown later'); }, 1)),
  falsy: () => Promise.reject(undefined), word: () => Promise.reject('word'),
};
const outcome = (data, shown) => {
  const make = outcomes[data?.do];
  return make === undefined ? shown : make();
};
exports.background = (data, context) => outcome(data, { data, context });
exports.backgroundCallback = (data, context, callback) => {
  if (data?.do === 'fail') return callback(new Error('failed'));
  if (data?.do === 'twice') { callback(null, 'first'); return callback(null, 'second'); }
  setTimeout(() => callback(null, outcome(data, { data, context })), 1);
};
const shown = event => { const { traceparent, ...rest } = event; return rest; };
functions.cloudEvent('cloud', event => outcome(event.data, shown(event)));
functions.cloudEvent('cloudCallback', (event, callback) => callback(null, outcome(event.data, shown(event))));
`,
};
const pair = compare(gateway, files);

/** Events as senders of each kind make them. */
const push = (message: object, more: object = {}) => ({
  message: { messageId: 'm1', publishTime: '2026-01-02T03:04:05Z', ...message },
  subscription: 'projects/p/subscriptions/s',
  ...more,
});
const legacy = (eventType: string, resource: unknown, data: object, more: object = {}) => ({
  context: { eventId: 'e1', timestamp: '2026-01-02T03:04:05Z', eventType, resource },
  data,
  ...more,
});
const user = { uid: 'U', metadata: { createdAt: '1', lastSignedInAt: '2', other: '3' } };
const firestore = 'projects/p/databases/(default)/documents/users/a/b';
const database = 'projects/_/instances/my-db/refs/a/b';
const object = { kind: 'storage#object', bucket: 'b', name: 'x' };

const legacyEvents: Array<[name: string, body: unknown, path?: string]> = [
  ['a push', push({ data: 'aGk=', attributes: { a: 'b' } }), '/projects/p/topics/t'],
  ['a push without a topic', push({ data: 'aGk=' })],
  ['a push that is an order', push({ data: 'aGk=', orderingKey: 'k' }, { deliveryAttempt: 2 })],
  ['a push without a message id', push({ data: 'aGk=', messageId: '' })],
  [
    'pubsub',
    legacy(
      'google.pubsub.topic.publish',
      { service: 'pubsub.googleapis.com', name: 'projects/p/topics/t', type: 'x' },
      { '@type': 'type.googleapis.com/google.pubsub.v1.PubsubMessage', data: 'aGk=' },
    ),
  ],
  [
    'old pubsub',
    legacy('providers/cloud.pubsub/eventTypes/topic.publish', 'projects/p/topics/t', { data: 'x' }),
  ],
  [
    'storage',
    legacy(
      'google.storage.object.finalize',
      { service: 'storage.googleapis.com', name: 'projects/_/buckets/b/objects/d/x', type: 'k' },
      object,
    ),
  ],
  [
    'storage by name',
    legacy('google.storage.object.delete', 'projects/_/buckets/b/objects/x#123', object),
  ],
  [
    'old storage',
    legacy(
      'providers/cloud.storage/eventTypes/object.change',
      'projects/_/buckets/b/objects/x',
      object,
    ),
  ],
  ['storage elsewhere', legacy('google.storage.object.archive', 'projects/wide/buckets/b', object)],
  [
    'firestore',
    legacy('providers/cloud.firestore/eventTypes/document.write', firestore, { value: {} }),
  ],
  ['auth', legacy('providers/firebase.auth/eventTypes/user.create', 'projects/p', user)],
  [
    'auth without metadata',
    legacy('providers/firebase.auth/eventTypes/user.delete', 'projects/p', { uid: 'U' }),
  ],
  [
    'database',
    legacy(
      'providers/google.firebase.database/eventTypes/ref.write',
      database,
      { delta: 1 },
      { domain: 'firebaseio.com' },
    ),
  ],
  [
    'database elsewhere',
    legacy(
      'providers/google.firebase.database/eventTypes/ref.update',
      database,
      { delta: 1 },
      { domain: 'europe-west1.firebasedatabase.app' },
    ),
  ],
  [
    'database nowhere',
    legacy(
      'providers/google.firebase.database/eventTypes/ref.create',
      database,
      {},
      { domain: 'x' },
    ),
  ],
  [
    'database without domain',
    legacy('providers/google.firebase.database/eventTypes/ref.delete', database, {}),
  ],
  [
    'analytics',
    legacy(
      'providers/google.firebase.analytics/eventTypes/event.log',
      'projects/p/events/session_start',
      { n: 1 },
    ),
  ],
  [
    'an unknown type',
    legacy('providers/firebase.remoteConfig/remoteconfig.update', 'projects/p', { n: 1 }),
  ],
  [
    'the flat form',
    {
      ...legacy('google.pubsub.topic.publish', 'projects/p/topics/t', {}).context,
      data: { data: 'x' },
    },
  ],
  ['an event of nobody', { some: 'thing', data: { n: 1 } }],
  ['no event', { a: 1 }],
  ['an empty one', {}],
];

const cloudTypes: Array<
  [type: string, source: string, subject: string | undefined, data: unknown]
> = [
  [
    'google.cloud.pubsub.topic.v1.messagePublished',
    '//pubsub.googleapis.com/projects/p/topics/t',
    undefined,
    {
      message: { data: 'aGk=', attributes: { a: 'b' }, messageId: 'm', publishTime: 't' },
      subscription: 's',
    },
  ],
  [
    'google.cloud.pubsub.topic.v1.messagePublished',
    '//pubsub.googleapis.com/projects/p/topics/t',
    undefined,
    { data: 'flat' },
  ],
  [
    'google.cloud.storage.object.v1.finalized',
    '//storage.googleapis.com/projects/_/buckets/b',
    'objects/d/x',
    object,
  ],
  [
    'google.cloud.firestore.document.v1.written',
    '//firestore.googleapis.com/projects/p/databases/(default)',
    'documents/a/b',
    { value: {} },
  ],
  [
    'google.firebase.auth.user.v1.created',
    '//firebaseauth.googleapis.com/projects/p',
    'users/U',
    { uid: 'U', metadata: { createTime: '1', lastSignInTime: '2' } },
  ],
  [
    'google.firebase.database.ref.v1.written',
    '//firebasedatabase.googleapis.com/projects/_/locations/us-central1/instances/i',
    'refs/a',
    { delta: 1 },
  ],
  [
    'google.firebase.analytics.log.v1.written',
    '//firebase.googleapis.com/projects/p',
    'events/e',
    { n: 1 },
  ],
  ['google.cloud.storage.object.v1.deleted', 'nonsense', undefined, object],
  ['com.example.other', '/mine', 'sub', { n: 1 }],
];

function binary(
  type: string,
  source: string,
  subject: string | undefined,
  data: unknown,
): RequestInit {
  return post(data, {
    'ce-id': 'c1',
    'ce-specversion': '1.0',
    'ce-type': type,
    'ce-source': source,
    'ce-time': '2026-01-02T03:04:05Z',
    'ce-ext': 'e',
    ...(subject !== undefined && { 'ce-subject': subject }),
  });
}

const outcomes =
  'nothing null number zero text truth object bytes cycle big throw reject later falsy word'.split(
    ' ',
  );

describe('event functions', async () => {
  const event = await pair('background', 'background', { signature: 'event' });
  const callback = await pair('background-callback', 'backgroundCallback', { signature: 'event' });
  const cloud = await pair('cloud', 'cloud');
  const cloudCallback = await pair('cloud-callback', 'cloudCallback');
  const all = [event, callback, cloud, cloudCallback];

  test('legacy events and pushes arrive in the shape that each function takes', async () => {
    for (const [, body, path = '/'] of legacyEvents)
      for (const fn of all) await fn.same([path, post(body)]);
    const { body } = await cloud.same(['/projects/p/topics/t', post(push({ data: 'aGk=' }))], 200);
    assert.equal(JSON.parse(body).type, 'google.cloud.pubsub.topic.v1.messagePublished');
  });

  test('CloudEvents arrive in the shape that each function takes', async () => {
    for (const [type, source, subject, data] of cloudTypes) {
      for (const fn of all) {
        await fn.same(['/', binary(type, source, subject, data)]);
        const whole = { id: 'c1', specversion: '1.0', type, source, subject, data };
        const structured = { 'content-type': 'application/cloudevents+json' };
        await fn.same(['/', post(whole, structured)]);
      }
    }
  });

  test('what a function returns, or fails with, becomes the same answer', async () => {
    for (const name of outcomes) {
      await event.same(['/', post({ data: { do: name }, context: {} })]);
      await cloud.same(['/', binary('com.example.other', '/mine', undefined, { do: name })]);
    }
    for (const name of ['nothing', 'number', 'fail', 'twice', 'throw'])
      await callback.same(['/', post({ data: { do: name }, context: {} })]);
    const failed = await event.same(['/', post({ data: { do: 'throw' } })], 500);
    assert.equal(failed.headers['x-google-status'], 'error');
  });

  test('only posts reach an event function, and a body that is none is refused', async () => {
    for (const fn of all) {
      await fn.same(['/']);
      await fn.same(['/x', { method: 'PUT' }]);
      await fn.same(['/', { method: 'OPTIONS' }]);
      await fn.same(['/favicon.ico']);
      await fn.same(['/', post('{"a":')], 400);
    }
    await event.same(['/'], 404);
  });

  test('a post without an event is an error in both', async () => {
    for (const fn of all) {
      for (const init of [
        { method: 'POST' },
        { ...post('text'), headers: { 'content-type': 'text/plain' } },
      ]) {
        const { ours, theirs } = await fn.both(['/', init]);
        assert.equal(ours.status, theirs.status);
      }
    }
  });

  test('a message with attributes only is a message, which the framework does not see', async () => {
    const sent = post(push({ attributes: { a: 'b' } }));
    const { ours } = await event.both(['/projects/p/topics/t', sent]);
    const { data, context } = JSON.parse(ours.body);
    assert.deepEqual([data.attributes, data.data], [{ a: 'b' }, '']);
    assert.deepEqual(
      [context.eventId, context.eventType, context.resource.name],
      ['m1', 'google.pubsub.topic.publish', 'projects/p/topics/t'],
    );
    const { ours: event2 } = await cloud.both(['/projects/p/topics/t', sent]);
    assert.deepEqual(JSON.parse(event2.body).data.message.attributes, { a: 'b' });
  });
});
