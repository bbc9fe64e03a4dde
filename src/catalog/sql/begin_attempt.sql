-- Called by: catalog::attempts::begin_attempt, before a message is tried alone. Locks: the attempt row.
-- No row: fenced. $1 source_partition_id, $2 fence, $3 offset, $4 the attempt's own id, $5 process.
INSERT INTO catalog.attempt AS a (source_partition_id, subject, attempt_offset, attempt_count, attempt_id, process)
SELECT p.source_partition_id, 'message', $3, 1, $4, $5
  FROM catalog.source_partition p WHERE p.source_partition_id = $1 AND p.fence = $2
ON CONFLICT (source_partition_id, subject, attempt_offset) DO UPDATE
   SET attempt_count = a.attempt_count + CASE WHEN a.attempt_id = excluded.attempt_id THEN 0 ELSE 1 END,
       attempt_id = excluded.attempt_id, process = excluded.process, started_at = now()
RETURNING attempt_count
