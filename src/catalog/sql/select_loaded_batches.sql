-- Called by: `sluice replay reload`, page by page. Locks: none.
-- What was not to be loaded is found as well: its connector may have a warehouse by now.
-- $1 group; $2 topic, $3 topic partition, $4 time: null for all; $5 the last of the page before, $6 the page's length.
SELECT b.micro_batch_id, b.source_partition_id, lower(b.offsets) AS first, upper(b.offsets) AS next, b.row_out_count
  FROM catalog.micro_batch b JOIN catalog.source_partition p USING (source_partition_id)
 WHERE p.consumer_group = $1 AND b.state = 'live' AND b.row_out_count > 0 AND (b.loaded_at IS NOT NULL OR NOT b.needs_load)
   AND ($2::text IS NULL OR p.topic = $2) AND ($3::integer IS NULL OR p.topic_partition = $3)
   AND ($4::timestamptz IS NULL OR b.committed_at >= $4)
   AND ($5::uuid IS NULL OR b.micro_batch_id > $5)
 ORDER BY b.micro_batch_id LIMIT $6
