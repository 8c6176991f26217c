/**
 * The schema as the list of its changes: entry n brings a database from `user_version` n to n + 1.
 * Append only: an entry that was released is never edited, since databases exist that ran it. They
 * are strings in a module, not .sql files, so that they survive bundling into one file.
 *
 * No SQL looks inside columns named sealed_*. Tables are STRICT: a wrong type fails at the write.
 */
export const migrations: readonly string[] = [
  // 1: functions and their versions.
  `
  CREATE TABLE counters (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  INSERT INTO counters (name, value) VALUES ('revision', 0);

  CREATE TABLE functions (
    id TEXT PRIMARY KEY,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    settings TEXT NOT NULL,
    sealed_token BLOB NOT NULL,
    identity INTEGER NOT NULL,
    active_version INTEGER,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    FOREIGN KEY (id, active_version) REFERENCES versions (function_id, number)
      DEFERRABLE INITIALLY DEFERRED
  ) STRICT, WITHOUT ROWID;
  CREATE UNIQUE INDEX functions_name ON functions (namespace, name);
  CREATE UNIQUE INDEX functions_identity ON functions (identity);

  CREATE TABLE versions (
    function_id TEXT NOT NULL
      REFERENCES functions (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    number INTEGER NOT NULL CHECK (number >= 1),
    state TEXT NOT NULL CHECK (state IN ('building', 'ready', 'failed')),
    sealed_spec BLOB NOT NULL,
    content_digest TEXT NOT NULL,
    source_digest TEXT,
    failure TEXT,
    sealed_build_log BLOB NOT NULL,
    created_ms INTEGER NOT NULL,
    settled_ms INTEGER,
    PRIMARY KEY (function_id, number)
  ) STRICT;
  CREATE INDEX versions_source ON versions (source_digest) WHERE source_digest IS NOT NULL;
  `,
  // 2: why a version failed is sealed. SQL cannot seal, so the older reasons go; their build logs stay.
  `
  ALTER TABLE versions DROP COLUMN failure;
  ALTER TABLE versions ADD COLUMN sealed_failure BLOB;
  `,
  // 3: secrets; how calls are split among versions; and up to which version builds do not take over.
  `
  CREATE TABLE secrets (
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    sealed_value BLOB NOT NULL,
    updated_ms INTEGER NOT NULL,
    PRIMARY KEY (namespace, name)
  ) STRICT, WITHOUT ROWID;
  ALTER TABLE functions ADD COLUMN traffic TEXT;
  ALTER TABLE functions ADD COLUMN activate_above INTEGER NOT NULL DEFAULT 0;
  `,
  // 4: topics, subscriptions, schedules and other triggers.
  `
  CREATE TABLE resources (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    sealed_spec BLOB NOT NULL,
    is_paused INTEGER NOT NULL CHECK (is_paused IN (0, 1)),
    since_ms INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    revision INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE UNIQUE INDEX resources_name ON resources (kind, namespace, name);
  `,
];

/** 'fnwa': tells our database from one of another program. In the file's header. */
export const applicationId = 0x666e7761;
