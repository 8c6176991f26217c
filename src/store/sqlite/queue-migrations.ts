/**
 * The schema of the queue's own file, as the list of its changes: see migrations.ts. A file of its own, so that accepting
 * work waits for nothing else, and a thread of its own can have it.
 *
 * What waits and runs is in `jobs`, what has ended in `ended`: a claim looks at rows that are ready, however many wait for
 * their time or are kept. `lanes` has the counts of each lane, so that a claim looks at no lane without ready jobs.
 */
export const queueMigrations: readonly string[] = [
  // 1: jobs.
  `
  CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL,
    function_id TEXT NOT NULL,
    lane TEXT NOT NULL,
    state INTEGER NOT NULL CHECK (state BETWEEN 0 AND 3),
    priority INTEGER NOT NULL,
    accepted_ms INTEGER NOT NULL,
    due_ms INTEGER NOT NULL,
    order_key TEXT,
    parent TEXT,
    lease INTEGER NOT NULL DEFAULT 0,
    lease_until_ms INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    lost INTEGER NOT NULL DEFAULT 0,
    sealed_input BLOB,
    input_blob TEXT,
    sealed_story BLOB
  ) STRICT;
  CREATE INDEX jobs_ready ON jobs (lane, priority DESC, seq) WHERE state = 0;
  CREATE INDEX jobs_due ON jobs (due_ms) WHERE state = 1;
  CREATE INDEX jobs_leased ON jobs (lease_until_ms) WHERE state = 3;
  CREATE INDEX jobs_key ON jobs (lane, order_key, seq) WHERE order_key IS NOT NULL;

  CREATE TABLE lanes (
    id TEXT PRIMARY KEY,
    running_max INTEGER NOT NULL,
    ready INTEGER NOT NULL,
    waiting INTEGER NOT NULL,
    running INTEGER NOT NULL,
    served INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX lanes_ready ON lanes (served) WHERE ready > 0;

  CREATE TABLE ended (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL,
    function_id TEXT NOT NULL,
    lane TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('succeeded', 'failed', 'dead', 'cancelled')),
    priority INTEGER NOT NULL,
    accepted_ms INTEGER NOT NULL,
    ended_ms INTEGER NOT NULL,
    order_key TEXT,
    parent TEXT,
    attempts INTEGER NOT NULL,
    lost INTEGER NOT NULL,
    status INTEGER,
    sealed_input BLOB,
    input_blob TEXT,
    sealed_story BLOB,
    sealed_result BLOB,
    result_blob TEXT
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX ended_old ON ended (ended_ms) WHERE state <> 'dead';
  CREATE INDEX ended_dead ON ended (ended_ms) WHERE state = 'dead';

  CREATE TABLE idempotency (
    key TEXT PRIMARY KEY,
    id TEXT NOT NULL,
    digest TEXT NOT NULL,
    until_ms INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX idempotency_old ON idempotency (until_ms);
  `,
  // 2: how far schedules have come, and what became of their last slots.
  `
  CREATE TABLE positions (
    schedule TEXT PRIMARY KEY,
    at_ms INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE slots (
    schedule TEXT NOT NULL,
    slot_ms INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    decided_ms INTEGER NOT NULL,
    job TEXT,
    PRIMARY KEY (schedule, slot_ms)
  ) STRICT, WITHOUT ROWID;
  `,
  // 3: messages, their deliveries, and what is dead by its cause.
  `
  CREATE TABLE messages (
    id TEXT NOT NULL UNIQUE,
    topic TEXT NOT NULL,
    published_ms INTEGER NOT NULL,
    keep_until_ms INTEGER NOT NULL,
    refs INTEGER NOT NULL DEFAULT 0 CHECK (refs >= 0),
    sealed BLOB,
    blob TEXT
  ) STRICT;
  CREATE INDEX messages_topic ON messages (topic, published_ms, id);
  CREATE INDEX messages_old ON messages (keep_until_ms) WHERE refs = 0;

  ALTER TABLE jobs ADD COLUMN message TEXT;
  CREATE UNIQUE INDEX jobs_message ON jobs (lane, message) WHERE message IS NOT NULL;
  ALTER TABLE ended ADD COLUMN message TEXT;
  ALTER TABLE ended ADD COLUMN cause TEXT;
  ALTER TABLE ended ADD COLUMN redriven TEXT;
  CREATE INDEX ended_causes ON ended (namespace, lane, kind, cause, ended_ms)
    WHERE state = 'dead' AND redriven IS NULL;
  CREATE INDEX ended_dead_ids ON ended (namespace, id) WHERE state = 'dead';
  `,
  // 4: what watched buckets held when they were looked at last.
  `
  CREATE TABLE buckets (id TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
  CREATE TABLE objects (
    bucket TEXT NOT NULL,
    key TEXT NOT NULL,
    content TEXT NOT NULL,
    metadata TEXT NOT NULL,
    PRIMARY KEY (bucket, key)
  ) STRICT, WITHOUT ROWID;
  `,
];
