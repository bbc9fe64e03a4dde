-- Called by: publish::outbox, under the advisory lock of whoever sends. Locks: none besides.
SELECT outbox_id, topic, message_key, payload FROM catalog.outbox
 WHERE sent_at IS NULL ORDER BY outbox_id LIMIT $1
