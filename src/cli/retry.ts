/** How a policy of retries is told. */
import type { RetryView } from '../../client/api.ts';

/** `6 attempts, 2m to 10m apart` */
export function retryText(view: RetryView): string {
  const { attempts, minDelay, maxDelay, jitter, maxAge, on } = view;
  const age = maxAge === undefined ? '' : `, for ${maxAge}`;
  const what = on === undefined ? '' : `, on ${on.join(' ')}`;
  return `${attempts} attempts, ${minDelay} to ${maxDelay} apart, jitter ${jitter}${age}${what}`;
}
