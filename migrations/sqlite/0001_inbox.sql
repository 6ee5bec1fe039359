-- The inbox: every user's counter, every user's notifications, and what idempotency remembers.
--
-- The same tables as for PostgreSQL, where their contracts are written at length. Times are integers,
-- milliseconds since 1970 in UTC; ids are 16 bytes.

-- One row for each user that anything was ever sent to. It is never removed: head_seq never goes back.
CREATE TABLE user_feed (
    user_id      TEXT NOT NULL PRIMARY KEY,
    head_seq     INTEGER NOT NULL DEFAULT 0 CHECK (head_seq >= 0),
    floor_seq    INTEGER NOT NULL DEFAULT 0 CHECK (floor_seq <= head_seq),
    unread       INTEGER NOT NULL DEFAULT 0 CHECK (unread >= 0),
    read_all_seq INTEGER NOT NULL DEFAULT 0 CHECK (read_all_seq <= head_seq),
    cleared_seq  INTEGER NOT NULL DEFAULT 0 CHECK (cleared_seq <= head_seq),
    valid_after  INTEGER
) STRICT, WITHOUT ROWID;

-- One row for each notification. A deleted one stays as a tombstone: texts emptied, ids and seqs kept.
CREATE TABLE notification (
    user_id       TEXT NOT NULL,
    id            BLOB NOT NULL,
    created_seq   INTEGER NOT NULL,
    seq           INTEGER NOT NULL CHECK (seq >= created_seq),
    kind          TEXT NOT NULL,
    priority      TEXT NOT NULL,
    title         TEXT NOT NULL,
    message       TEXT NOT NULL,
    data          TEXT NOT NULL,
    action_url    TEXT,
    icon          TEXT,
    badge         TEXT,
    silent        INTEGER NOT NULL,
    sticky        INTEGER NOT NULL,
    created_at    INTEGER NOT NULL,
    read_at       INTEGER,
    clicked_at    INTEGER,
    expires_at    INTEGER,
    deleted_at    INTEGER,
    delete_reason TEXT,
    PRIMARY KEY (user_id, id),
    CHECK ((deleted_at IS NULL) = (delete_reason IS NULL))
) STRICT;

-- What was missed, in order. Unique, so that a seq given twice is an error and not a lost change.
CREATE UNIQUE INDEX notification_by_seq ON notification (user_id, seq);

-- The list. Without tombstones: a list after a clear reads none of what was cleared.
CREATE INDEX notification_by_creation ON notification (user_id, created_seq) WHERE deleted_at IS NULL;

-- What a publisher's key stood for; it holds for 24 hours from created_at, then it may be taken again.
CREATE TABLE idempotency (
    scope      TEXT NOT NULL,
    key        TEXT NOT NULL,
    body_hash  BLOB NOT NULL,
    -- The notifications that it created, in the order of the body: 16 bytes each, one after the other.
    ids        BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;

-- One row: which history this is. It is part of the epoch that clients compare.
CREATE TABLE installation (
    id TEXT NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;

INSERT INTO installation (id) VALUES (lower(hex(randomblob(16))));
