/**
 * Writes the reference pages that are made from code: `node scripts/docs.ts`. test/docs.test.ts fails when a page is
 * not what this would write.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { errorCodes } from '../client/errors.ts';
import { commandLineSettings, settings } from '../src/config.ts';
import { errorKinds } from '../src/errors.ts';
import { limitsPage } from './limits-page.ts';

const reference = join(import.meta.dirname, '../docs/reference');

/** When each code comes up: what only a person can say. */
const causes: Record<(typeof errorCodes)[number], string> = {
  UNAUTHENTICATED:
    'No token, a wrong token, or a function that does not exist: a caller without rights cannot tell which.',
  ROUTE_NOT_FOUND: 'The path is none of the gateway’s.',
  METHOD_NOT_ALLOWED: 'The path exists, for other methods; `Allow` names them.',
  FUNCTION_NOT_FOUND: 'A caller with rights named a function that does not exist.',
  FUNCTION_EXISTS: '`POST` of a name that is taken in the namespace.',
  VERSION_NOT_FOUND: 'A call pinned `@version`, or a route named, a version that does not exist.',
  VERSION_NOT_READY:
    'The function’s first version is being built or has failed, or the pinned one has.',
  SCHEMA_INVALID:
    '`schema.in` or `schema.out` of a definition is no JSON Schema, is too long, or refers to something outside itself.',
  INPUT_INVALID:
    'The body of a call is not what the function’s `schema.in`, its `argKeys` or its convention say; `issues` has the path.',
  MIDDLEWARE_INVALID:
    'At the start: a module of `--middleware` lies outside the working directory, does not load, or is no middleware.',
  MIDDLEWARE_FAILED: 'A middleware threw, or returned what is no answer. Only this call fails.',
  ACK_ID_INVALID: 'An `ackId` was made up, or is of another subscription. Nothing was done.',
  ACK_ID_STALE:
    'The deadline of a pulled message has passed, or it was settled before; `issues` names which. The others were settled.',
  DEAD_LETTER_NOT_FOUND:
    'A route named a dead letter that is not there (any more), or is not dead.',
  MESSAGE_INVALID:
    'What is published is no message or CloudEvent, or is over a limit; `issues` has the path. Nothing of it was published.',
  WEBHOOK_PAUSED:
    'Something was posted, rightly signed, to a webhook that is paused. Senders try again later.',
  RESOURCE_NOT_FOUND:
    'A route, or another definition, named a topic, a subscription, a schedule, a webhook or a bucket that the namespace does not have.',
  RESOURCE_EXISTS: 'A topic, schedule or the like of that name belongs to another project.',
  RESOURCE_IN_USE:
    'A function or a topic is to be removed that a subscription, a schedule or another trigger names.',
  SECRET_NOT_FOUND: 'A route named a secret that the namespace does not have.',
  SECRET_MISSING:
    'A definition, or a call of its function, needs a secret that the namespace does not have.',
  INVOCATION_NOT_FOUND:
    'A route named an invocation of which there is no record (any more) in the namespace.',
  HEADER_INVALID:
    '`X-Delay`, `X-Run-At`, `X-Priority`, `X-Callback-Url` or `Idempotency-Key` of an async call is not what it can be.',
  IDEMPOTENCY_CONFLICT:
    'An async call has the `Idempotency-Key` of another one that was accepted within 24 hours, and is not the same.',
  QUEUE_FULL: 'As many jobs of a function wait as may; the call was not accepted.',
  JOB_LOST:
    'Three gateways were killed, or lost their leases, while they tried a job: it is not tried again by itself.',
  INVOCATION_CANCELLED: 'The result is asked for of an invocation that was cancelled.',
  INVOCATION_ENDED: 'An invocation is to be cancelled that has ended.',
  INVOCATION_NOT_ENDED:
    'The result of an async call is asked for, or it is to be driven again, and it waits or runs.',
  INVOCATION_REDRIVEN:
    'An invocation or a dead letter is to be accepted once more, which was done before; each is redriven once.',
  ADDRESS_REFUSED:
    'An address to call back leads into a private network, or to this machine; also when that is found when it is connected to.',
  BODIES_NOT_KEPT: 'A replay, or a look at the bodies, of a call that was recorded without them.',
  TRAFFIC_INVALID: 'The shares of a split do not add up to 100, or are of too many versions.',
  REVISION_CONFLICT: 'Two changes of one function met.',
  JSON_MALFORMED: 'The body is not JSON; `issues` names line and column.',
  DEFINITION_INVALID:
    'A field is unknown, missing, of the wrong type or out of bounds; `issues` names each with its path.',
  QUERY_INVALID: 'A query parameter or a path segment is unknown or of the wrong form.',
  MANIFEST_INVALID:
    'fnway.yaml is not YAML or says something it may not; line and column are named.',
  MEDIA_TYPE_UNSUPPORTED: 'The Content-Type is not what the route takes.',
  RUNTIME_NOT_FOUND: 'The definition names a runtime that this gateway does not have.',
  RUNTIME_INVALID: 'A runtime.yaml cannot be read or says something it may not.',
  DRIVER_NOT_CONFIGURED: 'The kind of function needs a driver that this gateway does not have.',
  SOURCE_NOT_FOUND: 'The definition names the digest of a source that has not been uploaded.',
  SOURCE_INVALID:
    'An archive or a directory has something that source may not have: links, devices, paths that leave it.',
  SOURCE_TOO_LARGE:
    'An archive, its content or the number of its files is over a limit; the detail names it.',
  BUILD_FAILED:
    'Installing or compiling failed. On a version’s `failure`; never an answer’s code by itself.',
  BUILD_TOOL_MISSING:
    'The machine lacks npm, pip or another tool that the build needs. On a version’s `failure`.',
  BUILD_TIMED_OUT: 'The build took longer than its limit. On a version’s `failure`.',
  LOAD_FAILED:
    'The code does not load in an instance: syntax, a missing module or handler, an exception. On a version’s `failure`.',
  REQUEST_MALFORMED: 'Not HTTP/1.1, or raw bytes above 0x7F in the path.',
  REQUEST_TIMED_OUT: 'Headers or body came too slowly.',
  BODY_TOO_LARGE: 'The body is over the limit of the route, or of handlers that need it whole.',
  HEADERS_TOO_LARGE: 'Request line and headers together are over the limit.',
  UPGRADE_NOT_SUPPORTED: 'A WebSocket or other upgrade.',
  FUNCTION_FAILED:
    'The function threw, crashed, ran out of memory, exited with an error, or returned what is no answer; `reason` and `X-Fnway-Failure` say which.',
  FUNCTION_BUSY:
    'As many calls of the version are under way as all its instances can run, and as many more wait as may.',
  INSTANCE_NOT_STARTED: 'A call needs an instance and none can start; the detail names why.',
  UPSTREAM_UNREACHABLE: 'The server of an `http` function refuses, resets or does not resolve.',
  CALL_DEADLINE_EXCEEDED:
    'The call was not answered within the function’s timeout. With `X-Fnway-Failure: timeout` the function had it and did not answer; without, no instance was free.',
  CALL_CANCELLED: 'The caller left before the answer. Seen in metrics only.',
  GATEWAY_STOPPING: 'The gateway is shutting down.',
  GATEWAY_UNREACHABLE: 'The command line cannot reach the gateway.',
  LINK_PROTOCOL_BROKEN: 'A runtime’s process sent a frame that breaks the protocol; it was ended.',
  DATA_DIRECTORY_LOCKED: 'Another gateway uses the data directory.',
  DATA_DIRECTORY_UNUSABLE:
    'The data directory cannot be written, is open to others, was sealed by another key, or is of a newer version.',
  CONFIG_INVALID: 'A flag or an environment variable has a value it may not have.',
  ADDRESS_IN_USE: 'Another program listens on the address.',
  COMMAND_INVALID: 'The command line is not one of fnway’s.',
  INTERNAL: 'A mistake of ours; the log has it under the request id.',
};

export function errorsPage(): string {
  const rows = errorCodes.map(code => {
    const { status, title, remedy, retryable } = errorKinds[code];
    return `## ${code}\n\n${status} · ${title}${retryable ? ' · worth another try' : ''}\n\n${causes[code]}\n\n**What to do:** ${remedy}\n`;
  });
  return `# Errors

Every error answer is \`application/problem+json\` with \`code\`, \`status\`, \`title\`, \`detail\` (what happened and why), \`remedy\` (what to do) and
\`requestId\`. Compare \`code\`; texts may change. A code is never renamed or reused. A function’s own failure is FUNCTION_FAILED (502) or
CALL_DEADLINE_EXCEEDED (504) with the header \`X-Fnway-Failure\`: \`threw\`, \`crashed\`, \`timeout\`, \`out-of-memory\`, \`exit\` or \`reply-invalid\`.

${rows.join('\n')}`;
}

export function configPage(): string {
  const rows = Object.entries(settings).map(([name, setting]) => {
    const flag = !(commandLineSettings as readonly string[]).includes(name)
      ? '–'
      : `\`--${setting.flag.replace(/[A-Z]/g, c => `-${c.toLowerCase()}`)}\``;
    const value = setting.default === '' ? '–' : `\`${setting.default}\``;
    return `| ${flag} | \`${setting.env}\` | ${value} | ${setting.help} |`;
  });
  return `# Settings

Of \`fnway serve\` and \`fnway up\`. A flag beats its environment variable, which beats the default. Durations are \`500ms\`, \`30s\`, \`2m\`; sizes
\`64Ki\`, \`16Mi\`. A value that is none of what a setting takes stops the start with CONFIG_INVALID.

| flag | environment | default | what |
|---|---|---|---|
${rows.join('\n')}

When the gateway is root, each function runs as a user of its own from the range of \`FNWAY_UID_RANGE\`, and its files lie below the data
directory if every user can pass its parents, else below \`/var/lib/fnway\`. A gateway ends every process of its range when it starts and when it dies: give two gateways ranges that do not overlap. Installers inherit \`PIP_*\`, \`npm_config_*\` for registries and
proxies, proxy variables and certificate paths of the gateway’s environment, and nothing else; functions inherit nothing.
`;
}

export const pages = { 'errors.md': errorsPage, 'config.md': configPage, 'limits.md': limitsPage };

if (import.meta.main) {
  for (const [name, page] of Object.entries(pages)) writeFileSync(join(reference, name), page());
}
