-- Called by: a replay, before it reads the messages of a replaced micro-batch again. Locks: none.
SELECT bucket, key, version, message_offset, record, connector, outcome, etag, last_modified, size_bytes, announced_at, overwrite
  FROM catalog.object_claim WHERE micro_batch_id = $1
