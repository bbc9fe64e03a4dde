-- Called by: `sluice dead-letters show|edit|redrive`. Locks: none.
-- The micro-batch that is live now in the place of $2, or $2 itself. None where the group ($1) has no such micro-batch.
WITH RECURSIVE followed AS (
    SELECT micro_batch_id, state, superseded_by, source_partition_id, committed_at
      FROM catalog.micro_batch WHERE micro_batch_id = $2
    UNION ALL
    SELECT b.micro_batch_id, b.state, b.superseded_by, b.source_partition_id, b.committed_at
      FROM followed f JOIN catalog.micro_batch b ON b.micro_batch_id = f.superseded_by
)
SELECT f.micro_batch_id, f.source_partition_id, p.topic, p.topic_partition, f.committed_at
  FROM followed f JOIN catalog.source_partition p USING (source_partition_id)
 WHERE f.state = 'live' AND p.consumer_group = $1
