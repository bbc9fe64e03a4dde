-- Called by: catalog::attempts::pass_attempt, where the message did no harm. Locks: the attempt row.
DELETE FROM catalog.attempt
 WHERE source_partition_id = $1 AND subject = 'message' AND attempt_offset = $2 AND attempt_id = $3
