/**
 * What is published, as it comes over HTTP: messages as Pub/Sub takes them, or CloudEvents in binary, structured or batched
 * mode (HTTP binding 1.0.2). A CloudEvent becomes a message whose attributes are the event's, `ce-` before their names.
 */
import { z } from 'zod';
import type { Issue } from '../../client/errors.ts';
import { type Message, topicLimits } from '../domain/topic.ts';
import { GatewayError } from '../errors.ts';
import { malformedJson } from './malformed-json.ts';
import { parse } from './parse.ts';

const { attributesMax, attributeKeyCharsMax, attributeValueCharsMax } = topicLimits;

const attributesSchema = z
  .record(z.string().min(1).max(attributeKeyCharsMax), z.string().max(attributeValueCharsMax))
  .refine(
    attributes => Object.keys(attributes).length <= attributesMax,
    `more than ${attributesMax} attributes`,
  );

/** In either alphabet, with or without what fills it up. One class of characters: a group would be repeated millions of times. */
function isBase64(text: string): boolean {
  const digits = /^([A-Za-z0-9+/_-]*)={0,2}$/.exec(text)?.[1];
  return digits !== undefined && digits.length % 4 !== 1;
}

const messageSchema = z
  .strictObject({
    data: z.string().refine(isBase64, 'not base64').optional(),
    attributes: attributesSchema.optional(),
    orderingKey: z.string().max(topicLimits.orderingKeyCharsMax).optional(),
  })
  .refine(
    ({ data, attributes }) => data !== undefined || Object.keys(attributes ?? {}).length > 0,
    'it has neither data nor attributes',
  );

export const publishSchema = z.strictObject({
  messages: z
    .array(messageSchema)
    .min(1, 'no message')
    .max(topicLimits.messagesMax, `more than ${topicLimits.messagesMax} messages`),
});

/** Names of CloudEvents: lower-case letters and digits. */
const eventName = /^[a-z0-9]{1,20}$/;

const eventSchema = z
  .looseObject({
    specversion: z.literal('1.0', 'only version 1.0 is understood'),
    id: z.string().min(1),
    source: z.string().min(1),
    type: z.string().min(1),
    datacontenttype: z.string().optional(),
    data_base64: z.string().refine(isBase64, 'not base64').optional(),
  })
  .refine(
    event => event.data === undefined || event.data_base64 === undefined,
    'it has data and data_base64',
  );
const eventsSchema = z
  .array(eventSchema)
  .min(1, 'no event')
  .max(topicLimits.messagesMax, `more than ${topicLimits.messagesMax} events`);

/** Throws JSON_MALFORMED, MEDIA_TYPE_UNSUPPORTED and MESSAGE_INVALID. */
export function readPublication(
  body: Buffer,
  headers: Readonly<Record<string, string | string[] | undefined>>,
): Message[] {
  const type = String(headers['content-type'] ?? '')
    .split(';')[0]!
    .trim()
    .toLowerCase();
  return checked(messagesIn(type, body, headers));
}

function messagesIn(
  type: string,
  body: Buffer,
  headers: Readonly<Record<string, string | string[] | undefined>>,
): Message[] {
  if (type === 'application/cloudevents-batch+json')
    return parse(eventsSchema, jsonOf(body), 'MESSAGE_INVALID').map(fromEvent);
  if (type === 'application/cloudevents+json')
    return [fromEvent(parse(eventSchema, jsonOf(body), 'MESSAGE_INVALID'), 0)];
  if (headers['ce-specversion'] !== undefined) return [fromHeaders(body, headers)];
  if (type === 'application/json' || type === '')
    return parse(publishSchema, jsonOf(body), 'MESSAGE_INVALID').messages.map(
      ({ data = '', attributes = {}, orderingKey }) => ({
        data: Buffer.from(data, 'base64'),
        attributes,
        ...(orderingKey && { orderingKey }),
      }),
    );
  const detail = `${type} is no publication: send { messages }, or a CloudEvent`;
  throw new GatewayError('MEDIA_TYPE_UNSUPPORTED', detail);
}

function jsonOf(body: Buffer): unknown {
  const text = body.toString('utf8');
  try {
    return JSON.parse(text);
  } catch {
    throw malformedJson(text);
  }
}

/** Structured mode: the data is JSON, or text of its own type, or base64. */
function fromEvent(event: z.output<typeof eventSchema>, index: number): Message {
  const { data, data_base64: bytes, datacontenttype = 'application/json', ...context } = event;
  const isText = typeof data === 'string' && !/\bjson\b/.test(datacontenttype);
  const text = data === undefined ? '' : isText ? data : JSON.stringify(data);
  const attributes: Record<string, string> = { 'content-type': datacontenttype };
  for (const [name, value] of Object.entries(context)) {
    const isValue = ['string', 'number', 'boolean'].includes(typeof value);
    if (!eventName.test(name) || !isValue) {
      const rule = isValue
        ? 'a name is lower-case letters and digits'
        : 'not a text, number or boolean';
      throw invalid([{ path: `${index}.${name}`, message: rule }]);
    }
    attributes[`ce-${name}`] = String(value);
  }
  return {
    data: bytes === undefined ? Buffer.from(text) : Buffer.from(bytes, 'base64'),
    attributes,
    ...orderingOf(attributes),
  };
}

/** Binary mode: the event's attributes are headers, its data is the body. */
function fromHeaders(
  body: Buffer,
  headers: Readonly<Record<string, string | string[] | undefined>>,
): Message {
  const attributes: Record<string, string> = {};
  const type = headers['content-type'];
  if (type !== undefined) attributes['content-type'] = String(type);
  for (const [name, value] of Object.entries(headers))
    if (name.startsWith('ce-') && value !== undefined) attributes[name] = decoded(String(value));
  const event = Object.fromEntries(
    Object.entries(attributes).flatMap(([name, value]) =>
      name.startsWith('ce-') ? [[name.slice(3), value]] : [],
    ),
  );
  parse(eventSchema, event, 'MESSAGE_INVALID');
  return { data: body, attributes, ...orderingOf(attributes) };
}

/** By the partitioning extension. */
function orderingOf(attributes: Record<string, string>): { orderingKey?: string } {
  const key = attributes['ce-partitionkey'];
  return key ? { orderingKey: key } : {};
}

function decoded(value: string): string {
  try {
    return decodeURIComponent(value);
  } catch {
    return value;
  }
}

/** What a schema of one of the shapes does not say. */
function checked(messages: Message[]): Message[] {
  const { messageBytesMax, orderingKeyCharsMax } = topicLimits;
  const issues = messages.flatMap((message, i): Issue[] => {
    const { data, attributes, orderingKey = '' } = message;
    const pairs = Object.entries(attributes);
    const bytes = pairs.reduce(
      (sum, [key, value]) => sum + Buffer.byteLength(key) + Buffer.byteLength(value),
      data.length,
    );
    const told = (text: string) => [{ path: `messages.${i}`, message: text }];
    if (bytes > messageBytesMax) return told(`more than ${messageBytesMax} bytes`);
    if (pairs.length > attributesMax) return told(`more than ${attributesMax} attributes`);
    if (pairs.some(([, value]) => value.length > attributeValueCharsMax))
      return told(`an attribute of more than ${attributeValueCharsMax} characters`);
    if (![orderingKey, ...pairs.flat()].every(part => part.isWellFormed()))
      return told('half of a pair of characters');
    const asHeader = pairs.find(([key, value]) => !isHeaderSafe(key, value));
    if (asHeader !== undefined)
      return told(`${JSON.stringify(asHeader[0])} becomes a header, and cannot be one`);
    if (orderingKey.length > orderingKeyCharsMax)
      return told(`a key of more than ${orderingKeyCharsMax} characters`);
    return [];
  });
  if (issues.length > 0) throw invalid(issues);
  return messages;
}

/** Attributes that are headers where the message is delivered: the type of its data, and those of a CloudEvent. */
function isHeaderSafe(key: string, value: string): boolean {
  if (key === 'content-type') return /^[\x20-\x7e]{1,256}$/.test(value);
  // Values of a CloudEvent are percent-encoded.
  return !key.startsWith('ce-') || eventName.test(key.slice(3));
}

function invalid(issues: Issue[]): GatewayError {
  const { path, message } = issues[0]!;
  return new GatewayError('MESSAGE_INVALID', `${path}: ${message}`, {
    issues: issues.slice(0, 20),
  });
}
