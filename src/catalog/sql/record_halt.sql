-- Called by: catalog::position::record_halt. Locks: the source_partition row.
UPDATE catalog.source_partition
   SET halted_reason = $3, halted_at = now()
 WHERE source_partition_id = $1 AND fence = $2
