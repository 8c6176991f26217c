/**
 * A store whose gateway dies: before a method has done anything, or after it has, when nobody has heard of it yet. What the
 * store has stays; whoever asked never gets an answer, as when a process is killed. Or it is only frozen, as a process is that
 * was stopped or swapped out: then what it asked for comes later, when others believe it to be dead.
 */
export interface CrashingStore<T> {
  readonly store: T;
  /** It does nothing any more, or nothing for a while. */
  readonly isGone: boolean;
  readonly isFrozen: boolean;
  /** Lets what is frozen go on. */
  thaw(): void;
}

/** `fate` is asked twice a call: before it and after it. */
export function crashingStore<T extends object>(
  store: T,
  methods: ReadonlyArray<keyof T & string>,
  fate: () => 'lives' | 'dies' | 'freezes',
): CrashingStore<T> {
  let state: 'lives' | 'dies' | 'freezes' = 'lives';
  const frozen: Array<() => void> = [];
  const passes = (): Promise<void> | undefined => {
    if (state === 'lives') state = fate();
    if (state === 'lives') return undefined;
    return new Promise(resolve => {
      if (state === 'freezes') frozen.push(resolve);
    });
  };
  const crashing = Object.fromEntries(
    methods.map(name => [
      name,
      async (...args: unknown[]) => {
        await passes();
        const method = store[name] as (...args: unknown[]) => Promise<unknown>;
        const answer = await method.apply(store, args);
        await passes();
        return answer;
      },
    ]),
  ) as unknown as T;
  return {
    store: crashing,
    get isGone() {
      return state !== 'lives';
    },
    get isFrozen() {
      return state === 'freezes';
    },
    thaw() {
      if (state !== 'freezes') return;
      state = 'lives';
      for (const resolve of frozen.splice(0)) resolve();
    },
  };
}
