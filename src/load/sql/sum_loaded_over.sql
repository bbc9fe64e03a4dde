-- Called by: `sluice replay plan`. Locks: none.
SELECT count(*) AS micro_batch_count, coalesce(sum(row_count), 0)::bigint AS row_count
  FROM warehouse.load_state WHERE source_partition_id = $1 AND offsets && int8range($2::bigint, $3::bigint)
