-- The inbox: every user's counter, every user's notifications, and what idempotency remembers.
--
-- Whoever changes a user's inbox takes the lock of that user's row in user_feed first, steps head_seq
-- by one for each change, and stamps the row that it changed, all in one transaction. So for one user
-- commit order is seq order, and an abort leaves no hole. Every key begins with user_id, compared byte
-- by byte: so the tables can be partitioned or distributed by it, and every node sorts users alike.

-- One row for each user that anything was ever sent to. It is never removed: head_seq never goes back.
CREATE TABLE user_feed (
    user_id      TEXT COLLATE "C" PRIMARY KEY,
    -- The seq of the last change.
    head_seq     BIGINT NOT NULL DEFAULT 0 CHECK (head_seq >= 0),
    -- The highest seq of which nothing is remembered: what is at or below it cannot be replayed.
    floor_seq    BIGINT NOT NULL DEFAULT 0 CHECK (floor_seq <= head_seq),
    -- How many notifications are neither read nor deleted; it moves in the transaction that moves them.
    unread       BIGINT NOT NULL DEFAULT 0 CHECK (unread >= 0),
    -- The seqs that the last read-all and the last clear took; no row carries them. 0: there was none.
    read_all_seq BIGINT NOT NULL DEFAULT 0 CHECK (read_all_seq <= head_seq),
    cleared_seq  BIGINT NOT NULL DEFAULT 0 CHECK (cleared_seq <= head_seq),
    -- Tokens issued at or before it are revoked.
    valid_after  TIMESTAMPTZ(3)
);

-- One row for each notification. A deleted one stays as a tombstone: texts emptied, ids and seqs kept.
CREATE TABLE notification (
    user_id       TEXT COLLATE "C" NOT NULL,
    id            UUID NOT NULL,
    -- The seq of its creation: lists are ordered by it, never by time or id.
    created_seq   BIGINT NOT NULL,
    -- The seq of its last change of its own; read-all and clear do not move it.
    seq           BIGINT NOT NULL CHECK (seq >= created_seq),
    kind          TEXT NOT NULL,
    priority      TEXT NOT NULL,
    title         TEXT NOT NULL,
    message       TEXT NOT NULL,
    -- The JSON text exactly as it was given: JSONB would reorder it and refuses \u0000.
    data          TEXT NOT NULL,
    action_url    TEXT,
    icon          TEXT,
    badge         TEXT,
    silent        BOOLEAN NOT NULL,
    sticky        BOOLEAN NOT NULL,
    created_at    TIMESTAMPTZ(3) NOT NULL,
    read_at       TIMESTAMPTZ(3),
    clicked_at    TIMESTAMPTZ(3),
    expires_at    TIMESTAMPTZ(3),
    deleted_at    TIMESTAMPTZ(3),
    delete_reason TEXT,
    PRIMARY KEY (user_id, id),
    CHECK ((deleted_at IS NULL) = (delete_reason IS NULL))
);

-- What was missed, in order. Unique, so that a seq given twice is an error and not a lost change.
CREATE UNIQUE INDEX notification_by_seq ON notification (user_id, seq);

-- The list. Without tombstones: a list after a clear reads none of what was cleared.
CREATE INDEX notification_by_creation ON notification (user_id, created_seq) WHERE deleted_at IS NULL;

-- What a publisher's key stood for; it holds for 24 hours from created_at, then it may be taken again.
CREATE TABLE idempotency (
    -- Publisher and path.
    scope      TEXT COLLATE "C" NOT NULL,
    key        TEXT COLLATE "C" NOT NULL,
    -- SHA-256 of the body.
    body_hash  BYTEA NOT NULL,
    -- The notifications that it created, in the order of the body.
    ids        UUID[] NOT NULL,
    created_at TIMESTAMPTZ(3) NOT NULL,
    PRIMARY KEY (scope, key)
);

-- One row: which history this is. It is part of the epoch that clients compare.
CREATE TABLE installation (
    id TEXT PRIMARY KEY
);

INSERT INTO installation (id) VALUES (gen_random_uuid());
