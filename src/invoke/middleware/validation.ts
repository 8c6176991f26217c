/**
 * Holds what goes in and comes out against the version's schemas, before any of its secrets is fetched. What does not fit
 * on its way in is the caller's mistake, and nothing runs; on its way out, the function's failure.
 */
import type { Issue } from '../../../client/errors.ts';
import { collect } from '../../body.ts';
import { GatewayError } from '../../errors.ts';
import {
  type Call,
  failedReply,
  isStream,
  type Middleware,
  type Reply,
  type Version,
} from '../invoke.ts';
import { type Check, compileSchema } from '../json-schema.ts';

interface Checks {
  in?: Check;
  out?: Check;
}

/** The schemas of versions, compiled when they are first needed. */
export class Schemas {
  readonly #compiled = new WeakMap<Version, Checks | Promise<Checks>>();

  /** A promise only the first time. */
  checksOf(version: Version): Checks | Promise<Checks> {
    const known = this.#compiled.get(version);
    if (known !== undefined) return known;
    const compiling = compile(version);
    this.#compiled.set(version, compiling);
    compiling.then(
      checks => this.#compiled.set(version, checks),
      () => this.#compiled.delete(version),
    );
    return compiling;
  }

  /** What input that is not as `schema.in` says is refused with. */
  async refuseInput(version: Version, body: Uint8Array): Promise<GatewayError | undefined> {
    if (!validatesInput(version)) return undefined;
    const checks = await this.checksOf(version);
    return checks.in === undefined ? undefined : refuse(body, checks.in);
  }
}

export function validation(options: {
  schemas: Schemas;
  bufferedBodyBytesMax: number;
}): Middleware {
  const { schemas } = options;
  return next =>
    function withValidation(call, signal) {
      if (call.version.spec.schema === undefined) return next(call, signal);
      const checks = schemas.checksOf(call.version);
      if (checks instanceof Promise) return checks.then(withChecks);
      return withChecks(checks);

      function withChecks(checks: Checks): Promise<Reply> {
        const error = checks.in === undefined ? undefined : refuseCall(call, checks.in);
        if (error !== undefined) return Promise.reject(error);
        const reply = next(call, signal);
        const { out } = checks;
        if (out === undefined) return reply;
        return reply.then(answer => checked(answer, out, options.bufferedBodyBytesMax));
      }
    };
}

/** Whether input has to be there as a whole before the call begins. */
export function validatesInput({ spec }: Version): boolean {
  return spec.schema?.in !== undefined;
}

async function compile({ spec }: Version): Promise<Checks> {
  const { schema } = spec;
  return {
    ...(schema?.in !== undefined && { in: await compileSchema(schema.in, 'schema.in') }),
    ...(schema?.out !== undefined && { out: await compileSchema(schema.out, 'schema.out') }),
  };
}

function refuseCall(call: Call, check: Check): GatewayError | undefined {
  // What had no room to be gathered was passed on as it comes: it cannot be looked at.
  if (isStream(call.body)) {
    const detail = 'too many bodies are being read; this one could not be held against its schema';
    return new GatewayError('FUNCTION_BUSY', detail, { retryAfterMs: 1000 });
  }
  return refuse(call.body, check);
}

function refuse(body: Uint8Array, check: Check): GatewayError | undefined {
  const issue = issueIn(body, check);
  if (issue === undefined) return undefined;
  const where = issue.path === '' ? 'the body' : issue.path;
  return new GatewayError('INPUT_INVALID', `${where} ${issue.message}`, { issues: [issue] });
}

function issueIn(bytes: Uint8Array, check: Check): Issue | undefined {
  let value: unknown;
  try {
    value = JSON.parse(textOf(bytes));
  } catch {
    return { path: '', message: bytes.length === 0 ? 'is empty' : 'is not JSON' };
  }
  try {
    return check(value);
  } catch {
    // The stack is full: by the value's own depth, or by a schema that refers to itself without end.
    return { path: '', message: 'is nested too deeply to be held against the schema' };
  }
}

function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('utf8');
}

const withoutBody = new Set([204, 205]);

/** Only successes are held against the schema: an error's body says what went wrong. */
async function checked(reply: Reply, check: Check, bytesMax: number): Promise<Reply> {
  if (reply.failure !== undefined || reply.status < 200 || reply.status > 299) return reply;
  if (withoutBody.has(reply.status)) return reply;
  const body = isStream(reply.body) ? await collect(reply.body, bytesMax) : reply.body;
  if (body === undefined) {
    const message = `the answer is longer than ${bytesMax} bytes, and its schema needs it whole`;
    return failedReply({ reason: 'reply-invalid', message });
  }
  const issue = issueIn(body, check);
  if (issue === undefined) return { ...reply, body };
  const where = issue.path === '' ? 'it' : issue.path;
  const message = `the answer is not as schema.out says: ${where} ${issue.message}`;
  return failedReply({ reason: 'reply-invalid', message });
}
