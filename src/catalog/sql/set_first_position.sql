-- Called by: catalog::position::set_first, when a topic partition gets its first position.
-- Locks: the source_partition row. Hits no row where the fence is no longer ours.
UPDATE catalog.source_partition
   SET next_offset = $3
 WHERE source_partition_id = $1 AND fence = $2 AND next_offset IS NULL
