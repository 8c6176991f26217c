/** The versions among which the calls of a function are split, and which of them the next call goes to. */
import { Splitter, type Traffic } from '../domain/traffic.ts';
import type { HeaderPairs } from '../invoke/invoke.ts';
import type { LivingVersion } from './registry.ts';

export class Split {
  readonly versions: readonly LivingVersion[];
  readonly #splitter: Splitter;
  readonly #stickyHeader: string | undefined;

  /** `versions`: those of the shares, in their order. */
  constructor(traffic: Traffic, versions: readonly LivingVersion[]) {
    this.versions = versions;
    this.#splitter = new Splitter(traffic.shares.map(({ percent }) => percent));
    this.#stickyHeader = traffic.stickyHeader;
  }

  choose(headers: HeaderPairs): LivingVersion {
    const text =
      this.#stickyHeader === undefined ? undefined : headerOf(headers, this.#stickyHeader);
    const index = text === undefined ? this.#splitter.next() : this.#splitter.of(text);
    return this.versions[index]!;
  }
}

function headerOf(headers: HeaderPairs, name: string): string | undefined {
  for (let i = 0; i < headers.length; i += 2) {
    const given = headers[i]!;
    if (given.length === name.length && given.toLowerCase() === name) return headers[i + 1];
  }
  return undefined;
}
