-- Called by: commit. Locks: none besides the new row.
INSERT INTO catalog.outbox (micro_batch_id, topic, message_key, payload) VALUES ($1, $2, $3, $4)
