-- Called by: catalog::replay::cancel, when an operator moved the group to the end in the middle of a replay.
-- Locks: the source_partition row. Hits no row where the fence is no longer ours.
-- What the replay has not reached stays as it was: its micro-batches are live.
WITH moved AS (
    UPDATE catalog.source_partition SET next_offset = $3, replay_until = NULL
     WHERE source_partition_id = $1 AND fence = $2
    RETURNING source_partition_id
), cancelled AS (
    UPDATE catalog.replay r SET ended_at = now(), ended_as = 'cancelled'
      FROM moved WHERE r.source_partition_id = moved.source_partition_id AND r.ended_at IS NULL
    RETURNING r.replay_id
)
SELECT (SELECT count(*) FROM cancelled) AS cancelled FROM moved
