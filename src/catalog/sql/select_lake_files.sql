-- Called by: `sluice query`, in one transaction with select_masked_rows.sql. Locks: none.
-- $1 group.
SELECT f.file_id, f.kind, f.dataset, f.schema_revision, f.key, c.published_key, f.row_count, f.size_bytes,
       f.event_time_min, f.event_time_max, f.state = 'published' AND c.is_rewritten AS is_rewritten
  FROM lake.files f
  JOIN catalog.file c USING (file_id)
  JOIN catalog.micro_batch b ON b.micro_batch_id = f.micro_batch_id
  JOIN catalog.source_partition p USING (source_partition_id)
 WHERE p.consumer_group = $1
 ORDER BY f.dataset, f.table_partition, f.file_id
