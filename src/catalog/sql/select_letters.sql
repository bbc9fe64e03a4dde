-- Called by: `sluice dead-letters list`. Locks: none. The newest samples of a group's live micro-batches.
-- $1 group, $2 connector, $3 reason, $4 committed since, $5 how many.
SELECT l.micro_batch_id, l.message_offset, l.record, l.row_number, l.connector, l.reason, l.detail,
       l.bucket, l.key, l.version, p.topic, p.topic_partition, b.committed_at, o.try_count
  FROM catalog.dead_letter l
  JOIN catalog.micro_batch b USING (micro_batch_id)
  JOIN catalog.source_partition p USING (source_partition_id)
  LEFT JOIN catalog.override o ON o.source_partition_id = b.source_partition_id AND o.message_offset = l.message_offset
       AND coalesce(o.record, -1) = coalesce(l.record, -1) AND coalesce(o.row_number, -1) = coalesce(l.row_number, -1)
 WHERE b.state = 'live' AND p.consumer_group = $1
   AND ($2::text IS NULL OR l.connector = $2) AND ($3::text IS NULL OR l.reason = $3)
   AND ($4::timestamptz IS NULL OR b.committed_at >= $4)
 ORDER BY b.committed_at DESC, l.dead_letter_id DESC LIMIT $5
