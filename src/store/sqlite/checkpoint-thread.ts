/**
 * Folds the log of the queue's file into the file, with a connection of its own: whoever commits goes on meanwhile. Asked with
 * any message; answers when so little is left that the committing connection folds it in no time, or with why it could not.
 */
import { DatabaseSync } from 'node:sqlite';
import { parentPort, workerData } from 'node:worker_threads';

export type FromCheckpointThread = { kind: 'folded' } | { kind: 'failed'; message: string };

/** What was written while the pages before it were folded is folded again, as long as it is that much. */
const fewPages = 400;
const passes = 6;

const db = new DatabaseSync((workerData as { path: string }).path);
db.exec('PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; PRAGMA secure_delete = OFF');
const checkpoint = db.prepare('PRAGMA wal_checkpoint(PASSIVE)');

function fold(): void {
  let foldedBefore = 0;
  for (let pass = 0; pass < passes; pass++) {
    const { checkpointed } = checkpoint.get() as { checkpointed: number };
    if (checkpointed - foldedBefore < fewPages) return;
    foldedBefore = checkpointed;
  }
}

parentPort!.on('message', message => {
  if (message === 'close') {
    db.close();
    parentPort!.close();
    return;
  }
  let answer: FromCheckpointThread = { kind: 'folded' };
  try {
    fold();
  } catch (error) {
    answer = { kind: 'failed', message: (error as Error).message };
  }
  parentPort!.postMessage(answer);
});
