-- Called by: the owner of a topic partition. Locks: the source_partition row is held by the caller; then the rows.
-- Chunks of one message, and those before the position: a commit has covered their messages, and named their files or not.
DELETE FROM catalog.object_chunk c
 WHERE source_partition_id = $1 AND (message_offset = $2 OR message_offset < $3)
RETURNING pending_keys,
          EXISTS (SELECT FROM catalog.micro_batch b WHERE b.micro_batch_id = c.micro_batch_id) AS is_named
