-- Called by: the owner of a topic partition, before it reads a large object. Locks: none.
SELECT number, micro_batch_id, bucket, key, version, connector, connector_revision, chunk_bytes, pending_keys, state
  FROM catalog.object_chunk c
 WHERE source_partition_id = $1 AND message_offset = $2
   -- what a micro-batch has named is not there to be adopted
   AND NOT EXISTS (SELECT FROM catalog.micro_batch b WHERE b.micro_batch_id = c.micro_batch_id)
 ORDER BY number
