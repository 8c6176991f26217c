/** An object as a look at its bucket finds it. */
export interface FoundObject {
  key: string;
  bytes: number;
  modifiedMs: number;
  /** When it came here, or anything of it was changed. */
  changedMs: number;
  /** Tells contents apart, and, of equal contents, metadata. */
  content: string;
  metadata: string;
  /** It changes still, and may be half of what it will be. */
  isUnsettled: boolean;
}
