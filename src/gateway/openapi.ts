/** The OpenAPI 3.1 document of the control plane, made from the schemas that validate its requests. */
import { z } from 'zod';
import { definitionSchema, nameSchema } from '../domain/function.ts';
import { resourceRules } from '../domain/resource.ts';
import { resourceOperations } from './openapi-resources.ts';
import { ref, views } from './openapi-views.ts';
import { listQuerySchema } from './routes/functions.ts';
import { invocationQuerySchema } from './routes/invocations.ts';
import { waitQuerySchema } from './routes/jobs.ts';
import { logsQuerySchema } from './routes/logs.ts';
import { secretValueSchema } from './routes/secrets.ts';

export interface Operation {
  method: 'get' | 'post' | 'put' | 'delete';
  path: string;
  id: string;
  summary: string;
  query?: Record<string, unknown>;
  body?: Record<string, unknown>;
  status: number;
  answer?: Record<string, unknown>;
}

const json = (schema: Record<string, unknown>) => ({ 'application/json': { schema } });
const page = (name: string) => ({
  type: 'object',
  required: ['items'],
  properties: { items: { type: 'array', items: ref(name) }, next: { type: 'string' } },
});
const wait = {
  wait: {
    type: 'string',
    description: 'How long to wait for the build to settle, such as `30s`; at most `10m`.',
  },
};

const functionsPath = '/v1/namespaces/{namespace}/functions';
const functionPath = `${functionsPath}/{name}`;
const invocationsPath = '/v1/namespaces/{namespace}/invocations';
const secretsPath = '/v1/namespaces/{namespace}/secrets';
const sourcesPath = '/v1/namespaces/{namespace}/sources';

function operations(): Operation[] {
  return [
    {
      method: 'get',
      path: functionsPath,
      id: 'listFunctions',
      summary: 'Functions in order of name',
      query: queryOf(listQuerySchema),
      status: 200,
      answer: json(page('Function')),
    },
    {
      method: 'post',
      path: functionsPath,
      id: 'createFunction',
      summary: 'Create a function',
      query: wait,
      body: json({
        allOf: [
          { type: 'object', required: ['name'], properties: { name: toSchema(nameSchema) } },
          ref('Definition'),
        ],
      }),
      status: 201,
      answer: json(ref('PutResult')),
    },
    {
      method: 'get',
      path: functionPath,
      id: 'getFunction',
      summary: 'Describe a function',
      status: 200,
      answer: json(ref('Function')),
    },
    {
      method: 'put',
      path: functionPath,
      id: 'putFunction',
      summary: 'Create or change a function; identical content makes no version',
      query: wait,
      body: json(ref('Definition')),
      status: 200,
      answer: json(ref('PutResult')),
    },
    {
      method: 'delete',
      path: functionPath,
      id: 'removeFunction',
      summary: 'Remove a function with its versions',
      status: 204,
    },
    {
      method: 'get',
      path: `${functionPath}/versions`,
      id: 'listVersions',
      summary: 'Versions, newest first',
      status: 200,
      answer: json(page('Version')),
    },
    {
      method: 'get',
      path: `${functionPath}/versions/{number}`,
      id: 'getVersion',
      summary: 'A version with its build log',
      query: wait,
      status: 200,
      answer: json(ref('Version')),
    },
    {
      method: 'post',
      path: `${functionPath}/versions/{number}/promote`,
      id: 'promoteVersion',
      summary: 'Let a ready version answer the calls that pin none',
      status: 200,
      answer: json(ref('Function')),
    },
    {
      method: 'put',
      path: `${functionPath}/traffic`,
      id: 'splitTraffic',
      summary: 'Split the calls that pin no version among versions',
      body: json(ref('Traffic')),
      status: 200,
      answer: json(ref('Function')),
    },
    {
      method: 'delete',
      path: `${functionPath}/traffic`,
      id: 'endTraffic',
      summary: 'Let the active version answer all calls again',
      status: 200,
      answer: json(ref('Function')),
    },
    {
      method: 'get',
      path: `${functionPath}/token`,
      id: 'getToken',
      summary: 'The token of the endpoint',
      status: 200,
      answer: json(ref('Token')),
    },
    {
      method: 'post',
      path: `${functionPath}/token`,
      id: 'rotateToken',
      summary: 'A new token; the old one is void at once',
      status: 200,
      answer: json(ref('Token')),
    },
    {
      method: 'get',
      path: `${functionPath}/logs`,
      id: 'getOutput',
      summary: 'Output of the instances',
      query: queryOf(logsQuerySchema),
      status: 200,
      answer: { 'application/x-ndjson': { schema: ref('OutputLine') } },
    },
    {
      method: 'get',
      path: invocationsPath,
      id: 'listInvocations',
      summary: 'Records of calls, newest first',
      query: queryOf(invocationQuerySchema),
      status: 200,
      answer: json(page('Invocation')),
    },
    {
      method: 'get',
      path: `${invocationsPath}/{id}`,
      id: 'getInvocation',
      summary: 'The record of a call, or what has become of an async one',
      query: queryOf(waitQuerySchema),
      status: 200,
      answer: json(ref('Invocation')),
    },
    {
      method: 'get',
      path: `${invocationsPath}/{id}/result`,
      id: 'getResult',
      summary: 'What the function answered to an async call; 202 while it has not',
      query: queryOf(waitQuerySchema),
      status: 200,
    },
    {
      method: 'post',
      path: `${invocationsPath}/{id}/cancel`,
      id: 'cancelInvocation',
      summary: 'End an async call that waits or runs',
      status: 200,
      answer: json(ref('Invocation')),
    },
    {
      method: 'post',
      path: `${invocationsPath}/{id}/redrive`,
      id: 'redriveInvocation',
      summary: 'Accept an async call that has failed once more',
      body: json({
        type: 'object',
        additionalProperties: false,
        properties: { version: { type: 'integer', minimum: 1 } },
      }),
      status: 202,
      answer: json(ref('Accepted')),
    },
    {
      method: 'get',
      path: `${invocationsPath}/{id}/bodies`,
      id: 'getBodies',
      summary: 'What went in and came out, where that was kept',
      status: 200,
      answer: json(ref('InvocationBodies')),
    },
    {
      method: 'post',
      path: `${invocationsPath}/{id}/replay`,
      id: 'replayInvocation',
      summary: 'Call again with what was kept',
      body: json({
        type: 'object',
        additionalProperties: false,
        properties: { version: { type: 'integer', minimum: 1 } },
      }),
      status: 200,
      answer: json(ref('Replay')),
    },
    {
      method: 'get',
      path: secretsPath,
      id: 'listSecrets',
      summary: 'Names of secrets; no route gives a value',
      status: 200,
      answer: json(page('Secret')),
    },
    {
      method: 'put',
      path: `${secretsPath}/{name}`,
      id: 'putSecret',
      summary: 'Set a secret, or give it another value',
      body: json(toSchema(secretValueSchema)),
      status: 200,
      answer: json(ref('Secret')),
    },
    {
      method: 'delete',
      path: `${secretsPath}/{name}`,
      id: 'removeSecret',
      summary: 'Remove a secret',
      status: 204,
    },
    ...resourceOperations({ json, page, queryOf, toSchema }),
    {
      method: 'post',
      path: sourcesPath,
      id: 'putSource',
      summary: 'Upload a gzipped tar of source',
      body: { 'application/gzip': { schema: { type: 'string', format: 'binary' } } },
      status: 201,
      answer: json(ref('Source')),
    },
    {
      method: 'get',
      path: `${sourcesPath}/{digest}`,
      id: 'getSource',
      summary: 'Whether a source has been uploaded',
      status: 200,
      answer: json(ref('Source')),
    },
    {
      method: 'get',
      path: '/v1/runtimes',
      id: 'listRuntimes',
      summary: 'Runtimes of this gateway',
      status: 200,
      answer: json(page('Runtime')),
    },
  ];
}

export function openApi(): Record<string, unknown> {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const operation of operations()) {
    paths[operation.path] ??= {};
    paths[operation.path]![operation.method] = describe(operation);
  }
  return {
    openapi: '3.1.0',
    info: { title: 'fnway', version: '1', description: 'The control plane of a function gateway.' },
    security: [{ adminToken: [] }],
    paths,
    components: {
      securitySchemes: { adminToken: { type: 'http', scheme: 'bearer' } },
      schemas: {
        Definition: toSchema(definitionSchema),
        ScheduleDefinition: toSchema(resourceRules.schedule.schema),
        BucketDefinition: toSchema(resourceRules.bucket.schema),
        NotificationDefinition: toSchema(resourceRules.notification.schema),
        WebhookDefinition: toSchema(resourceRules.webhook.schema),
        TopicDefinition: toSchema(resourceRules.topic.schema),
        SubscriptionDefinition: toSchema(resourceRules.subscription.schema),
        ...views,
      },
    },
  };
}

function describe(operation: Operation): Record<string, unknown> {
  const inPath = [...operation.path.matchAll(/\{(\w+)\}/g)].map(([, name]) => ({
    name,
    in: 'path',
    required: true,
    schema: name === 'number' ? { type: 'integer', minimum: 1 } : { type: 'string' },
  }));
  const inQuery = Object.entries(operation.query ?? {}).map(([name, schema]) => ({
    name,
    in: 'query',
    required: false,
    schema,
  }));
  return {
    operationId: operation.id,
    summary: operation.summary,
    parameters: [...inPath, ...inQuery],
    ...(operation.body !== undefined && {
      requestBody: { required: true, content: operation.body },
    }),
    responses: {
      [operation.status]: {
        description: operation.summary,
        ...(operation.answer !== undefined && { content: operation.answer }),
      },
      default: {
        description: 'An error',
        content: { 'application/problem+json': { schema: ref('Problem') } },
      },
    },
  };
}

function queryOf(schema: z.ZodType): Record<string, unknown> {
  return toSchema(schema).properties as Record<string, unknown>;
}

function toSchema(schema: z.ZodType): Record<string, unknown> {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, {
    io: 'input',
    unrepresentable: 'any',
  }) as Record<string, unknown>;
  return rest;
}
