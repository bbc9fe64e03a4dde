-- Called by: `sluice query`, in one transaction with select_lake_files.sql. Locks: none.
-- Rows that files still hold and nobody may see. $1 group.
SELECT DISTINCT m.micro_batch_id::text, m._offset, m._record
  FROM lake.masked_rows m
  JOIN catalog.micro_batch b USING (micro_batch_id)
  JOIN catalog.source_partition p USING (source_partition_id)
 WHERE p.consumer_group = $1
   AND EXISTS (SELECT FROM lake.files f WHERE f.micro_batch_id = m.micro_batch_id AND f.has_masks)
