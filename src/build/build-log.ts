/**
 * The text that build tools print, kept to a limit: the beginning (what was run, a compiler's
 * errors) and the end (an installer's errors) stay, the middle goes. Not for a running function's
 * log.
 */
export class BuildLog {
  readonly #headBytesMax: number;
  readonly #tailBytesMax: number;
  readonly #head: Uint8Array[] = [];
  readonly #tail: Uint8Array[] = [];
  #headBytes = 0;
  #tailBytes = 0;
  #droppedBytes = 0;

  constructor(bytesMax: number) {
    this.#headBytesMax = Math.floor(bytesMax / 2);
    this.#tailBytesMax = bytesMax - this.#headBytesMax;
  }

  append(chunk: Uint8Array | string): void {
    const bytes = typeof chunk === 'string' ? new TextEncoder().encode(chunk) : chunk;
    const room = this.#headBytesMax - this.#headBytes;
    if (room > 0) {
      const part = bytes.subarray(0, room);
      this.#head.push(part);
      this.#headBytes += part.byteLength;
    }
    if (bytes.byteLength > room) this.#appendTail(bytes.subarray(Math.max(room, 0)));
  }

  text(): string {
    const gap = this.#droppedBytes > 0 ? `\n… ${this.#droppedBytes} bytes left out …\n` : '';
    if (gap === '') return Buffer.concat([...this.#head, ...this.#tail]).toString();
    return `${Buffer.concat(this.#head)}${gap}${Buffer.concat(this.#tail)}`;
  }

  #appendTail(bytes: Uint8Array): void {
    this.#tail.push(bytes);
    this.#tailBytes += bytes.byteLength;
    while (this.#tailBytes > this.#tailBytesMax) {
      const first = this.#tail.shift()!;
      const excess = Math.min(this.#tailBytes - this.#tailBytesMax, first.byteLength);
      if (excess < first.byteLength) this.#tail.unshift(first.subarray(excess));
      this.#tailBytes -= excess;
      this.#droppedBytes += excess;
    }
  }
}
