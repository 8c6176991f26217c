/** The routes of what manifests declare beside functions, for the OpenAPI document: those of all kinds, then what one can do. */
import type { z } from 'zod';
import { type ResourceKind, resourceKinds, resourceRules } from '../domain/resource.ts';
import type { Operation } from './openapi.ts';
import { ref } from './openapi-views.ts';
import { resourceQuerySchema } from './routes/resources.ts';
import { historyQuerySchema } from './routes/schedules.ts';

interface Tools {
  json(schema: Record<string, unknown>): Record<string, unknown>;
  page(name: string): Record<string, unknown>;
  queryOf(schema: z.ZodType): Record<string, unknown>;
}

export function resourceOperations(tools: Tools): Operation[] {
  return [...resourceKinds.flatMap(kind => ofKind(kind, tools)), ...ofSchedules(tools)];
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
