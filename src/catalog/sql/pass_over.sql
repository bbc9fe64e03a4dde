-- Called by: commit, in a replay, over a micro-batch that cannot be rebuilt and therefore stays.
-- Locks: the source_partition row. Hits no row where the fence or the position moved on: fenced (FENCE-1).
UPDATE catalog.source_partition
   SET next_offset = $4, replay_until = CASE WHEN $4 >= replay_until THEN NULL ELSE replay_until END
 WHERE source_partition_id = $1 AND fence = $2 AND next_offset = $3
