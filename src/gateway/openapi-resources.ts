/** The routes of what manifests declare beside functions, for the OpenAPI document: those of all kinds, then what one can do. */
import type { z } from 'zod';
import { type ResourceKind, resourceKinds, resourceRules } from '../domain/resource.ts';
import type { Operation } from './openapi.ts';
import { ref } from './openapi-views.ts';
import { publishSchema } from './publication.ts';
import { deadPurgeSchema, deadQuerySchema, deadRedriveSchema } from './routes/dead-letters.ts';
import { resourceQuerySchema } from './routes/resources.ts';
import { historyQuerySchema } from './routes/schedules.ts';
import { ackSchema, extendSchema, pullSchema, seekSchema } from './routes/topics.ts';

interface Tools {
  json(schema: Record<string, unknown>): Record<string, unknown>;
  page(name: string): Record<string, unknown>;
  queryOf(schema: z.ZodType): Record<string, unknown>;
  toSchema(schema: z.ZodType): Record<string, unknown>;
}

export function resourceOperations(tools: Tools): Operation[] {
  return [
    ...resourceKinds.flatMap(kind => ofKind(kind, tools)),
    ...ofSchedules(tools),
    ...ofTopics(tools),
    ...ofSubscriptions(tools),
    ...ofDeadLetters(tools),
  ];
}

const inside = '/v1/namespaces/{namespace}';
const capital = (text: string) => text[0]!.toUpperCase() + text.slice(1);

function ofKind(kind: ResourceKind, { json, page, queryOf }: Tools): Operation[] {
  const { plural } = resourceRules[kind];
  const [name, names] = [capital(kind), capital(plural)];
  const one = `${inside}/${plural}/{name}`;
  return [
    {
      ...{ method: 'get', path: `${inside}/${plural}`, id: `list${names}` },
      ...{ summary: `${names} in order of name`, query: queryOf(resourceQuerySchema) },
      ...{ status: 200, answer: json(page(name)) },
    },
    {
      ...{ method: 'get', path: one, id: `get${name}`, summary: `Describe a ${kind}` },
      ...{ status: 200, answer: json(ref(name)) },
    },
    {
      ...{ method: 'put', path: one, id: `put${name}`, summary: `Make or change a ${kind}` },
      ...{ body: json(ref(`${name}Definition`)), status: 200, answer: json(ref(`${name}Put`)) },
    },
    {
      ...{ method: 'delete', path: one, id: `remove${name}`, summary: `Remove a ${kind}` },
      status: 204,
    },
    {
      ...{ method: 'post', path: `${one}/pause`, id: `pause${name}` },
      ...{ summary: 'Let it bring nothing until it is resumed', status: 200 },
      answer: json(ref(name)),
    },
    {
      ...{ method: 'post', path: `${one}/resume`, id: `resume${name}` },
      ...{ summary: 'Go on; what came meanwhile stays undone', status: 200 },
      answer: json(ref(name)),
    },
  ];
}

function ofSchedules({ json, page, queryOf }: Tools): Operation[] {
  const one = `${inside}/schedules/{name}`;
  return [
    {
      ...{ method: 'get', path: `${one}/history`, id: 'listSlots' },
      ...{ summary: 'What became of the last slots, newest first' },
      ...{ query: queryOf(historyQuerySchema), status: 200, answer: json(page('Slot')) },
    },
    {
      ...{ method: 'post', path: `${one}/run`, id: 'runSchedule' },
      ...{ summary: 'Call its function at once', status: 202, answer: json(ref('Accepted')) },
    },
  ];
}

function ofTopics({ json, toSchema }: Tools): Operation[] {
  const one = `${inside}/topics/{name}`;
  const cloudEvents = { schema: { type: 'object' } };
  return [
    {
      ...{ method: 'post', path: `${one}/publish`, id: 'publish', status: 200 },
      summary: 'Publish messages, or CloudEvents; also as `{name}:publish`',
      body: {
        ...json(toSchema(publishSchema)),
        'application/cloudevents+json': cloudEvents,
        'application/cloudevents-batch+json': { schema: { type: 'array' } },
      },
      answer: json(ref('Published')),
    },
    {
      ...{ method: 'get', path: `${one}/tail`, id: 'tailTopic', status: 200 },
      summary: 'Messages as they are published',
      answer: { 'application/x-ndjson': { schema: ref('Message') } },
    },
  ];
}

function ofSubscriptions({ json, toSchema }: Tools): Operation[] {
  const one = `${inside}/subscriptions/{name}`;
  return [
    {
      ...{ method: 'post', path: `${one}/pull`, id: 'pull', status: 200 },
      summary: 'Take messages of a subscription that is pulled',
      ...{ body: json(toSchema(pullSchema)), answer: json(ref('Pulled')) },
    },
    {
      ...{ method: 'post', path: `${one}/ack`, id: 'ackMessages', status: 204 },
      ...{ summary: 'They are done with', body: json(toSchema(ackSchema)) },
    },
    {
      ...{ method: 'post', path: `${one}/nack`, id: 'nackMessages', status: 204 },
      ...{ summary: 'They come again, after the back-off', body: json(toSchema(ackSchema)) },
    },
    {
      ...{ method: 'post', path: `${one}/extend`, id: 'extendMessages', status: 204 },
      ...{ summary: 'Hold them longer', body: json(toSchema(extendSchema)) },
    },
    {
      ...{ method: 'post', path: `${one}/seek`, id: 'seek', status: 200 },
      summary: 'Deliver what was published since a time once more, and nothing older',
      ...{ body: json(toSchema(seekSchema)), answer: json(ref('Sought')) },
    },
    {
      ...{ method: 'get', path: `${one}/signing-key`, id: 'getSigningKey', status: 200 },
      ...{ summary: 'With which what is pushed is signed', answer: json(ref('SigningKey')) },
    },
  ];
}

function ofDeadLetters({ json, page, queryOf, toSchema }: Tools): Operation[] {
  const all = `${inside}/dead-letters`;
  return [
    {
      ...{ method: 'get', path: all, id: 'listDeadLetters', status: 200 },
      ...{ summary: 'What is dead, newest first', query: queryOf(deadQuerySchema) },
      answer: json(page('DeadLetter')),
    },
    {
      ...{ method: 'get', path: `${all}/causes`, id: 'listDeadCauses', status: 200 },
      ...{ summary: 'What is dead, counted by cause', answer: json(page('DeadLetterGroup')) },
    },
    {
      ...{ method: 'get', path: `${all}/{id}`, id: 'getDeadLetter', status: 200 },
      ...{ summary: 'One, with its message and its tries', answer: json(ref('DeadLetter')) },
    },
    {
      ...{ method: 'post', path: `${all}/redrive`, id: 'redriveDeadLetters', status: 200 },
      summary: 'Accept them once more',
      ...{ body: json(toSchema(deadRedriveSchema)), answer: json(ref('Redriven')) },
    },
    {
      ...{ method: 'post', path: `${all}/purge`, id: 'purgeDeadLetters', status: 200 },
      summary: 'Forget them',
      ...{ body: json(toSchema(deadPurgeSchema)), answer: json(ref('Purged')) },
    },
  ];
}
