-- Called by: load, in a replay, after the source and the shards are locked. Locks: none.
-- Whether all that is loaded over the range is one micro-batch with these very rows, none of them masked.
SELECT count(*) = 1
       AND bool_and(offsets = int8range($2::bigint, $3::bigint) AND NOT stale AND mask_rev = 0 AND digest = $5) IS TRUE
  FROM warehouse.load_state
 WHERE source_partition_id = $1 AND offsets && int8range($2::bigint, $3::bigint) AND micro_batch_id <> $4
