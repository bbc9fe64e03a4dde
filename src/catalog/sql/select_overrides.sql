-- Called by: replays and re-drives, before they read the messages of a replaced micro-batch again. Locks: none.
SELECT o.override_id, o.message_offset, o.record, o.row_number, o.bytes
  FROM catalog.micro_batch b
  JOIN catalog.override o ON o.source_partition_id = b.source_partition_id
       AND o.message_offset >= lower(b.offsets) AND o.message_offset < upper(b.offsets)
 WHERE b.micro_batch_id = $1
