/** The OpenAPI 3.1 document of the control plane, made from the schemas that validate its requests. */
import { z } from 'zod';
import { errorCodes } from '../../client/errors.ts';
import { definitionSchema, nameSchema } from '../domain/function.ts';
import { severities } from '../domain/log-line.ts';
import { callers, failureKinds, origins, recordStates } from '../domain/record.ts';
import { listQuerySchema } from './routes/functions.ts';
import { invocationQuerySchema } from './routes/invocations.ts';
import { logsQuerySchema } from './routes/logs.ts';
import { secretValueSchema } from './routes/secrets.ts';

interface Operation {
  method: 'get' | 'post' | 'put' | 'delete';
  path: string;
  id: string;
  summary: string;
  query?: Record<string, unknown>;
  body?: Record<string, unknown>;
  status: number;
  answer?: Record<string, unknown>;
}

const ref = (name: string) => ({ $ref: `#/components/schemas/${name}` });
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
      summary: 'The record of a call',
      status: 200,
      answer: json(ref('Invocation')),
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
      schemas: { Definition: toSchema(definitionSchema), ...views },
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

/** The answers' shapes: client/api.ts in JSON Schema; test/api checks real answers against them. */
const views = {
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
    ['activeVersion', 'traffic', 'concurrency', 'project', 'drifted', 'running'],
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
  Token: object({ token: text }),
  Secret: object({ name: text, updatedAt: text }),
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
      state: { enum: [...recordStates] },
      status: whole,
      origin: { enum: [...origins] },
      caller: { enum: [...callers] },
      ...{ attempt: whole, method: text, path: text, startedAt: text },
      durationMs: { type: 'number' },
      ...{ instance: text, parent: text, label: text },
      failure: object(
        {
          kind: { enum: [...failureKinds] },
          ...{ code: text, reason: text, message: text, type: text },
          ...{ file: text, line: whole, stack: text, exit: text },
        },
        ['reason', 'type', 'file', 'line', 'stack', 'exit'],
      ),
    },
    ['instance', 'parent', 'label', 'failure'],
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
