-- Called by: publish::outbox, in the transaction that marks them sent. Locks: the rows taken.
SELECT outbox_id, topic, message_key, payload FROM catalog.outbox
 WHERE sent_at IS NULL ORDER BY outbox_id LIMIT $1 FOR UPDATE SKIP LOCKED
