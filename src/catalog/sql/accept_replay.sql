-- Called by: catalog::replay::accept, when an operator moved the group back (or the catalog was restored).
-- Locks: the source_partition row. Hits no row where the fence is no longer ours.
-- $1 source_partition_id, $2 fence, $3 requested offset, $4 end of what is committed.
-- Inside a live micro-batch the replay starts where that micro-batch starts; elsewhere where it was asked to.
WITH start AS (
    SELECT coalesce((SELECT lower(b.offsets) FROM catalog.micro_batch b
                      WHERE b.source_partition_id = $1 AND b.state = 'live' AND b.offsets @> $3::bigint),
                    $3::bigint) AS start_offset
), moved AS (
    UPDATE catalog.source_partition p
       SET next_offset = start.start_offset, replay_until = $4::bigint
      FROM start
     WHERE p.source_partition_id = $1 AND p.fence = $2
    RETURNING p.source_partition_id, p.next_offset
), replaced AS (
    UPDATE catalog.replay r SET ended_at = now(), ended_as = 'replaced'
      FROM moved WHERE r.source_partition_id = moved.source_partition_id AND r.ended_at IS NULL
    RETURNING r.replay_id
)
SELECT next_offset, (SELECT count(*) FROM replaced) AS replaced FROM moved
