-- Called by: catalog::attempts::withdraw_attempt, where an attempt ended alive without an answer. Locks: the attempt row.
-- Another attempt that has begun since keeps its count.
UPDATE catalog.attempt
   SET attempt_count = attempt_count - 1, attempt_id = NULL
 WHERE source_partition_id = $1 AND subject = 'message' AND attempt_offset = $2 AND attempt_id = $3
