/** What became of each try of a job, for whoever asks later. Pure. */
import { type RecordFailure, recordLimits } from '../domain/record.ts';

export interface Attempt {
  /** Of all tries, those that were given back included. */
  number: number;
  startedMs: number;
  tookMs: number;
  version?: number;
  instance?: string;
  status: number;
  failure?: RecordFailure;
  /** It was no try that counts: the gateway stopped, or there was no room. */
  isGivenBack?: boolean;
}

export interface Story {
  attempts: Attempt[];
}

export const storyLimits = {
  /** Tries that are told; of more, the first and the last. */
  attemptsMax: 120,
  failureCharsMax: 2048,
} as const;

const emptyStory: Story = { attempts: [] };

/** What a job has of it. */
export function storyIn(
  sealed: Uint8Array | undefined,
  { openText }: { openText(sealed: Uint8Array): string },
): Story {
  if (sealed === undefined) return emptyStory;
  try {
    return JSON.parse(openText(sealed)) as Story;
  } catch {
    // A damaged one costs what it told, not the job.
    return emptyStory;
  }
}

/** Also where some of them are not told any more. */
export function nextNumber({ attempts }: Story): number {
  return (attempts.at(-1)?.number ?? 0) + 1;
}

/** The story with one more try. Only the last has a stack. */
export function told(story: Story, attempt: Attempt): Story {
  const earlier = story.attempts.map(({ failure, ...rest }) => {
    if (failure === undefined) return rest;
    const { stack: _, ...short } = failure;
    return { ...rest, failure: { ...short, message: cut(short.message) } };
  });
  const attempts = [...earlier, attempt];
  if (attempts.length > storyLimits.attemptsMax) attempts.splice(1, 1);
  return { attempts };
}

function cut(text: string): string {
  return text.slice(0, Math.min(storyLimits.failureCharsMax, recordLimits.failureCharsMax));
}
