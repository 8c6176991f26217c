/** What is measured of a queue, whoever's it is. */
export interface QueueMeasured {
  jobs: number;
  perSecond: number;
  p50Us: number;
  p99Us: number;
}
