-- Called by: status and settled. Locks: none.
SELECT p.topic, p.topic_partition, p.next_offset, p.halted_reason, p.cluster_id,
       count(b.*) AS batch_count, max(b.committed_at) AS last_commit
  FROM catalog.source_partition p
  LEFT JOIN catalog.micro_batch b USING (source_partition_id)
 WHERE p.consumer_group = $1
 GROUP BY p.source_partition_id
 ORDER BY p.topic, p.topic_partition
