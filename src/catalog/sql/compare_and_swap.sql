-- Called by: commit, under the lock of lock_source_partition.sql.
-- Hits no row where the fence or the position moved on: fenced (FENCE-1, OFF-2).
-- What is covered has proved harmless, or is set aside: its attempts are forgotten. Locks: those rows.
WITH forgotten AS (
    DELETE FROM catalog.attempt a USING catalog.source_partition p
     WHERE p.source_partition_id = $1 AND p.fence = $2 AND p.next_offset IS NOT DISTINCT FROM $3
       AND a.source_partition_id = $1 AND a.attempt_offset < $4
       AND CASE a.subject WHEN 'message' THEN a.attempt_offset >= $3
                          ELSE coalesce(a.careful_until, $4) <= $4 END
)
UPDATE catalog.source_partition
   SET next_offset = $4,
       replay_until = CASE WHEN $4 >= replay_until THEN NULL ELSE replay_until END,
       last_message_offset = coalesce($5::bigint, last_message_offset),
       last_message_timestamp_ms = CASE WHEN $5::bigint IS NULL THEN last_message_timestamp_ms ELSE $6 END,
       last_message_sha256 = CASE WHEN $5::bigint IS NULL THEN last_message_sha256 ELSE $7 END
 WHERE source_partition_id = $1 AND fence = $2 AND next_offset IS NOT DISTINCT FROM $3
