/** What every store demands of the jobs that it is given: see rules.ts. */
import { assert } from '../errors.ts';
import { jobLimits, type NewJob, type Settlement } from './jobs.ts';

export const idRule = 'the id of a job is new';

export function assertEnqueue(job: NewJob): void {
  const { priority, orderKey, lane, sealedInput, inputBlob, message } = job;
  const isPriority =
    Number.isInteger(priority) && priority >= 0 && priority <= jobLimits.priorityMax;
  assert(isPriority, `a priority is a whole number from 0 to ${jobLimits.priorityMax}`);
  assert(
    orderKey === undefined || orderKey.length <= jobLimits.orderKeyCharsMax,
    'an ordering key is short enough',
  );
  assert(lane.runningMax >= 0 && lane.waitingMax >= 1, 'a lane has room');
  const places = [sealedInput, inputBlob, message].filter(place => place !== undefined);
  assert(places.length <= 1, 'an input is in one place');
}

export function assertSettle({ outcome }: Settlement): void {
  if (outcome.kind === 'retry') return;
  assert(
    outcome.sealedResult === undefined || outcome.resultBlob === undefined,
    'a result is in one place',
  );
}
