/** Where a text stops being JSON. Engines name a position for some mistakes only; people need it for all. Pure. */

export interface JsonError {
  message: string;
  line: number;
  column: number;
}

/** The first mistake, or undefined when the text is JSON. Nesting deeper than the limit is a mistake too. */
export function firstJsonError(text: string): JsonError | undefined {
  const scanner = new Scanner(text);
  try {
    scanner.value(0);
    scanner.end();
    return undefined;
  } catch (error) {
    if (!(error instanceof Mistake)) throw error;
    const before = text.slice(0, error.offset).split('\n');
    return { message: error.message, line: before.length, column: before.at(-1)!.length + 1 };
  }
}

const depthMax = 500;

class Mistake extends Error {
  readonly offset: number;
  constructor(message: string, offset: number) {
    super(message);
    this.offset = offset;
  }
}

class Scanner {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  value(depth: number): void {
    if (depth > depthMax) throw new Mistake(`nested deeper than ${depthMax}`, this.#at);
    const c = this.#peek();
    if (c === '{') this.#items('}', () => this.#member(depth));
    else if (c === '[') this.#items(']', () => this.value(depth + 1));
    else if (c === '"')
      this.#token(
        // biome-ignore lint/suspicious/noControlCharactersInRegex: a string may not hold them unescaped
        /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y,
        'a string that ends',
      );
    else
      this.#token(
        /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.])|(?:true|false|null)(?!\w)/y,
        'a value',
      );
  }

  end(): void {
    const c = this.#peek();
    if (c !== undefined)
      throw new Mistake(`nothing was expected after the value, found ${name(c)}`, this.#at);
  }

  #items(close: string, item: () => void): void {
    this.#at++;
    if (this.#peek() === close) {
      this.#at++;
      return;
    }
    while (true) {
      item();
      const c = this.#peek();
      this.#at++;
      if (c === close) return;
      if (c !== ',') throw new Mistake(`expected , or ${close}, found ${name(c)}`, this.#at - 1);
    }
  }

  #member(depth: number): void {
    if (this.#peek() !== '"')
      throw new Mistake(`expected a key in double quotes, found ${name(this.#peek())}`, this.#at);
    this.value(depth);
    if (this.#peek() !== ':')
      throw new Mistake(`expected :, found ${name(this.#peek())}`, this.#at);
    this.#at++;
    this.value(depth + 1);
  }

  #token(pattern: RegExp, what: string): void {
    pattern.lastIndex = this.#at;
    const match = pattern.exec(this.#text);
    if (match === null)
      throw new Mistake(`expected ${what}, found ${name(this.#peek())}`, this.#at);
    this.#at = pattern.lastIndex;
  }

  #peek(): string | undefined {
    while (' \t\r\n'.includes(this.#text[this.#at] ?? 'x')) this.#at++;
    return this.#text[this.#at];
  }
}

function name(c: string | undefined): string {
  return c === undefined ? 'the end' : JSON.stringify(c);
}
