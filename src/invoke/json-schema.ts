/**
 * JSON Schema 2020-12 of functions: compiled once a version, checked at every call. The library is loaded with the first
 * schema. References reach no further than the schema itself: nothing is fetched.
 */
import type { Issue } from '../../client/errors.ts';
import { canonicalJson, type JsonSchema } from '../domain/function.ts';
import { GatewayError } from '../errors.ts';

/** The first thing that is wrong with a value; undefined when it is as the schema says. */
export type Check = (value: unknown) => Issue | undefined;

export const schemaBytesMax = 65_536;

/** Throws SCHEMA_INVALID; `path` is where the schema stands. */
export async function compileSchema(schema: JsonSchema, path: string): Promise<Check> {
  const [{ Ajv2020, str }, formats, { RE2JS }] = await Promise.all([
    import('ajv/dist/2020.js'),
    import('ajv-formats'),
    import('re2js'),
  ]);
  const bytes = Buffer.byteLength(JSON.stringify(schema));
  if (bytes > schemaBytesMax)
    throw refusal(path, `it has ${bytes} bytes; ${schemaBytesMax} are allowed`);
  if (typeof schema === 'object' && '$async' in schema)
    throw refusal(path, '$async is no keyword of JSON Schema');
  // One error is enough to refuse a value, and all of them may take long to find.
  const ajv = new Ajv2020({
    ...{ strict: false, allErrors: false, logger: false },
    // In time that grows with the text and no faster: a backtracking one could stop the gateway with 30 letters.
    code: { regExp: linearPatterns(RE2JS) },
  });
  formats.default.default(ajv);
  ajv.removeKeyword('uniqueItems');
  ajv.addKeyword({
    ...{ keyword: 'uniqueItems', type: 'array', schemaType: 'boolean', errors: false },
    compile: (wanted: boolean) => (items: unknown[]) => !wanted || areUnique(items),
    error: { message: 'must NOT have duplicate items' },
  });
  for (const [keyword, { holds, what }] of Object.entries(lengthKeywords)) {
    ajv.removeKeyword(keyword);
    ajv.addKeyword({
      ...{ keyword, type: 'string', schemaType: 'number', errors: false },
      compile: (limit: number) => (text: string) => holds(text, limit),
      error: {
        message: ({ schemaCode }) => str`must NOT have ${what} than ${schemaCode} characters`,
      },
    });
  }
  let validate: ReturnType<typeof ajv.compile>;
  try {
    validate = ajv.compile(schema);
  } catch (error) {
    throw refusal(path, (error as Error).message);
  }
  return value => {
    if (validate(value)) return undefined;
    const [{ instancePath, keyword, params, message = 'is not valid' }] = validate.errors! as [
      NonNullable<typeof validate.errors>[number],
    ];
    const at = instancePath
      .split('/')
      .slice(1)
      .map(part => part.replaceAll('~1', '/').replaceAll('~0', '~'));
    const named = params as { missingProperty?: string; additionalProperty?: string };
    if (keyword === 'required') at.push(named.missingProperty!);
    if (keyword === 'additionalProperties') at.push(named.additionalProperty!);
    const text = keyword === 'required' ? 'is missing' : message;
    return {
      path: at.join('.'),
      message: keyword === 'additionalProperties' ? 'is not expected' : text,
    };
  };
}

type Compile = (pattern: string, flags: string) => { test(text: string): boolean };

function linearPatterns(RE2JS: typeof import('re2js').RE2JS): Compile & { code: string } {
  const compile: Compile = pattern => {
    try {
      // What a schema may have is JavaScript's; what of it cannot be told in linear time is refused.
      new RegExp(pattern, 'u');
      return RE2JS.compile(RE2JS.translateRegExp(pattern));
    } catch (error) {
      const why = `${(error as Error).message}; look-around, back-references and repeats above 1,000 are not available`;
      throw new Error(`the pattern ${pattern} cannot be used: ${why}`);
    }
  };
  return Object.assign(compile, { code: 'linearPatterns' });
}

/** Equal items have equal texts. The library compares each with each. */
function areUnique(items: readonly unknown[]): boolean {
  return new Set(items.map(canonicalJson)).size === items.length;
}

/**
 * The library counts the characters (code points) of every text, which took more than all other checks of a kilobyte
 * together. A text's length, which costs nothing, is from once to twice that count, and decides nearly always.
 */
const lengthKeywords = {
  maxLength: {
    holds: (text: string, max: number) =>
      text.length <= max || (text.length <= 2 * max && codePoints(text) <= max),
    what: 'more',
  },
  minLength: {
    holds: (text: string, min: number) =>
      text.length >= 2 * min || (text.length >= min && codePoints(text) >= min),
    what: 'fewer',
  },
};

function codePoints(text: string): number {
  let count = text.length;
  for (let i = 1; i < text.length; i++) {
    const isPair =
      (text.charCodeAt(i) & 0xfc00) === 0xdc00 && (text.charCodeAt(i - 1) & 0xfc00) === 0xd800;
    if (isPair) count--;
  }
  return count;
}

function refusal(path: string, what: string): GatewayError {
  return new GatewayError('SCHEMA_INVALID', `${path} is no JSON Schema 2020-12: ${what}`, {
    issues: [{ path, message: what }],
  });
}
