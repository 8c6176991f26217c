/**
 * What a command's failure is to the person at the terminal: a problem in three parts (what
 * happened, why, what to type next), and an exit code by class. The classes are in
 * docs/reference/cli.md.
 */
import type { VersionFailure } from '../../client/api.ts';
import { isApiError } from '../../client/client.ts';
import type { ErrorCode, Issue, Problem } from '../../client/errors.ts';
import { GatewayError, isGatewayError, toProblem } from '../errors.ts';

export const exitCodes = {
  ok: 0,
  /** The function failed, or does not build. */
  function: 1,
  /** The command or a file that it read is wrong. */
  usage: 2,
  notFound: 3,
  access: 4,
  /** No gateway, or one that is in trouble. */
  platform: 5,
  /** `plan --exit-code`: something would change. */
  changes: 6,
  /** The answer to a question was no: what was asked for was not done. */
  declined: 1,
  /** Ctrl-C at a question, as shells count it. */
  interrupted: 130,
} as const;

export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes];

/** Codes that their HTTP status would put into another class. */
const functionCodes: readonly string[] = [
  'BUILD_FAILED',
  'BUILD_TOOL_MISSING',
  'BUILD_TIMED_OUT',
  'LOAD_FAILED',
  'VERSION_NOT_READY',
  'FUNCTION_FAILED',
  'UPSTREAM_UNREACHABLE',
  'CALL_DEADLINE_EXCEEDED',
];

/**
 * By code where that says more, else by status, so that codes of a newer gateway have a class too.
 */
export function exitCodeOf(problem: Problem): ExitCode {
  if (functionCodes.includes(problem.code)) return exitCodes.function;
  const { status } = problem;
  if (status === 401 || status === 403) return exitCodes.access;
  if (status === 404) return exitCodes.notFound;
  if (status === 408 || status === 429 || status === 499) return exitCodes.platform;
  return status < 500 ? exitCodes.usage : exitCodes.platform;
}

/**
 * Any error as a problem. One that is a mistake of ours keeps its text, because there is no log to
 * look at.
 */
export function problemOf(error: unknown): Problem {
  if (isApiError(error)) return error.problem;
  const problem = toProblem(error);
  if (isGatewayError(error)) return problem;
  const machine = refusedByMachine(error, 'COMMAND_INVALID');
  if (machine !== undefined) return toProblem(machine);
  const detail = error instanceof Error ? (error.stack ?? error.message) : String(error);
  const remedy = 'Report it with the text above.';
  return { ...problem, title: 'A mistake in fnway', detail, remedy };
}

/** What the machine refused, such as a file on a full disk, is no mistake of ours: told by `code`, else undefined. */
export function refusedByMachine(error: unknown, code: ErrorCode): GatewayError | undefined {
  const { code: errno, message, syscall } = (error ?? {}) as NodeJS.ErrnoException;
  const remedy = syscall === undefined ? undefined : machineRemedies[errno ?? ''];
  if (remedy === undefined) return undefined;
  return new GatewayError(code, message, { cause: error, remedy });
}

const machineRemedies: Record<string, string> = {
  ENOSPC: 'Free space on the disk, or use another directory.',
  EDQUOT: 'Free space within your quota, or use another directory.',
  EROFS: 'Use another directory: this file system is read-only.',
  EACCES: 'Correct the permissions of what is named, or use another directory.',
  EIO: 'See the log of the kernel for what is wrong with the disk.',
  EMFILE: 'Raise the limit of open files (ulimit -n).',
  ENFILE: 'Raise the limit of open files of the machine (fs.file-max).',
};

/** The three parts as lines; `issues` beyond the one that the detail tells are listed. */
export function problemLines(problem: Problem): { title: string; why: string[]; next?: string } {
  const why = [String(problem.detail)];
  // Whoever answers is not to be trusted to be a gateway.
  const given: unknown = problem.issues;
  const issues = (Array.isArray(given) ? given : []).filter(
    (issue): issue is Issue => typeof issue?.message === 'string',
  );
  // The detail tells the first one, with its place.
  const told = issues[0] !== undefined && problem.detail.includes(issues[0].message);
  why.push(...issues.slice(told ? 1 : 0).map(issue => `  ${issueLine(issue)}`));
  const log: unknown = problem.log;
  if (Array.isArray(log)) why.push(...log.map(line => `  | ${line}`));
  if (problem.requestId !== undefined) why.push(`  request id: ${problem.requestId}`);
  const next = typeof problem.remedy === 'string' ? problem.remedy : undefined;
  return { title: String(problem.title), why, next };
}

/** `handler.ts:3:5`, or nothing when the failure has no file. */
export function placeOf(failure: Pick<VersionFailure, 'file' | 'line' | 'column'>): string {
  const { file, line, column } = failure;
  return [file, file && line, line && column].filter(part => part).join(':');
}

function issueLine(issue: Issue): string {
  const place = issue.line === undefined ? '' : `${issue.line}:${issue.column ?? 1} `;
  const subject = issue.path === '' ? '' : `${issue.path}: `;
  const hint = issue.hint === undefined ? '' : ` (${issue.hint})`;
  return `${place}${subject}${issue.message}${hint}`;
}
