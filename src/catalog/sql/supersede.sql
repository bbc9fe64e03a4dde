-- Called by: commit, under the lock of lock_source_partition.sql, before the new micro-batch is inserted (the
-- foreign key of superseded_by waits for it). Locks: the rows of the replaced micro-batches.
UPDATE catalog.micro_batch
   SET state = 'dead', superseded_by = $4
 WHERE source_partition_id = $1 AND state IN ('live', 'skipped') AND offsets && int8range($2, $3)
RETURNING micro_batch_id, lower(offsets) AS first, upper(offsets) AS next, needs_load,
          -- a skipped range has no rows and no claims; what is not covered of it stays skipped
          (SELECT old.state FROM catalog.micro_batch old WHERE old.micro_batch_id = micro_batch.micro_batch_id) AS state
