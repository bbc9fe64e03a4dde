-- Called by: the loader. Locks: the leased row, for this statement; rows locked by others are passed over.
-- loaded_at is a hint: load_state in the warehouse decides whether anything is done.
UPDATE catalog.micro_batch b
   SET load_lease_until = now() + $1 * interval '1 second'
  FROM catalog.source_partition p
 WHERE p.source_partition_id = b.source_partition_id
   AND b.micro_batch_id = (
        SELECT micro_batch_id FROM catalog.micro_batch
         WHERE state = 'live' AND loaded_at IS NULL AND needs_load
           AND (load_lease_until IS NULL OR load_lease_until < now())
         ORDER BY committed_at LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING b.micro_batch_id, b.source_partition_id, lower(b.offsets) AS first, upper(b.offsets) AS next,
          b.oldest_message_at, b.mask_rev, p.topic, p.topic_partition,
          EXISTS (SELECT FROM catalog.micro_batch d WHERE d.superseded_by = b.micro_batch_id) AS replaces
