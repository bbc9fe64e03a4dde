-- Called by: catalog::attempts::end_ownership, where the process has given the topic partition up alive.
-- Locks: the attempt row. Another ownership that has begun since keeps its count.
UPDATE catalog.attempt
   SET attempt_count = attempt_count - 1, attempt_id = NULL
 WHERE source_partition_id = $1 AND subject = 'position' AND attempt_offset = $2 AND attempt_id = $3
