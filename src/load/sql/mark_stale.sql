-- Called by: `sluice replay reload`, before forget_loaded.sql in the catalog. Locks: the rows written.
-- A micro-batch that has no row here gets one, so that its rows, should any be here, are compared and not doubled.
INSERT INTO warehouse.load_state (micro_batch_id, source_partition_id, offsets, row_count, stale, keeps_history)
SELECT b.micro_batch_id, b.source_partition_id, int8range(b.first, b.next), 0, true, true
  FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[]) AS b (micro_batch_id, source_partition_id, first, next)
 ORDER BY b.micro_batch_id
ON CONFLICT (micro_batch_id) DO UPDATE SET stale = true
