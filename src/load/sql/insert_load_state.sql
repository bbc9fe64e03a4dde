-- Called by: load, in the transaction that writes the rows (LOAD-1), after the source, days made whole and the shards are locked.
-- No row: the micro-batch is loaded already, with these masks. Waits for another transaction that loads it. Not new: rows of it
-- are there, loaded with other masks or stale.
INSERT INTO warehouse.load_state AS s (micro_batch_id, source_partition_id, offsets, row_count, mask_rev, digest, keeps_history)
VALUES ($1, $2, int8range($3::bigint, $4::bigint), $5, $6, $7, true)
ON CONFLICT (micro_batch_id) DO UPDATE
   SET row_count = excluded.row_count, mask_rev = excluded.mask_rev, digest = excluded.digest,
       loaded_at = clock_timestamp(), stale = false
 WHERE s.stale OR s.mask_rev < excluded.mask_rev
RETURNING s.xmax = 0 AS is_new
