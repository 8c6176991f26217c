/** What jobs.ts asks of the queue's file, prepared once. */
import type { StatementSync } from 'node:sqlite';
import type { SqliteConnection } from './database.ts';

/** How a job that has not ended stands; `blocked`: another of its key comes first. */
export const [ready, delayed, blocked, running] = [0, 1, 2, 3];

export function prepareJobs(db: SqliteConnection['db']) {
  const sql = (text: string) => db.prepare(text);
  return {
    keyOf: sql('SELECT id, digest FROM idempotency WHERE key = ? AND until_ms > ?'),
    putKey: sql(
      'INSERT OR REPLACE INTO idempotency (key, id, digest, until_ms) VALUES (?, ?, ?, ?)',
    ),
    sweepKeys: sql(`DELETE FROM idempotency WHERE key IN
      (SELECT key FROM idempotency WHERE until_ms <= ? ORDER BY until_ms, key LIMIT ?)`),
    runningOf: sql(`SELECT seq, lane, state, order_key, message FROM jobs
      WHERE lane = ? AND state = ${running} ORDER BY seq LIMIT ?`),
    toEnd: sql('UPDATE jobs SET seq = (SELECT max(seq) + 1 FROM jobs) WHERE seq = ?'),
    waitingOf: sql(`SELECT id, seq, lane, state, order_key, accepted_ms, message FROM jobs
      WHERE lane = ? AND state <> ${running} ORDER BY seq LIMIT ?`),
    liveOfMessage: sql('SELECT id FROM jobs WHERE lane = ? AND message = ?'),
    ...prepareMessages(sql),
    ...prepareDead(sql),
    firstOfKey: sql(`SELECT seq, lane, state, due_ms FROM jobs
      WHERE lane = ? AND order_key = ? ORDER BY seq LIMIT 1`),
    insert:
      sql(`INSERT INTO jobs (id, kind, namespace, function_id, lane, state, priority, accepted_ms, due_ms,
      order_key, parent, sealed_input, input_blob, message)
      VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`),
    expired: sql(`SELECT seq, lane FROM jobs WHERE state = ${running} AND lease_until_ms <= ?
      ORDER BY lease_until_ms LIMIT ?`),
    runningAll: sql(`SELECT seq, lane FROM jobs WHERE state = ${running}`),
    giveBack: sql(`UPDATE jobs SET state = ${ready}, due_ms = min(due_ms, ?), lost = lost + ?,
      attempts = attempts + ? WHERE seq = ?`),
    due: sql(`SELECT seq, lane, state FROM jobs WHERE state = ${delayed} AND due_ms <= ?
      ORDER BY due_ms LIMIT ?`),
    setState: sql('UPDATE jobs SET state = ? WHERE seq = ?'),
    readyOf: sql(`SELECT * FROM jobs WHERE lane = ? AND state = ${ready}
      ORDER BY priority DESC, seq LIMIT ?`),
    lease: sql(`UPDATE jobs SET state = ${running}, lease = lease + 1, lease_until_ms = ?
      WHERE seq = ?`),
    next: sql(`SELECT (SELECT min(due_ms) FROM jobs WHERE state = ${delayed}) AS due,
      (SELECT min(lease_until_ms) FROM jobs WHERE state = ${running}) AS leased`),
    extend: sql(
      `UPDATE jobs SET lease_until_ms = ? WHERE id = ? AND state = ${running} AND lease = ?`,
    ),
    held: sql(`SELECT seq, lane, state, order_key, attempts, message FROM jobs
      WHERE id = ? AND state = ${running} AND lease = ?`),
    again: sql(`UPDATE jobs SET state = ?, due_ms = ?, attempts = ?,
      sealed_story = coalesce(?, sealed_story) WHERE seq = ?`),
    ...prepareEnds(sql),
  };
}

type Prepare = (text: string) => StatementSync;

/** Of what has ended, and of what both know. */
function prepareEnds(sql: Prepare) {
  return {
    end: sql(`INSERT INTO ended (state, ended_ms, attempts, sealed_story, sealed_input, input_blob, message,
        status, cause, sealed_result, result_blob,
        id, kind, namespace, function_id, lane, priority, accepted_ms, order_key, parent, lost)
      SELECT ?, ?, ?, coalesce(?, sealed_story), iif(?, sealed_input, NULL),
        iif(?, input_blob, NULL), iif(?, message, NULL), ?, ?, ?, ?,
        id, kind, namespace, function_id, lane, priority, accepted_ms, order_key, parent, lost
      FROM jobs WHERE seq = ?`),
    remove: sql('DELETE FROM jobs WHERE seq = ?'),
    live: sql('SELECT * FROM jobs WHERE id = ?'),
    hasEnded: sql('SELECT 1 FROM ended WHERE id = ?'),
    ended: sql('SELECT * FROM ended WHERE id = ?'),
    oldEnded: sql(`SELECT id, ended_ms, input_blob, result_blob, message FROM ended
      WHERE ended_ms < ? AND state <> 'dead' ORDER BY ended_ms, id LIMIT ?`),
    oldDead: sql(`SELECT id, ended_ms, input_blob, result_blob, message FROM ended
      WHERE ended_ms < ? AND state = 'dead' ORDER BY ended_ms, id LIMIT ?`),
    forget: sql('DELETE FROM ended WHERE id = ?'),
    blobs: sql(`SELECT input_blob AS blob FROM jobs WHERE input_blob IS NOT NULL
      UNION SELECT input_blob FROM ended WHERE input_blob IS NOT NULL
      UNION SELECT result_blob FROM ended WHERE result_blob IS NOT NULL
      UNION SELECT blob FROM messages WHERE blob IS NOT NULL`),
  };
}

function prepareMessages(sql: Prepare) {
  return {
    addMessage: sql(`INSERT INTO messages (id, topic, published_ms, keep_until_ms, sealed, blob)
      VALUES (?, ?, ?, ?, ?, ?)`),
    hasMessage: sql('SELECT 1 FROM messages WHERE id = ?'),
    input: sql('SELECT sealed, blob FROM messages WHERE id = ?'),
    name: sql('UPDATE messages SET refs = refs + 1 WHERE id = ?'),
    unname: sql('UPDATE messages SET refs = refs - 1 WHERE id = ?'),
    removeMessage: sql(`DELETE FROM messages
      WHERE id = ? AND refs = 0 AND keep_until_ms <= ? AND blob IS NULL`),
    oldMessages: sql(`SELECT id, blob FROM messages WHERE refs = 0 AND keep_until_ms <= ?
      ORDER BY keep_until_ms, id LIMIT ?`),
    forgetMessage: sql('DELETE FROM messages WHERE id = ?'),
  };
}

function prepareDead(sql: Prepare) {
  return {
    open: sql(`SELECT 1 FROM ended WHERE id = ? AND state <> 'succeeded' AND redriven IS NULL`),
    redrive: sql('UPDATE ended SET redriven = ? WHERE id = ?'),
    causes: sql(`SELECT lane, kind, coalesce(cause, '') AS cause, count(*) AS count,
        min(ended_ms) AS first, max(ended_ms) AS last
      FROM ended WHERE namespace = ? AND state = 'dead' AND redriven IS NULL
      GROUP BY lane, kind, cause ORDER BY last DESC, lane, cause`),
  };
}
