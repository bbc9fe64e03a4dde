-- Called by: commit, after the compare-and-swap. Locks: none besides the new row.
-- The exclusion constraint one_live_batch_per_offset refuses a second live batch (OFF-1).
INSERT INTO catalog.micro_batch
    (micro_batch_id, source_partition_id, offsets, state, fence, object_count, row_in_count, row_out_count, oldest_message_at,
     needs_load)
VALUES ($1, $2, int8range($3, $4), $5, $6, $7, $8, $9, $10, $11)
