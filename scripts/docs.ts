/**
 * Writes the reference pages that are made from code: `node scripts/docs.ts`. test/docs.test.ts fails when a page is
 * not what this would write.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { errorCodes } from '../client/errors.ts';
import { commandLineSettings, settings } from '../src/config.ts';
import { errorKinds } from '../src/errors.ts';

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
  FUNCTION_BUSY: 'All instances are busy and as many calls wait as may.',
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

export const pages = { 'errors.md': errorsPage, 'config.md': configPage };

if (import.meta.main) {
  for (const [name, page] of Object.entries(pages)) writeFileSync(join(reference, name), page());
}
