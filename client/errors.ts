/** Every error code of the gateway. A code is never renamed and never reused. */
export const errorCodes = [
  'UNAUTHENTICATED',
  'ROUTE_NOT_FOUND',
  'METHOD_NOT_ALLOWED',
  'FUNCTION_NOT_FOUND',
  'FUNCTION_EXISTS',
  'VERSION_NOT_FOUND',
  'VERSION_NOT_READY',
  'SCHEMA_INVALID',
  'INPUT_INVALID',
  'MIDDLEWARE_INVALID',
  'MIDDLEWARE_FAILED',
  'ACK_ID_INVALID',
  'ACK_ID_STALE',
  'DEAD_LETTER_NOT_FOUND',
  'MESSAGE_INVALID',
  'WEBHOOK_PAUSED',
  'RESOURCE_NOT_FOUND',
  'RESOURCE_EXISTS',
  'RESOURCE_IN_USE',
  'SECRET_NOT_FOUND',
  'SECRET_MISSING',
  'INVOCATION_NOT_FOUND',
  'BODIES_NOT_KEPT',
  'HEADER_INVALID',
  'IDEMPOTENCY_CONFLICT',
  'QUEUE_FULL',
  'JOB_LOST',
  'INVOCATION_CANCELLED',
  'INVOCATION_ENDED',
  'INVOCATION_NOT_ENDED',
  'INVOCATION_REDRIVEN',
  'ADDRESS_REFUSED',
  'TRAFFIC_INVALID',
  'REVISION_CONFLICT',
  'JSON_MALFORMED',
  'DEFINITION_INVALID',
  'QUERY_INVALID',
  'MANIFEST_INVALID',
  'MEDIA_TYPE_UNSUPPORTED',
  'RUNTIME_NOT_FOUND',
  'RUNTIME_INVALID',
  'DRIVER_NOT_CONFIGURED',
  'SOURCE_NOT_FOUND',
  'SOURCE_INVALID',
  'SOURCE_TOO_LARGE',
  'BUILD_FAILED',
  'BUILD_TOOL_MISSING',
  'BUILD_TIMED_OUT',
  'LOAD_FAILED',
  'REQUEST_MALFORMED',
  'REQUEST_TIMED_OUT',
  'BODY_TOO_LARGE',
  'HEADERS_TOO_LARGE',
  'UPGRADE_NOT_SUPPORTED',
  'FUNCTION_FAILED',
  'FUNCTION_BUSY',
  'INSTANCE_NOT_STARTED',
  'UPSTREAM_UNREACHABLE',
  'CALL_DEADLINE_EXCEEDED',
  'CALL_CANCELLED',
  'GATEWAY_STOPPING',
  'GATEWAY_UNREACHABLE',
  'LINK_PROTOCOL_BROKEN',
  'DATA_DIRECTORY_LOCKED',
  'DATA_DIRECTORY_UNUSABLE',
  'CONFIG_INVALID',
  'ADDRESS_IN_USE',
  'COMMAND_INVALID',
  'INTERNAL',
] as const;

export type ErrorCode = (typeof errorCodes)[number];

/** How a function failed; the value of the `X-Fnway-Failure` header. */
export const failureReasons = [
  'threw',
  'crashed',
  'timeout',
  'out-of-memory',
  'exit',
  'reply-invalid',
] as const;

export type FailureReason = (typeof failureReasons)[number];

/** One thing wrong with an input: where it is, what is wrong, and what would be right. */
export interface Issue {
  path: string;
  message: string;
  hint?: string;
  line?: number;
  column?: number;
}

/** The body of every error answer: `application/problem+json` (RFC 9457). */
export interface Problem {
  type: string;
  title: string;
  status: number;
  code: ErrorCode;
  detail: string;
  remedy?: string;
  requestId?: string;
  issues?: Issue[];
  reason?: FailureReason;
  log?: string[];
}
