/**
 * How a message looks to whom it is delivered: as Pub/Sub pushes it, as it is, or as a CloudEvent in binary mode where it was
 * published as one. Pure.
 */
import type { MessageView, SubscriptionDefinition } from '../../client/api.ts';
import type { HeaderPairs } from '../invoke/invoke.ts';
import type { Published } from './topics.ts';

/** Of a raw message's header; longer ones are left out: `wrapped` has them all. */
export const attributesHeaderCharsMax = 8192;

export interface Shape {
  headers: HeaderPairs;
  body: Uint8Array;
}

export interface DeliveredTo {
  namespace: string;
  topic: string;
  subscription: string;
  payload: SubscriptionDefinition['payload'];
  /** 1 for the first; only where there is a dead-letter topic, as elsewhere. */
  deliveryAttempt?: number;
}

export function shapeOf(message: Published, to: DeliveredTo): Shape {
  const own = ownHeaders(message, to);
  if (message.attributes['ce-specversion'] !== undefined) return cloudEvent(message, own);
  if (to.payload === 'raw') {
    const { data, attributes } = message;
    const told = encodeURIComponent(JSON.stringify(attributes));
    const isTold = Object.keys(attributes).length > 0 && told.length <= attributesHeaderCharsMax;
    return {
      headers: [
        ...['Content-Type', attributes['content-type'] ?? 'application/octet-stream', ...own],
        ...(isTold ? ['X-Fnway-Attributes', told] : []),
      ],
      body: data,
    };
  }
  const { namespace, subscription, deliveryAttempt } = to;
  const view = messageView(message);
  const push = {
    // Both spellings: clients of either kind read them.
    message: { ...view, message_id: view.messageId, publish_time: view.publishTime },
    subscription: `projects/${namespace}/subscriptions/${subscription}`,
    ...(deliveryAttempt !== undefined && { deliveryAttempt }),
  };
  return {
    headers: ['Content-Type', 'application/json', ...own],
    body: Buffer.from(JSON.stringify(push)),
  };
}

export function messageView({
  id,
  publishedMs,
  data,
  attributes,
  orderingKey,
}: Published): MessageView {
  return {
    data: Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('base64'),
    attributes,
    messageId: id,
    publishTime: new Date(publishedMs).toISOString(),
    ...(orderingKey !== undefined && { orderingKey }),
  };
}

function ownHeaders({ id, publishedMs, orderingKey }: Published, to: DeliveredTo): string[] {
  const { topic, subscription, deliveryAttempt } = to;
  return [
    ...['X-Fnway-Topic', topic, 'X-Fnway-Subscription', subscription, 'X-Fnway-Message-Id', id],
    ...['X-Fnway-Publish-Time', new Date(publishedMs).toISOString()],
    ...(orderingKey === undefined ? [] : ['X-Fnway-Ordering-Key', encodeURIComponent(orderingKey)]),
    ...(deliveryAttempt === undefined ? [] : ['X-Fnway-Delivery-Attempt', String(deliveryAttempt)]),
  ];
}

/** By the HTTP binding of CloudEvents 1.0.2, §3.1. */
function cloudEvent({ attributes, data }: Published, own: string[]): Shape {
  const headers = Object.entries(attributes).flatMap(([name, value]) =>
    name.startsWith('ce-') ? [name, headerValue(value)] : [],
  );
  const type = attributes['content-type'];
  return {
    headers: [...(type === undefined ? [] : ['Content-Type', type]), ...headers, ...own],
    body: data,
  };
}

/** What a header cannot have is percent-encoded, and so are quotes and percent signs themselves. */
function headerValue(text: string): string {
  return text.replace(/[^\x21\x23\x24\x26-\x7e]/gu, char =>
    [...Buffer.from(char)]
      .map(byte => `%${byte.toString(16).padStart(2, '0').toUpperCase()}`)
      .join(''),
  );
}
