/** What a suite is given. */
import type { Report } from '../lib/report.ts';

export interface SuiteOptions {
  report: Report;
  /** A directory for this suite alone; gone afterwards. */
  directory: string;
  /** Repetitions of what is compared. */
  runs: number;
  /** Of one load. */
  seconds: number;
  /** Says what is going on. */
  tell(text: string): void;
}

export type Suite = (options: SuiteOptions) => Promise<void>;
