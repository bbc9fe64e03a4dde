-- Called by: `sluice dead-letters redrive` with filters. Locks: none.
-- Live micro-batches that have such dead letters (each has a sample of every connector and reason), and whether every
-- sample of them has an override that was tried too often ($5).
SELECT l.micro_batch_id, bool_and(coalesce(o.try_count >= $5, false)) AS is_exhausted
  FROM catalog.dead_letter l
  JOIN catalog.micro_batch b USING (micro_batch_id)
  JOIN catalog.source_partition p USING (source_partition_id)
  LEFT JOIN catalog.override o ON o.source_partition_id = b.source_partition_id AND o.message_offset = l.message_offset
       AND coalesce(o.record, -1) = coalesce(l.record, -1) AND coalesce(o.row_number, -1) = coalesce(l.row_number, -1)
 WHERE b.state = 'live' AND p.consumer_group = $1
   AND ($2::text IS NULL OR l.connector = $2) AND ($3::text IS NULL OR l.reason = $3)
   AND ($4::timestamptz IS NULL OR b.committed_at >= $4)
 GROUP BY l.micro_batch_id, b.committed_at ORDER BY b.committed_at
