-- Called by: take-over, in a replay: what is committed from an offset on. Locks: none; the owner alone changes it.
SELECT micro_batch_id, lower(offsets) AS first, upper(offsets) AS next, state
  FROM catalog.micro_batch
 WHERE source_partition_id = $1 AND state IN ('live', 'skipped') AND upper(offsets) > $2
 ORDER BY lower(offsets)
