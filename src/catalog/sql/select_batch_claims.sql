-- Called by: the loader, for the time and the order of each row's object. Locks: none.
SELECT message_offset, record, bucket, key, version, etag, last_modified, size_bytes
  FROM catalog.object_claim WHERE micro_batch_id = $1
