-- Called by: catalog::attempts::begin_ownership, at a take-over with messages ahead, under its fence.
-- Locks: the attempt row of the position.
-- $1 source_partition_id, $2 fence, $3 position, $4 end of the stretch that may hide the message to blame,
-- $5 ownerships without a commit before messages are read one at a time, $6 process.
WITH begun AS (
    INSERT INTO catalog.attempt AS a
        (source_partition_id, subject, attempt_offset, attempt_count, attempt_id, careful_until, process)
    SELECT p.source_partition_id, 'position', $3, 1, $2, CASE WHEN $5 <= 1 THEN $4::bigint END, $6
      FROM catalog.source_partition p WHERE p.source_partition_id = $1 AND p.fence = $2
    ON CONFLICT (source_partition_id, subject, attempt_offset) DO UPDATE
       SET attempt_count = a.attempt_count + CASE WHEN a.attempt_id = excluded.attempt_id THEN 0 ELSE 1 END,
           attempt_id = excluded.attempt_id, process = excluded.process, started_at = now(),
           careful_until = CASE WHEN a.attempt_count + 1 >= $5 THEN greatest(a.careful_until, $4::bigint)
                                ELSE a.careful_until END
    RETURNING careful_until
)
SELECT max(careful_until) FROM (
    SELECT careful_until FROM begun
    UNION ALL
    -- a commit within the stretch does not end it
    SELECT careful_until FROM catalog.attempt
     WHERE source_partition_id = $1 AND subject = 'position' AND attempt_offset < $3 AND careful_until > $3) all_of_them
