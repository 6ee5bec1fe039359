-- What becomes of a notification after it was created: received, expired, erased with its user.

-- When a device of the user first said that it has received the notification, or its last change.
ALTER TABLE notification ADD COLUMN confirmed_at INTEGER;

-- The idempotency key that it was created with, if any: erasing a user finds the user's keys by it.
ALTER TABLE notification ADD COLUMN key_scope TEXT;
ALTER TABLE notification ADD COLUMN key TEXT;

-- What is due, first due first. Most notifications never expire, and are not in it. With created_seq, because a
-- campaign may end at one instant: no look may have to sort all of it.
CREATE INDEX notification_by_expiry ON notification (expires_at, created_seq)
    WHERE deleted_at IS NULL AND expires_at IS NOT NULL;
