/**
 * Errors of the caller or the platform. A function's own failure is not one of them: it is a value
 * (`FunctionFailure` in domain/function.ts). Our own mistakes are `assert`s. Compare `code`, never classes.
 */
import type { ErrorCode, Issue, Problem } from '../client/errors.ts';

interface ErrorKind {
  status: number;
  title: string;
  /** What to do about it; shown to people. */
  remedy: string;
  retryable?: boolean;
}

/** Status, title and remedy of every code. `docs/reference/errors.md` is checked against this table. */
export const errorKinds: Record<ErrorCode, ErrorKind> = {
  UNAUTHENTICATED: {
    status: 401,
    title: 'No access',
    remedy: 'Send the token of this function or the admin token: `Authorization: Bearer TOKEN`.',
  },
  ROUTE_NOT_FOUND: {
    status: 404,
    title: 'No such route',
    remedy: 'See /v1/openapi.json for the routes.',
  },
  METHOD_NOT_ALLOWED: {
    status: 405,
    title: 'Method not allowed',
    remedy: 'Use a method named in the Allow header.',
  },
  FUNCTION_NOT_FOUND: {
    status: 404,
    title: 'No such function',
    remedy: 'See `fnway list` for the functions of the namespace.',
  },
  FUNCTION_EXISTS: {
    status: 409,
    title: 'The function exists',
    remedy: 'Change it with PUT, or choose another name.',
  },
  VERSION_NOT_FOUND: {
    status: 404,
    title: 'No such version',
    remedy: 'See `fnway describe NAME` for its versions.',
  },
  VERSION_NOT_READY: {
    status: 503,
    title: 'No version is ready',
    remedy: 'Wait for the build, or see why it failed with `fnway describe NAME`.',
    retryable: true,
  },
  SCHEMA_INVALID: {
    status: 422,
    title: 'Invalid schema',
    remedy: 'Write a JSON Schema 2020-12 that refers to nothing outside itself.',
  },
  INPUT_INVALID: {
    status: 422,
    title: 'The input is not what the function takes',
    remedy: 'Correct the body at the place named.',
  },
  MIDDLEWARE_INVALID: {
    status: 422,
    title: 'Invalid middleware',
    remedy:
      'Export an object with before, after or around by default; see docs/guides/middleware.md.',
  },
  MIDDLEWARE_FAILED: {
    status: 500,
    title: 'A middleware failed',
    remedy: 'Correct the middleware named; the function itself may be well.',
  },
  ACK_ID_INVALID: {
    status: 422,
    title: 'Not an ack id',
    remedy: 'Send the `ackId` of a message that this subscription gave.',
  },
  ACK_ID_STALE: {
    status: 409,
    title: 'Not held any more',
    remedy:
      'Nothing to do: the message is delivered again, or was settled before. Extend what takes longer.',
  },
  DEAD_LETTER_NOT_FOUND: {
    status: 404,
    title: 'No such dead letter',
    remedy: 'See `fnway topics dead-letters list`; they go after FNWAY_DEAD_JOBS_KEPT.',
  },
  MESSAGE_INVALID: {
    status: 422,
    title: 'Invalid message',
    remedy: 'Correct what `issues` names; see docs/guides/topics.md.',
  },
  WEBHOOK_PAUSED: {
    status: 503,
    title: 'The webhook is paused',
    remedy: 'Send it again later, or resume the webhook.',
    retryable: true,
  },
  RESOURCE_NOT_FOUND: {
    status: 404,
    title: 'No such resource',
    remedy: 'Correct the name or the namespace; the list of its kind shows what is there.',
  },
  RESOURCE_EXISTS: {
    status: 409,
    title: 'The name is taken',
    remedy: 'Choose another name or namespace, or the same `project`.',
  },
  RESOURCE_IN_USE: {
    status: 409,
    title: 'Others use it',
    remedy:
      'Let what is named in the detail name another, or remove it first: `fnway schedules remove NAME`, and so on; a subscription: `fnway topics unsubscribe NAME`.',
  },
  SECRET_NOT_FOUND: {
    status: 404,
    title: 'No such secret',
    remedy: 'See `fnway secrets list` for the secrets of the namespace.',
  },
  SECRET_MISSING: {
    status: 422,
    title: 'A secret is missing',
    remedy: 'Set it with `fnway secrets set NAME`.',
  },
  INVOCATION_NOT_FOUND: {
    status: 404,
    title: 'No such invocation',
    remedy: 'See `fnway invocations list`; records go after FNWAY_RECORDS_KEPT.',
  },
  BODIES_NOT_KEPT: {
    status: 409,
    title: 'Input and output were not kept',
    remedy: 'Set `record: bodies` on the function, and call it again.',
  },
  HEADER_INVALID: {
    status: 400,
    title: 'Invalid header',
    remedy: 'Correct the header named.',
  },
  IDEMPOTENCY_CONFLICT: {
    status: 422,
    title: 'The key is taken',
    remedy: 'Send each call with an Idempotency-Key of its own; only a repetition has the same.',
  },
  QUEUE_FULL: {
    status: 429,
    title: 'The queue is full',
    remedy:
      'Try again after the time in Retry-After, or raise `queue.waiting` or `queue.concurrency` of the function.',
    retryable: true,
  },
  JOB_LOST: {
    status: 500,
    title: 'The job was lost too often',
    remedy: 'See whether it is this job that ends the gateway, and redrive it.',
  },
  INVOCATION_CANCELLED: {
    status: 409,
    title: 'The invocation was cancelled',
    remedy: 'Call again if the result is still wanted.',
  },
  INVOCATION_ENDED: {
    status: 409,
    title: 'The invocation has ended',
    remedy: 'See what became of it with `fnway invocations show ID`.',
  },
  INVOCATION_NOT_ENDED: {
    status: 409,
    title: 'The invocation has not ended',
    remedy: 'Wait for it: `fnway invocations result ID --wait 30s`.',
    retryable: true,
  },
  INVOCATION_REDRIVEN: {
    status: 409,
    title: 'The invocation was accepted once more before',
    remedy: 'Look at the one that it became, and redrive that.',
    retryable: false,
  },
  ADDRESS_REFUSED: {
    status: 422,
    title: 'The address is not public',
    remedy:
      'Give an address on the internet, or start the gateway with FNWAY_ALLOW_PRIVATE_CALLBACKS=true.',
  },
  TRAFFIC_INVALID: {
    status: 422,
    title: 'Invalid split of calls',
    remedy:
      'Give each version a whole percentage, adding up to 100: `fnway traffic NAME 3=90 4=10`.',
  },
  REVISION_CONFLICT: {
    status: 409,
    title: 'Changed meanwhile',
    remedy: 'Read the function again and repeat the change.',
    retryable: true,
  },
  JSON_MALFORMED: {
    status: 400,
    title: 'Malformed JSON',
    remedy: 'Correct the body at the place named.',
  },
  DEFINITION_INVALID: {
    status: 422,
    title: 'Invalid definition',
    remedy: 'Correct the fields named.',
  },
  QUERY_INVALID: {
    status: 400,
    title: 'Invalid path or query',
    remedy: 'Correct the parameter named.',
  },
  MANIFEST_INVALID: {
    status: 422,
    title: 'Invalid manifest',
    remedy: 'Correct fnway.yaml at the places named.',
  },
  MEDIA_TYPE_UNSUPPORTED: {
    status: 415,
    title: 'Unsupported media type',
    remedy: 'Send the media type that the route names.',
  },
  RUNTIME_NOT_FOUND: {
    status: 422,
    title: 'No such runtime',
    remedy: 'Use a runtime that the gateway has, or add its directory with --runtimes.',
  },
  RUNTIME_INVALID: {
    status: 422,
    title: 'Invalid runtime',
    remedy: 'Correct the runtime.yaml named.',
  },
  DRIVER_NOT_CONFIGURED: {
    status: 422,
    title: 'No driver for this kind of function',
    remedy: 'Deploy source, a script or an http address; this gateway has no container driver.',
  },
  SOURCE_NOT_FOUND: {
    status: 422,
    title: 'Source not uploaded',
    remedy: 'Upload the archive to /v1/namespaces/{ns}/sources first.',
  },
  SOURCE_INVALID: {
    status: 422,
    title: 'Invalid source',
    remedy: 'Send a gzipped tar of plain files and directories with relative paths.',
  },
  SOURCE_TOO_LARGE: {
    status: 413,
    title: 'Source too large',
    remedy: 'Leave out what the function does not need (.fnwayignore), or raise the limit named.',
  },
  BUILD_FAILED: {
    status: 422,
    title: 'The build failed',
    remedy: 'Correct what the build log names and deploy again.',
  },
  BUILD_TOOL_MISSING: {
    status: 422,
    title: 'A build tool is missing',
    remedy: 'Install the tool named on the machine of the gateway.',
  },
  BUILD_TIMED_OUT: {
    status: 422,
    title: 'The build took too long',
    remedy: 'Make the build smaller, or raise the limit named.',
  },
  LOAD_FAILED: {
    status: 422,
    title: 'The function does not load',
    remedy: 'Correct the place named and deploy again.',
  },
  REQUEST_MALFORMED: {
    status: 400,
    title: 'Malformed request',
    remedy: 'Send a well-formed HTTP/1.1 request; percent-encode bytes above 0x7F in the path.',
  },
  REQUEST_TIMED_OUT: {
    status: 408,
    title: 'The request came too slowly',
    remedy: 'Send the request faster.',
  },
  BODY_TOO_LARGE: {
    status: 413,
    title: 'Body too large',
    remedy: 'Send a smaller body, or use a handler that streams.',
  },
  HEADERS_TOO_LARGE: {
    status: 431,
    title: 'Headers too large',
    remedy: 'Send fewer or shorter headers.',
  },
  UPGRADE_NOT_SUPPORTED: {
    status: 501,
    title: 'Upgrades are not supported',
    remedy: 'Use plain HTTP; stream with server-sent events.',
  },
  FUNCTION_FAILED: {
    status: 502,
    title: 'The function failed',
    remedy: 'See its output with `fnway logs NAME`.',
  },
  FUNCTION_BUSY: {
    status: 429,
    title: 'The function is busy',
    remedy: 'Try again after the time in Retry-After, or raise instances.max or concurrency.',
    retryable: true,
  },
  INSTANCE_NOT_STARTED: {
    status: 503,
    title: 'No instance could start',
    remedy: 'See `fnway logs NAME`; the detail names the cause.',
    retryable: true,
  },
  UPSTREAM_UNREACHABLE: {
    status: 502,
    title: 'The server behind the function does not answer',
    remedy: 'Check that the address in `http.url` is up.',
    retryable: true,
  },
  CALL_DEADLINE_EXCEEDED: {
    status: 504,
    title: 'The function took too long',
    remedy: 'Make it faster, or raise its `timeout`.',
  },
  CALL_CANCELLED: { status: 499, title: 'The caller left', remedy: 'Nothing to do.' },
  GATEWAY_STOPPING: {
    status: 503,
    title: 'The gateway is stopping',
    remedy: 'Try again in a moment.',
    retryable: true,
  },
  GATEWAY_UNREACHABLE: {
    status: 503,
    title: 'The gateway does not answer',
    remedy: 'Start it with `fnway serve`, or set FNWAY_URL.',
    retryable: true,
  },
  LINK_PROTOCOL_BROKEN: {
    status: 502,
    title: 'A runtime broke the link protocol',
    remedy: 'Correct the runtime; see docs/reference/link.md.',
  },
  DATA_DIRECTORY_LOCKED: {
    status: 503,
    title: 'The data directory is in use',
    remedy: 'Stop the other gateway, or use another --data directory.',
  },
  DATA_DIRECTORY_UNUSABLE: {
    status: 503,
    title: 'The data directory cannot be used',
    remedy: 'See that it is writable and that its disk has room, or use another --data directory.',
  },
  CONFIG_INVALID: { status: 422, title: 'Invalid setting', remedy: 'Correct the setting named.' },
  ADDRESS_IN_USE: {
    status: 503,
    title: 'The address is in use',
    remedy: 'Choose another port with --port, or stop what listens there.',
  },
  COMMAND_INVALID: { status: 400, title: 'Invalid command', remedy: 'See `fnway --help`.' },
  INTERNAL: {
    status: 500,
    title: 'A mistake in the gateway',
    remedy: 'Report it with the request id; the log has the details.',
  },
};

export interface GatewayErrorOptions {
  cause?: unknown;
  issues?: Issue[];
  retryAfterMs?: number;
  /** Overrides the remedy of the code where a better one is known. */
  remedy?: string;
  /** Tail of a function's output, for callers who may see it. */
  log?: string[];
}

export class GatewayError extends Error {
  readonly code: ErrorCode;
  readonly status: number;
  readonly retryAfterMs: number | undefined;
  readonly issues: Issue[] | undefined;
  readonly remedy: string;
  readonly log: string[] | undefined;

  constructor(code: ErrorCode, detail: string, options: GatewayErrorOptions = {}) {
    super(detail, options.cause === undefined ? undefined : { cause: options.cause });
    const kind = errorKinds[code];
    this.name = 'GatewayError';
    this.code = code;
    this.status = kind.status;
    this.retryAfterMs = options.retryAfterMs;
    this.issues = options.issues;
    this.remedy = options.remedy ?? kind.remedy;
    this.log = options.log;
  }
}

export function isGatewayError(error: unknown): error is GatewayError {
  return error instanceof Error && 'code' in error && error.name === 'GatewayError';
}

/** The problem+json body of an error. Anything that is not a GatewayError is INTERNAL and says nothing more. */
export function toProblem(error: unknown, requestId?: string): Problem {
  const known = isGatewayError(error)
    ? error
    : new GatewayError(
        'INTERNAL',
        'The gateway made a mistake; its log names it under this request id.',
      );
  return {
    type: `urn:fnway:error:${known.code}`,
    title: errorKinds[known.code].title,
    status: known.status,
    code: known.code,
    detail: known.message,
    remedy: known.remedy,
    ...(requestId !== undefined && { requestId }),
    ...(known.issues !== undefined && { issues: known.issues }),
    ...(known.log !== undefined && { log: known.log }),
  };
}

/** An invariant of ours. A failure is a bug: it names the invariant and ends what runs. */
export function assert(condition: unknown, invariant: string): asserts condition {
  if (!condition) throw new Error(`invariant broken: ${invariant}`);
}
