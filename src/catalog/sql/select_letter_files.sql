-- Called by: `sluice dead-letters list --all`. Locks: none. Files of dead letters of live micro-batches, newest first.
-- $1 group, $2 connector, $3 committed since.
SELECT f.file_id, f.kind, f.connector, f.table_partition, f.pending_key, f.published_key, f.state, f.is_rewritten,
       f.size_bytes, f.sha256, b.micro_batch_id, p.topic, p.topic_partition, b.committed_at
  FROM catalog.file f
  JOIN catalog.micro_batch b USING (micro_batch_id)
  JOIN catalog.source_partition p USING (source_partition_id)
 WHERE f.kind = 'dead_letter' AND b.state = 'live' AND p.consumer_group = $1
   AND ($2::text IS NULL OR f.connector = $2) AND ($3::timestamptz IS NULL OR b.committed_at >= $3)
 ORDER BY b.committed_at DESC, f.file_id DESC
