/**
 * The shapes in which an event arrives, and those that functions take: a push of Pub/Sub, a CloudEvent in headers and
 * body (binary mode), and a legacy event, `{ data, context }`. Pure: objects in, objects out. Whatever is none of the
 * shapes that can be converted is left as it is.
 */

const pubsubMessageType = 'type.googleapis.com/google.pubsub.v1.PubsubMessage';

const services = {
  analytics: 'firebase.googleapis.com',
  auth: 'firebaseauth.googleapis.com',
  database: 'firebasedatabase.googleapis.com',
  firestore: 'firestore.googleapis.com',
  pubsub: 'pubsub.googleapis.com',
  storage: 'storage.googleapis.com',
};

/** An event that says it is of a kind, and is not like that kind. */
class EventConversionError extends Error {}

/** Types of CloudEvents, and what they were called before. */
const legacyTypes = new Map([
  ['google.cloud.pubsub.topic.v1.messagePublished', 'google.pubsub.topic.publish'],
  ...pairs('google.cloud.storage.object.v1.', 'google.storage.object.', {
    finalized: 'finalize',
    deleted: 'delete',
    archived: 'archive',
    metadataUpdated: 'metadataUpdate',
  }),
  ...pairs(
    'google.cloud.firestore.document.v1.',
    'providers/cloud.firestore/eventTypes/document.',
    changes(),
  ),
  ...pairs('google.firebase.auth.user.v1.', 'providers/firebase.auth/eventTypes/user.', {
    created: 'create',
    deleted: 'delete',
  }),
  [
    'google.firebase.analytics.log.v1.written',
    'providers/google.firebase.analytics/eventTypes/event.log',
  ],
  ...pairs(
    'google.firebase.database.ref.v1.',
    'providers/google.firebase.database/eventTypes/ref.',
    changes(),
  ),
]);

/** The other way, with the oldest names of two of them. */
const cloudTypes = new Map([
  ...[...legacyTypes].map(([cloud, legacy]) => /** @type {const} */ ([legacy, cloud])),
  ['providers/cloud.storage/eventTypes/object.change', 'google.cloud.storage.object.v1.finalized'],
  [
    'providers/cloud.pubsub/eventTypes/topic.publish',
    'google.cloud.pubsub.topic.v1.messagePublished',
  ],
]);

function changes() {
  return { created: 'create', written: 'write', updated: 'update', deleted: 'delete' };
}

function pairs(cloud, legacy, names) {
  return Object.entries(names).map(([now, before]) => [`${cloud}${now}`, `${legacy}${before}`]);
}

/** By the start of a legacy type, where the resource names no service. */
const serviceOfType = [
  ['providers/cloud.firestore/', services.firestore],
  ['providers/google.firebase.analytics/', services.analytics],
  ['providers/firebase.auth/', services.auth],
  ['providers/google.firebase.database/', services.database],
  ['providers/cloud.pubsub/', services.pubsub],
  ['providers/cloud.storage/', services.storage],
  ['google.pubsub', services.pubsub],
  ['google.storage', services.storage],
];

/** How a legacy resource falls into what a source and a subject name. A project is always `_` in two of them. */
const resourceParts = new Map([
  [services.analytics, /^(projects\/[^/]+)\/(events\/[^/]+)$/],
  [services.database, /^projects\/[^/]\/(instances\/[^/]+)\/(refs\/.+)$/],
  [services.firestore, /^(projects\/[^/]+\/databases\/\(default\))\/(documents\/.+)$/],
  [services.storage, /^(projects\/[^/]\/buckets\/[^/]+)\/(objects\/.+)$/],
]);

/** @param {import('node:http').IncomingHttpHeaders} headers */
export function isBinaryCloudEvent(headers) {
  return Boolean(
    headers['ce-type'] && headers['ce-specversion'] && headers['ce-source'] && headers['ce-id'],
  );
}

/** The attributes of an event in binary mode. */
export function attributesOf(headers) {
  const names = Object.keys(headers).filter(name => name.startsWith('ce-'));
  return Object.fromEntries(names.map(name => [name.slice(3), headers[name]]));
}

/** What a push subscription sends: its message has data, attributes, or both. */
function isPush(body) {
  const message = body?.message;
  if (!message || body.context || !body.subscription || !message.messageId) return false;
  return Boolean(message.data) || Object.keys(message.attributes ?? {}).length > 0;
}

/** A push as a legacy event. @param {string} path names the topic, where the subscription's address does */
export function fromPush(body, path) {
  if (!isPush(body)) return body;
  const { messageId, publishTime, data = '', attributes } = body.message;
  const topic = /projects\/[^/?]+\/topics\/[^/?]+/.exec(path)?.[0];
  if (topic === undefined) {
    console.warn(
      'The path names no topic: let the push address end with projects/PROJECT/topics/TOPIC',
    );
  }
  return {
    context: {
      eventId: messageId,
      timestamp: publishTime || new Date().toISOString(),
      eventType: 'google.pubsub.topic.publish',
      resource: { service: services.pubsub, type: pubsubMessageType, name: topic ?? null },
    },
    data: { '@type': pubsubMessageType, data, attributes: attributes || {} },
  };
}

/** Data and context of whatever an event function is sent: its context may also stand beside the data. */
export function partsOf(event) {
  const { data, context } = event;
  if (context !== undefined) return { data, context };
  if (typeof event !== 'object')
    throw new TypeError(`an event is an object, not a ${typeof event}`);
  delete event.data;
  return { data, context: event };
}

/** A CloudEvent in binary mode as a legacy event. */
export function toLegacy(body, headers) {
  const attributes = attributesOf(headers);
  const eventType = legacyTypes.get(attributes.type);
  if (eventType === undefined) return { context: attributes, data: body };
  const source = /\/\/([^/]+)\/(.+)/.exec(attributes.source);
  if (source === null) {
    throw new EventConversionError(
      `Failed to convert CloudEvent with invalid source: "${attributes.source}"`,
    );
  }
  const [, service, name] = source;
  const { data, resource } = legacyParts(body, { service, name, subject: attributes.subject });
  const { id: eventId, time: timestamp } = attributes;
  return { context: { eventId, timestamp, eventType, resource }, data };
}

function legacyParts(body, { service, name, subject }) {
  const whole = `${name}/${subject}`;
  switch (service) {
    case services.pubsub: {
      const { messageId: _, publishTime: __, ...data } = 'message' in body ? body.message : body;
      return { data, resource: { service, name, type: pubsubMessageType } };
    }
    case services.auth:
      return {
        data: renamed(body, { createTime: 'createdAt', lastSignInTime: 'lastSignedInAt' }),
        resource: name,
      };
    case services.database:
      return { data: body, resource: whole.replace(/\/locations\/[^/]+/, '') };
    case services.storage:
      return { data: body, resource: { name: whole, service, type: body.kind } };
    default:
      return { data: body, resource: whole };
  }
}

/** The metadata of a user under the names of the other side. */
function renamed(data, names) {
  if (!('metadata' in data)) return data;
  const entries = Object.entries(data.metadata).map(([key, value]) => [names[key] ?? key, value]);
  return { ...data, metadata: Object.fromEntries(entries) };
}

/** A legacy event as a CloudEvent; anything else as it is. */
export function toCloudEvent(body) {
  const given = 'context' in body ? body.context : body;
  const isLegacy = 'data' in body && 'eventType' in given && 'resource' in given;
  const type = isLegacy ? cloudTypes.get(given.eventType) : undefined;
  if (type === undefined) return body;
  const { data, context } = partsOf(body);
  const { service, resource, subject } = splitResource(context);
  const parts = cloudParts(data, { service, resource, subject, context, domain: body.domain });
  return {
    id: context.eventId,
    time: context.timestamp,
    specversion: '1.0',
    datacontenttype: 'application/json',
    type,
    source: `//${service}/${parts.resource}`,
    data: parts.data,
    ...(parts.subject && { subject: parts.subject }),
  };
}

function cloudParts(data, { service, resource, subject, context, domain }) {
  switch (service) {
    case services.pubsub: {
      const message = {
        ...data,
        publishTime: data.publishTime || context.timestamp,
        messageId: data.messageId || context.eventId,
      };
      return { data: { message }, resource, subject };
    }
    case services.auth: {
      const user = 'metadata' in data && 'uid' in data ? `users/${data.uid}` : subject;
      const names = { createdAt: 'createTime', lastSignedInAt: 'lastSignInTime' };
      return { data: renamed(data, names), resource, subject: user };
    }
    case services.database: {
      const place = `projects/_/locations/${locationOf(domain)}/${resource}`;
      return { data, resource: place, subject };
    }
    default:
      return { data, resource, subject };
  }
}

function locationOf(domain) {
  if (domain === 'firebaseio.com') return 'us-central1';
  const location = /^([\w-]+)\.firebasedatabase\.app$/.exec(domain ?? '')?.[1];
  if (location !== undefined) return location;
  throw new EventConversionError(
    `Unable convert to ${services.database} CloudEvent: invalid domain`,
  );
}

function splitResource({ resource: given, eventType }) {
  const resource = typeof given === 'string' ? given : (given?.name ?? '');
  const named = typeof given === 'string' ? undefined : given?.service;
  const service = named || serviceOfType.find(([start]) => eventType.startsWith(start))?.[1];
  const pattern = resourceParts.get(service);
  if (pattern === undefined) return { service, resource, subject: '' };
  const match = pattern.exec(resource);
  if (match === null)
    throw new EventConversionError(`Resource string did not match expected format: ${resource}.`);
  return { service, resource: match[1], subject: match[2] };
}
