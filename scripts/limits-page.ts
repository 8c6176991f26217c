/** The page of limits, made from the constants themselves: see docs.ts. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ErrorCode } from '../client/errors.ts';
import { rememberedValuesMax } from '../src/auth/masks.ts';
import { buildLimits } from '../src/build/build.ts';
import { pathLimits, sourceLimits } from '../src/build/source.ts';
import { manifestLimits } from '../src/cli/yaml-reader.ts';
import { settings } from '../src/config.ts';
import { bucketLimits } from '../src/domain/bucket.ts';
import { definitionDefaults, definitionLimits } from '../src/domain/function.ts';
import { notificationLimits } from '../src/domain/notification.ts';
import { operationLimits } from '../src/domain/operation.ts';
import { recordLimits } from '../src/domain/record.ts';
import { retryLimits } from '../src/domain/retry.ts';
import type { Runtime } from '../src/domain/runtime.ts';
import { onTimeMs, scheduleLimits } from '../src/domain/schedule.ts';
import { maskedCharsMin, secretLimits } from '../src/domain/secret.ts';
import { subscriptionDefaults, topicLimits } from '../src/domain/topic.ts';
import { trafficLimits } from '../src/domain/traffic.ts';
import { webhookLimits } from '../src/domain/webhook.ts';
import { crashLinesMax } from '../src/driver/process/link-instance.ts';
import { memoryCheckMs } from '../src/driver/process/memory.ts';
import { readRuntimes } from '../src/driver/process/runtimes.ts';
import { errorKinds } from '../src/errors.ts';
import { callbackUrlCharsMax } from '../src/gateway/async-headers.ts';
import { controlLimits } from '../src/gateway/control-plane.ts';
import { keepAliveMs, wholeBodyBytesMax } from '../src/gateway/node-reader.ts';
import { listQuerySchema } from '../src/gateway/routes/functions.ts';
import { waitMsMax } from '../src/gateway/routes/jobs.ts';
import { publicationBytesMax } from '../src/gateway/routes/topics.ts';
import { acceptingBytesMax, webhookBytesMax } from '../src/gateway/whole-bodies.ts';
import { schemaBytesMax } from '../src/invoke/json-schema.ts';
import { gatheredBytesMax } from '../src/invoke/middleware/gather.ts';
import { returnMsMax } from '../src/invoke/pool.ts';
import { payloadBytesMax, windowBytes } from '../src/link/frames.ts';
import { linkLimits } from '../src/link/server.ts';
import { callbackRetry, callbacksRunningMax } from '../src/queue/callbacks.ts';
import { callLimits } from '../src/queue/calls.ts';
import { outboundLimits } from '../src/queue/outbound.ts';
import { lostMax } from '../src/queue/outcome.ts';
import { queueLimits } from '../src/queue/queue.ts';
import { slotsMax } from '../src/slots.ts';
import { jobLimits } from '../src/store/jobs.ts';
import { openedBlocksMax } from '../src/store/records/search.ts';
import { writeLimits } from '../src/store/records/sqlite.ts';
import { slotsKeptMax } from '../src/store/schedules.ts';
import { walPagesMax } from '../src/store/sqlite/checkpoints.ts';
import { outputLimits } from '../src/telemetry/output.ts';
import { attributesHeaderCharsMax } from '../src/trigger/message-shapes.ts';
import { notificationsRunningMax } from '../src/trigger/notifications.ts';
import { pulledBytesMax } from '../src/trigger/pull.ts';
import { publishLimits } from '../src/trigger/topics.ts';

export function limitsPage(): string {
  const sections = [
    ['HTTP', httpLimits()],
    ['Control plane', controlPlaneLimits()],
    ['Definition of a function', definitionRows()],
    ['Source', sourceRows()],
    ['Build and load', buildRows()],
    ['Calls and instances', callRows()],
    ['Link to instances', linkRows()],
    ['Output of functions', outputRows()],
    ['Async calls and jobs', jobRows()],
    ['Topics and subscriptions', topicRows()],
    ['Webhooks and notifications', webhookRows()],
    ['Buckets', bucketRows()],
    ['Schedules', scheduleRows()],
    ['Records of calls', recordRows()],
    ['Secrets, schemas and traffic', secretRows()],
    ['Manifest and command line', manifestRows()],
  ].map(
    ([title, rows]) =>
      `## ${title}\n\n| name | what | value | set by | beyond it |\n|---|---|---|---|---|\n${rows}\n`,
  );
  return `# Limits

Made from the code: the first column is the name of the constant or setting there. \`FNWAY_…\` is a [setting](config.md) of the gateway, any
other name a key of the [definition](manifest.md); what is fixed is the same everywhere. Codes are in [errors](errors.md). KiB is 1,024 bytes.

${sections.join('\n')}
## Not limited

Streamed bodies in either direction; connections, and calls in one; processor time, disk space and number of processes of a function
([isolation](../concepts/isolation.md)).
`;
}

function httpLimits(): string {
  const largest = count(privateConstant('src/config.ts', 'headersBytesLargest'));
  const waiting = privateConstant('src/gateway/fast-reader.ts', 'waitingBytesMax');
  const unread = privateConstant('src/gateway/node-reader.ts', 'bufferedBytesMax');
  return `\
${setting('headersBytesMax', 'request line and headers together', error('HEADERS_TOO_LARGE'))}
| \`headersBytesLargest\` | that setting | ${largest} bytes | fixed | ${error('CONFIG_INVALID')} at start |
| \`bufferedBodyBytesLargest\` | the setting \`bufferedBodyBytesMax\` | 1 GiB | fixed | ${error('CONFIG_INVALID')} at start |
${setting('headersMsMax', 'from a request’s first byte to the end of its headers', error('REQUEST_TIMED_OUT'))}
${setting('bodyIdleMsMax', 'pause between two pieces of a body', error('REQUEST_TIMED_OUT'))}
| \`keepAliveMs\` | a connection without a request | ${ms(keepAliveMs)} | fixed | it is closed |
| \`wholeBodyBytesMax\` | body that is read whole before the call starts | ${bytes(wholeBodyBytesMax)} | fixed | it is streamed |
| \`waitingBytesMax\` | pipelined bytes of a connection that wait while a call runs | ${bytes(waiting)} | fixed | the sender waits |
| \`bufferedBytesMax\` | streamed body that its reader has not taken | ${bytes(unread)} | fixed | the sender waits |
| \`X-Call-Id\` | label that a caller gives a call, printable ASCII | 128 characters | fixed | an id of ours replaces it |`;
}

function controlPlaneLimits(): string {
  const wait = privateConstant('src/gateway/routes/functions.ts', 'waitMsMax');
  const unread = privateConstant('src/gateway/routes/logs.ts', 'followBytesMax');
  const issues = privateConstant('src/gateway/parse.ts', 'issuesMax');
  const token = privateConstant('src/auth/token.ts', 'tokenCharsMin');
  const page = listQuerySchema.parse({}).limit;
  return `\
| \`jsonBytesMax\` | JSON body | ${bytes(controlLimits.jsonBytesMax)} | fixed | ${error('BODY_TOO_LARGE')} |
| \`sourceBytesMax\` | body that is a source archive | ${bytes(controlLimits.sourceBytesMax)} | fixed | ${error('BODY_TOO_LARGE')} |
| \`waitMsMax\` | \`wait\` of a request | ${ms(wait)} | fixed | ${error('QUERY_INVALID')} |
| \`limit\` | functions or invocations in one page of a list | 1 to 1,000; ${page} when not given | fixed | ${error('QUERY_INVALID')} |
| \`prefix\`, \`cursor\` | in the query of a list | 63, 100 characters | fixed | ${error('QUERY_INVALID')} |
| \`lines\` | lines of output in one answer | 0 to 10,000; 100 when not given | fixed | ${error('QUERY_INVALID')} |
| \`followBytesMax\` | output that a follower has not read | ${bytes(unread)} | fixed | the follower misses lines |
| \`issuesMax\` | issues in one answer | ${issues} | fixed | the detail says how many more |
| \`tokenCharsMin\` | a configured admin token, at least | ${token} characters | \`FNWAY_ADMIN_TOKEN\` | ${error('CONFIG_INVALID')} |`;
}

function definitionRows(): string {
  const limits = definitionLimits;
  const { memoryBytes, timeoutMs, instances } = definitionDefaults;
  const row = (name: string, what: string, value: string, keys: string) =>
    `| \`${name}\` | ${what} | ${value} | \`${keys}\` | ${error('DEFINITION_INVALID')} |`;
  return [
    row('nameCharsMax', 'a name', `${limits.nameCharsMax} characters`, 'name'),
    row('timeoutMsMax', `longest call; ${ms(timeoutMs)} by default`, '1 ms to 1 day', 'timeout'),
    row('memory', `most memory; ${bytes(memoryBytes)} by default`, 'from 16 MiB', 'memory'),
    row('concurrencyMax', 'calls at once', `1 to ${count(limits.concurrencyMax)}`, 'concurrency'),
    row('instancesMax', `${instances.max} by default`, count(limits.instancesMax), 'instances.max'),
    row('envKeysMax', 'variables', count(limits.envKeysMax), 'env`, `buildEnv'),
    row('envBytesMax', 'those as JSON', bytes(limits.envBytesMax), 'env`, `buildEnv'),
    row('argsMax', 'arguments, and keys of arguments', count(limits.argsMax), 'args`, `argKeys'),
    row('argCharsMax', 'one of them', count(limits.argCharsMax), 'args`, `argKeys'),
    row('scriptBytesMax', 'inline script', bytes(limits.scriptBytesMax), 'script'),
    row(
      'sourceFilesMax',
      'inline files; names of up to 255 characters',
      count(limits.sourceFilesMax),
      'source.files',
    ),
    row('sourceTextBytesMax', 'their text', bytes(limits.sourceTextBytesMax), 'source.files'),
    row('labelsMax', 'names of up to 127, values of up to 256', `${limits.labelsMax}`, 'labels'),
    row('descriptionCharsMax', 'text', count(limits.descriptionCharsMax), 'description'),
  ].join('\n');
}

function sourceRows(): string {
  const invalid = error('SOURCE_INVALID');
  const large = error('SOURCE_TOO_LARGE');
  const { archiveBytesMax, unpackedBytesMax, filesMax } = sourceLimits;
  return `\
| \`archiveBytesMax\` | gzipped archive; over HTTP \`sourceBytesMax\` comes first | ${bytes(archiveBytesMax)} | fixed | ${large} |
| \`unpackedBytesMax\` | content; of an archive: the tar in it, headers included | ${bytes(unpackedBytesMax)} | fixed | ${large} |
| \`filesMax\` | files; of an archive: entries, directories included | ${count(filesMax)} | fixed | ${large} |
| \`segmentBytesMax\` | a segment of a path | ${pathLimits.segmentBytesMax} bytes | fixed | ${invalid} |
| \`pathBytesMax\` | a path | ${count(pathLimits.pathBytesMax)} bytes | fixed | ${invalid} |
| \`depthMax\` | segments of a path | ${pathLimits.depthMax} | fixed | ${invalid} |`;
}

function buildRows(): string {
  const start = privateConstant('src/driver/process/warm.ts', 'startMsMax');
  const loads = `${error('LOAD_FAILED')} on the version, ${error('INSTANCE_NOT_STARTED')} for a call`;
  const { buildsMax, outputBytesMax, filesNamedMax } = buildLimits;
  return `\
${setting('buildMsMax', 'a build, without its wait for others (in code `buildTimeoutMsMax`)', error('BUILD_TIMED_OUT'))}
| \`buildsMax\` | builds at once | ${buildsMax} | fixed | the next one waits |
| \`outputBytesMax\` | build log that is kept | ${bytes(outputBytesMax)} | fixed | its middle is left out |
| \`filesNamedMax\` | files named when no entry is found | ${filesNamedMax} | fixed | the message says how many more |
${setting('loadMsMax', 'loading the code; the check of a stdio runtime', loads)}
| \`startMsMax\` | from starting a linked process to its HELLO | ${ms(start)} | fixed | ${error('INSTANCE_NOT_STARTED')} |
| \`warm\` | ready processes; ${runtimesSay(({ warm }) => warm)} by default | 0 to 100 | \`FNWAY_WARM\`, runtime.yaml | ${error('CONFIG_INVALID')}, ${error('RUNTIME_INVALID')} |`;
}

function callRows(): string {
  const late = `${error('CALL_DEADLINE_EXCEEDED')} before the head, a broken connection after it`;
  const failed = (reason: string) => `${error('FUNCTION_FAILED')}, \`${reason}\``;
  const stable = privateConstant('src/invoke/pool.ts', 'stableMs');
  const settleRetry = privateConstant('src/deploy/versions.ts', 'settleRetryMsMax');
  const restart = privateConstant('src/invoke/pool.ts', 'restartDelayMsMax');
  const connections = privateConstant('src/driver/http.ts', 'connectionsMax');
  const others = privateConstant('src/deploy/registry.ts', 'defaultConcurrency');
  const { timeoutMs, memoryBytes, instances } = definitionDefaults;
  return `\
| \`timeout\` | a call, to the last byte of its answer | ${ms(timeoutMs)} | \`timeout\` | ${late} |
| \`memory\` | resident memory of an instance’s process tree | ${bytes(memoryBytes)} | \`memory\` | ${failed('out-of-memory')} |
| \`concurrency\` | calls at once in an instance | ${runtimesSay(({ concurrency }) => concurrency)}, http ${count(others)} | \`concurrency\` | the call waits |
| \`instances.max\` | instances of a version that take calls | ${instances.max} | \`instances.max\` | the call waits |
| \`instances.idle\` | an instance without calls | ${ms(instances.idleMs)} | \`instances.idle\` | it ends, down to \`instances.min\` |
${setting('waitingCallsMax', 'calls of a version beyond those that all its instances can run (`instances.max` × `concurrency`); 0 to 1,000,000', error('FUNCTION_BUSY'))}
| \`gatheredBytesMax\` | bodies that handlers need whole, of all calls together | ${bytes(gatheredBytesMax)} | fixed | a body is passed on as it comes, and its call holds a place meanwhile |
${setting('versionsKeptMax', 'ready versions of a function, the newest, and as many failed ones, and the one that answers; 1 to 1,000,000', 'older ones are removed with their files once a newer one is settled and no call is in them')}
${setting('connectionsMax', 'connections of clients at once; 1 to 1,000,000', 'a further one is closed at once')}
| \`slotsMax\` | calls in flight in the gateway | ${count(slotsMax)} | fixed | ${error('FUNCTION_BUSY')} |
${setting('bufferedBodyBytesMax', 'body for a handler that needs it whole: event style, Python, shell', error('BODY_TOO_LARGE'))}
${setting('bufferedBodyBytesMax', 'answer of a script without `stream`', failed('reply-invalid'))}
| \`argumentsBytesMax\` | values of \`argKeys\` together | ${count(operationLimits.argumentsBytesMax)} bytes | fixed | ${error('INPUT_INVALID')} |
| \`answerBytesMax\` | answer of a server with \`convention: operation\` | ${bytes(operationLimits.answerBytesMax)} | fixed | ${failed('reply-invalid')} |
| \`payloadBytesMax / 2\` | headers of a Node handler’s answer | ${bytes(payloadBytesMax / 2)} | fixed | ${failed('reply-invalid')} |
| \`payloadBytesMax\` | headers of a Python handler’s answer | ${bytes(payloadBytesMax)} | fixed | ${failed('reply-invalid')} |
| \`statusCode\` | status of an answer | 200 to 599 | fixed | ${failed('reply-invalid')} |
| \`returnMsMax\` | for the handler of a call that timed out to return | ${ms(returnMsMax)} | fixed | its instance takes no call any more |
${setting('graceMs', 'for the other calls of such an instance', failed('crashed'))}
| \`memoryCheckMs\` | between two looks at the memory of an instance that is in no control group | ${ms(memoryCheckMs)} | fixed | – |
| \`stableMs\` | life of an instance below which its crash counts as a failed start | ${ms(stable)} | fixed | kept instances start later |
| \`settleRetryMsMax\` | between two tries to store what became of a build, from 500 ms on doubled | ${ms(settleRetry)} | fixed | – |
| \`restartDelayMsMax\` | between two tries to start a kept instance, from 1 s on doubled | ${ms(restart)} | fixed | – |
| \`connectionsMax\` | connections to the server of an \`http\` function | ${connections} | fixed | the call waits |
${setting('drainMsMax', 'for the calls in flight when the gateway stops', error('GATEWAY_STOPPING'))}
| \`uidRange\` | functions of a gateway | 65,536 | \`FNWAY_UID_RANGE\` | ${error('CONFIG_INVALID')} |`;
}

function linkRows(): string {
  const warm = (name: string) => privateConstant('src/driver/process/warm.ts', name);
  return `\
| \`payloadBytesMax\` | payload of a frame | ${bytes(payloadBytesMax)} | fixed | LINK_PROTOCOL_BROKEN: the link is closed |
| \`windowBytes\` | body of a stream and direction that is on its way without credit | ${bytes(windowBytes)} | fixed | the sender waits |
| \`helloMsMax\` | from connecting to HELLO | ${ms(linkLimits.helloMsMax)} | fixed | the connection is closed |
| \`strangersMax\` | connections that have not said HELLO | ${count(linkLimits.strangersMax)} | fixed | the oldest is closed |
| \`secretLineBytesMax\` | first line on the socket for a forked child’s output | ${warm('secretLineBytesMax')} bytes | fixed | the connection is closed |
| \`secretMsMax\` | from connecting there to the end of that line | ${ms(warm('secretMsMax'))} | fixed | the connection is closed |`;
}

function outputRows(): string {
  const { linesMax, lineCharsMax, keptBytesMax, keptBytesTotalMax } = outputLimits;
  const { linesPerSecondMax, linesAtOnceMax } = outputLimits;
  const { outputBytesPerSecondMax, outputBytesAtOnceMax } = outputLimits;
  const tail = privateConstant('src/driver/process/stdio-instance.ts', 'stderrTailBytes');
  return `\
| \`lineCharsMax\` | a line, in UTF-16 units | ${count(lineCharsMax)} | fixed | it is cut and marked |
| \`linesPerSecondMax\` | lines a second of a stream of an instance, at length | ${count(linesPerSecondMax)} | fixed | some are left out, and a line says so |
| \`linesAtOnceMax\` | lines that it may be ahead of that | ${count(linesAtOnceMax)} | fixed | the same |
| \`outputBytesPerSecondMax\` | bytes a second of a stream of an instance, at length | ${bytes(outputBytesPerSecondMax)} | fixed | the same |
| \`outputBytesAtOnceMax\` | bytes that it may be ahead of that | ${bytes(outputBytesAtOnceMax)} | fixed | the same |
| \`linesMax\` | lines of a function that are kept in memory, for reports of crashes | ${count(linesMax)} | fixed | older ones are on disk only |
| \`keptBytesMax\` | their memory | ${bytes(keptBytesMax)} | fixed | the same |
| \`keptBytesTotalMax\` | memory of those of all functions | ${bytes(keptBytesTotalMax)} | fixed | the same, those of the functions that have written nothing for longest first |
| \`crashLinesMax\` | lines of output in the answer to a call that crashed | ${crashLinesMax} | fixed | older lines are left out |
| \`stderrTailBytes\` | standard error in the answer to a script that failed | ${count(tail)} characters | fixed | the beginning is left out |`;
}

function topicRows(): string {
  const t = topicLimits;
  const { deliveriesAtOnce, seekMessagesMax } = publishLimits;
  const { attempts, pushes, waiting } = subscriptionDefaults;
  const [definition, invalid] = [error('DEFINITION_INVALID'), error('MESSAGE_INVALID')];
  const unread = privateConstant('src/gateway/routes/topics.ts', 'tailBytesMax');
  return `\
| \`messageBytesMax\` | a message: data and attributes | ${bytes(t.messageBytesMax)} | fixed | ${invalid} |
| \`pulledBytesMax\` | data in one answer to a pull; the message that goes beyond it is the last | ${bytes(pulledBytesMax)} | fixed | – |
| \`publicationBytesMax\` | a publication, base64 and all | ${bytes(publicationBytesMax)} | fixed | ${error('BODY_TOO_LARGE')} |
| \`messagesMax\` | messages of a publication, a pull, an acknowledgement | ${count(t.messagesMax)} | fixed | ${invalid} |
| \`attributesMax\` | attributes of a message | ${count(t.attributesMax)} | fixed | ${invalid} |
| \`attributeKeyCharsMax\`, \`attributeValueCharsMax\` | the name and the value of one | ${t.attributeKeyCharsMax}, ${count(t.attributeValueCharsMax)} characters | fixed | ${invalid} |
| \`orderingKeyCharsMax\` | an ordering key | ${count(t.orderingKeyCharsMax)} characters | fixed | ${invalid} |
| \`attributesHeaderCharsMax\` | \`X-Fnway-Attributes\` of a raw message | ${count(attributesHeaderCharsMax)} characters | fixed | it is left out |
| \`deliveriesAtOnce\` | deliveries of a publication in one transaction | ${count(deliveriesAtOnce)} | fixed | a publication is several |
| \`seekMessagesMax\` | messages that a seek brings back | ${count(seekMessagesMax)} | fixed | ${error('QUERY_INVALID')} |
| \`tailBytesMax\` | messages that a follower has not read | ${bytes(unread)} | fixed | it misses some |
| \`retentionMsMin\`, \`retentionMsMax\` | a topic keeps messages | ${ms(t.retentionMsMin)} to ${t.retentionMsMax / 86_400_000} days | \`retention\` | ${definition} |
| \`ackDeadlineMsMin\`, \`ackDeadlineMsMax\` | for a push, or whoever pulled | ${ms(t.ackDeadlineMsMin)} to ${ms(t.ackDeadlineMsMax)} | \`ackDeadline\` | ${definition} |
| \`filterKeysMax\` | attributes of a filter | ${count(t.filterKeysMax)} | \`filter\` | ${definition} |
| \`waiting\` | deliveries of a subscription that wait | ${count(waiting)} | \`waiting\` | ${error('QUEUE_FULL')} |
| \`attempts\` | deliveries of a message | ${attempts}; 1 to 100 | \`retry.attempts\` | it is dead |
| \`pushes\` | pushes of a subscription at once | ${count(pushes)} | \`concurrency\` | the delivery waits |`;
}

function webhookRows(): string {
  const w = webhookLimits;
  const definition = error('DEFINITION_INVALID');
  return `\
| \`replayWindowMsMin\`, \`replayWindowMsMax\` | age of what is signed with its time; 5 min by default | ${ms(w.replayWindowMsMin)} to ${ms(w.replayWindowMsMax)} | \`verify.window\` | ${error('UNAUTHENTICATED')} |
| \`alertWindowMsMax\` | the same alert is the same call; 6 hours by default | 0 to ${w.alertWindowMsMax / 86_400_000} day | \`alerts.window\` | ${definition} |
| \`parametersMax\` | parameters of an alert | ${w.parametersMax} | \`alerts.parameters\` | ${definition} |
| \`templateCharsMax\` | one of them | ${count(w.templateCharsMax)} characters | \`alerts.parameters\` | ${definition} |
| \`notificationWindowMsMax\` | the same cause is told once; 1 min by default | 0 to 1 day | \`window\` | ${definition} |
| \`notificationMessageCharsMax\` | of what failed, in its words | ${notificationLimits.notificationMessageCharsMax} characters | fixed | it is cut |
| \`notificationsRunningMax\` | told to one address at once | ${notificationsRunningMax} | fixed | the others wait |`;
}

function bucketRows(): string {
  const b = bucketLimits;
  return `\
| \`bucketEveryMsMin\`, \`bucketEveryMsMax\` | between two looks; 5 s by default | ${ms(b.bucketEveryMsMin)} to ${b.bucketEveryMsMax / 86_400_000} day | \`every\` | ${error('DEFINITION_INVALID')} |
| \`bucketObjectsMax\` | files of a watched directory | ${count(b.bucketObjectsMax)} | fixed | it is not looked at, and the log says so |
| \`objectKeyCharsMax\` | path of a file below it | ${count(b.objectKeyCharsMax)} characters | fixed | it is left out |`;
}

function scheduleRows(): string {
  const { everyMsMin, everyMsMax, cronCharsMax, catchUpMax } = scheduleLimits;
  const { scheduleBodyBytesMax, scheduleBodyDepthMax } = scheduleLimits;
  const told = privateConstant('src/domain/schedule.ts', 'missedToldMax');
  const look = privateConstant('src/trigger/schedules.ts', 'lookMsMax');
  const row = (name: string, what: string, value: string, key: string) =>
    `| \`${name}\` | ${what} | ${value} | \`${key}\` | ${error('DEFINITION_INVALID')} |`;
  return [
    row('everyMsMin', 'between two slots, at least', ms(everyMsMin), 'every'),
    row('everyMsMax', 'at most', `${everyMsMax / 86_400_000} days`, 'every'),
    row('cronCharsMax', 'a cron expression', `${cronCharsMax} characters`, 'cron'),
    row('scheduleBodyBytesMax', 'body, as JSON', bytes(scheduleBodyBytesMax), 'body'),
    row(
      'scheduleBodyDepthMax',
      'lists and objects in one another',
      `${scheduleBodyDepthMax}`,
      'body',
    ),
    row(
      'catchUpMax',
      'missed slots that run later; 100 by default',
      count(catchUpMax),
      'catchUpMax',
    ),
    `| \`slotsKeptMax\` | slots of a schedule that are remembered | ${slotsKeptMax} | fixed | the oldest are forgotten |`,
    `| \`missedToldMax\` | of them, slots that one pause of the gateway has cost | ${told} | fixed | older ones are not told |`,
    `| \`lookMsMax\` | until a jump of the clock is noticed | ${ms(look)} | fixed | – |`,
    `| \`onTimeMs\` | a slot that is decided later was missed | ${ms(onTimeMs)} | fixed | \`catchUp\` says what becomes of it |`,
  ].join('\n');
}

function recordRows(): string {
  const { targetCharsMax, failureCharsMax, recordedBodyBytesMax, copiedBodiesBytesMax } =
    recordLimits;
  const { flushMsMax, unwrittenBytesMax, unwrittenBytesLargest } = writeLimits;
  return `\
${setting('recordsKeptMs', 'age of a record; 1 s to 3,650 days', 'it goes, with those of its time')}
${setting('recordsBytesMax', 'records on disk; from 1 MiB', 'the oldest eighth goes')}
${setting('linesKeptMs', 'age of a line of output', 'it goes, with those of its time')}
${setting('linesBytesMax', 'lines of output on disk', 'the oldest eighth goes')}
${setting('bodiesKeptMs', 'age of recorded bodies', 'they go, with those of their time')}
${setting('bodiesBytesMax', 'recorded bodies on disk', 'the oldest eighth goes')}
| \`targetCharsMax\` | path and query in a record | ${count(targetCharsMax)} characters | fixed | cut |
| \`failureCharsMax\` | message and stack of a failure in a record, each | ${count(failureCharsMax)} characters | fixed | cut |
| \`recordedBodyBytesMax\` | input and output that \`record: bodies\` keeps, each | ${bytes(recordedBodyBytesMax)} | fixed | neither is kept: BODIES_NOT_KEPT 409 |
| \`copiedBodiesBytesMax\` | the same, of all calls that run | ${bytes(copiedBodiesBytesMax)} | fixed | those of a call are not kept, and counted in \`fnway_records_dropped\` |
| \`flushMsMax\` | that a record waits to be written: what a crash may lose | ${ms(flushMsMax)} | fixed | – |
| \`unwrittenBytesMax\` | records that the disk has not taken | ${bytes(unwrittenBytesMax)} | fixed | records of calls that succeeded are dropped, and counted in \`fnway_records_dropped\` |
| \`unwrittenBytesLargest\` | the same | ${bytes(unwrittenBytesLargest)} | fixed | all are dropped, and counted |
| \`openedBlocksMax\` | blocks that one search opens | ${count(openedBlocksMax)} | fixed | a page has what was found until then, and \`next\` |`;
}

function jobRows(): string {
  const { runningJobsMax, leaseMs } = queueLimits;
  const { idempotencyMs, idempotencyKeyCharsMax, delayMsMax } = callLimits;
  const header = error('HEADER_INVALID');
  return `\
| \`waiting\` | jobs of a function that wait | ${count(definitionDefaults.waitingJobs)} | \`queue.waiting\` | ${error('QUEUE_FULL')} |
| \`waitingJobsMax\` | that key | ${count(definitionLimits.waitingJobsMax)} | fixed | ${error('DEFINITION_INVALID')} |
| \`concurrency\` | jobs of a function that run at once | \`instances.max\` × \`concurrency\` | \`queue.concurrency\` | the job waits |
| \`runningJobsMax\` | jobs that run at once in a gateway | ${count(runningJobsMax)} | fixed | the job waits |
${setting('bufferedBodyBytesMax', 'body and result of an async call, each', `${error('BODY_TOO_LARGE')}; \`reply-invalid\` for a result`)}
| \`webhookBytesMax\` | bodies of webhooks that are on their way to be accepted | ${bytes(webhookBytesMax)} | fixed | ${error('FUNCTION_BUSY')} |
| \`walPagesMax\` | of the queue's log; it is folded into the file beside the commits, and within one from here on | ${walPagesMax} pages of 4 KiB | fixed | – |
| \`acceptingBytesMax\` | bodies that are on their way to be accepted | ${bytes(acceptingBytesMax)} | fixed | ${error('FUNCTION_BUSY')} |
| \`attemptsMax\` | tries of a job, the first included; of more than 120, given back ones included, some are not told | 1 to ${retryLimits.attemptsMax} | \`retry.attempts\` | ${error('DEFINITION_INVALID')} |
| \`delayMsMax\` | between two tries, \`Retry-After\` included | 0 to 1 day | \`retry.minDelay\`, \`retry.maxDelay\` | ${error('DEFINITION_INVALID')} |
| \`maxAgeMsMax\` | age after which there is no further try | 1 s to 31 days | \`retry.maxAge\` | ${error('DEFINITION_INVALID')} |
| \`delayMsMax\` | between acceptance and first try | ${delayMsMax / 86_400_000} days | \`X-Delay\`, \`X-Run-At\` | ${header} |
| \`priorityMax\` | ${jobLimits.priorityDefault} by default, 9 comes first | 0 to ${jobLimits.priorityMax} | \`X-Priority\` | ${header} |
| \`idempotencyKeyCharsMax\` | a key; it lasts ${idempotencyMs / 3_600_000} hours | ${idempotencyKeyCharsMax} characters | \`Idempotency-Key\` | ${header} |
| \`callbackUrlCharsMax\` | an address to call back | ${count(callbackUrlCharsMax)} characters | \`X-Callback-Url\` | ${header} |
| \`callbacksRunningMax\` | callbacks of a function at once; ${callbackRetry.attempts} tries each | ${callbacksRunningMax} | fixed | they wait |
| \`answerMsMax\` | for an address that is called back to answer | ${ms(outboundLimits.answerMsMax)} | fixed | it is tried again |
| \`leaseMs\` | without a word of a gateway, until its jobs are tried by another | ${ms(leaseMs)} | fixed | – |
| \`lostMax\` | tries that were lost with their gateway | ${lostMax} | fixed | the job is dead: JOB_LOST |
| \`waitMsMax\` | \`wait\` for the end of an async call | ${ms(waitMsMax)} | \`?wait=\` | ${error('QUERY_INVALID')} |
${setting('jobsKeptMs', 'result of an async call, since it ended', 'it goes')}
${setting('deadJobsKeptMs', 'dead job, since it died', 'it goes')}`;
}

function secretRows(): string {
  const { secretNameCharsMax, secretBytesMax, secretsMax } = secretLimits;
  return `\
| \`sharesMax\` | versions that calls are split among | ${trafficLimits.sharesMax} | fixed | ${error('TRAFFIC_INVALID')} |
| \`secretNameCharsMax\` | name of a secret | ${secretNameCharsMax} characters | fixed | ${error('DEFINITION_INVALID')} |
| \`secretBytesMax\` | value of a secret | ${bytes(secretBytesMax)} | fixed | ${error('DEFINITION_INVALID')} |
| \`secretsMax\` | secrets of a definition | ${secretsMax} | \`secrets\` | ${error('DEFINITION_INVALID')} |
| \`schemaBytesMax\` | a schema, as JSON | ${bytes(schemaBytesMax)} | \`schema\` | ${error('SCHEMA_INVALID')} |
| \`maskedCharsMin\` | value that is hidden in output | ${maskedCharsMin} characters | fixed | a shorter one is not hidden |
| \`rememberedValuesMax\` | values that are hidden in what a function says, those it had before included | ${rememberedValuesMax} | fixed | the oldest is hidden no more |`;
}

function manifestRows(): string {
  const { bytesMax, depthMax, aliasesMax, issuesMax } = manifestLimits;
  const parallel = privateConstant('src/cli/parallel.ts', 'parallelMax');
  const probe = ms(privateConstant('src/cli/access.ts', 'probeMsMax'));
  return `\
| \`bytesMax\` | fnway.yaml | ${bytes(bytesMax)} | fixed | ${error('MANIFEST_INVALID')} |
| \`depthMax\` | levels of nesting | ${depthMax} | fixed | ${error('MANIFEST_INVALID')} |
| \`aliasesMax\` | uses of aliases | ${count(aliasesMax)} | fixed | ${error('MANIFEST_INVALID')} |
| \`issuesMax\` | issues told | ${issuesMax} | fixed | the first line says how many more |
| \`parallelMax\` | functions that \`apply\` builds at once | ${parallel} | fixed | the next one waits |
| \`probeMsMax\` | for the gateway whose address is in the data directory to answer | ${probe} | fixed | the default address is used |`;
}

/** The row of a limit that is a setting, with its default as people write it. */
function setting(name: keyof typeof settings, what: string, beyond: string): string {
  const { env, default: text } = settings[name];
  const units: Record<string, string> = {
    Ki: ' KiB',
    Mi: ' MiB',
    Gi: ' GiB',
    d: ' days',
    m: ' min',
    s: ' s',
    '': '',
  };
  const [, digits, unit] = /^(\d+)(\D*)$/.exec(text)!;
  return `| \`${name}\` | ${what} | ${count(Number(digits))}${units[unit!]} | \`${env}\` | ${beyond} |`;
}

/** `node 100, python 10, shell 10`. */
function runtimesSay(what: (runtime: Runtime) => number): string {
  const runtimes = readRuntimes([join(import.meta.dirname, '../runtimes')]);
  return [...runtimes.values()].map(runtime => `${runtime.name} ${what(runtime)}`).join(', ');
}

function bytes(value: number): string {
  return value % 1024 ** 2 === 0 ? `${value / 1024 ** 2} MiB` : `${count(value / 1024)} KiB`;
}

function ms(value: number): string {
  if (value >= 120_000 && value % 60_000 === 0) return `${value / 60_000} min`;
  return value % 1000 === 0 ? `${value / 1000} s` : `${value} ms`;
}

function count(value: number): string {
  return value.toLocaleString('en');
}

function error(code: ErrorCode): string {
  return `${code} ${errorKinds[code].status}`;
}

/** A numeric constant that its file keeps to itself, read from the text. */
function privateConstant(file: string, name: string): number {
  const text = readFileSync(join(import.meta.dirname, '..', file), 'utf8');
  const value = new RegExp(`^const ${name} = ([\\d_* ]+);`, 'm').exec(text)?.[1];
  if (value === undefined) throw new Error(`${file} has no constant ${name} any more`);
  return value
    .replaceAll('_', '')
    .replace(/(\d+) \*\* (\d+)/g, (_, base, power) => String(Number(base) ** Number(power)))
    .split('*')
    .reduce((product, factor) => product * Number(factor), 1);
}
