-- Called by: `sluice dead-letters`. Locks: none. The override of one place.
SELECT bytes, edited_at, edited_by, try_count, fault
  FROM catalog.override
 WHERE source_partition_id = $1 AND message_offset = $2
   AND coalesce(record, -1) = coalesce($3::integer, -1) AND coalesce(row_number, -1) = coalesce($4::bigint, -1)
