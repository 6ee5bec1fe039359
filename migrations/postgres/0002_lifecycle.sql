-- What becomes of a notification after it was created: received, expired, erased with its user.

ALTER TABLE notification
    -- When a device of the user first said that it has received the notification, or its last change.
    ADD COLUMN confirmed_at TIMESTAMPTZ(3),
    -- The idempotency key that it was created with, if any: erasing a user finds the user's keys by it.
    ADD COLUMN key_scope TEXT COLLATE "C",
    ADD COLUMN key TEXT COLLATE "C";

-- What is due, first due first. Most notifications never expire, and are not in it. With created_seq, because a
-- campaign may end at one instant: no look may have to sort all of it.
CREATE INDEX notification_by_expiry ON notification (expires_at, created_seq)
    WHERE deleted_at IS NULL AND expires_at IS NOT NULL;
