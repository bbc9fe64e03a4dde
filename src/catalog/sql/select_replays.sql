-- Called by: `sluice replay status`. Locks: none. The newest replay of each topic partition of a group.
SELECT DISTINCT ON (p.topic, p.topic_partition)
       p.topic, p.topic_partition, r.requested_offset, r.start_offset, r.until_offset,
       CASE WHEN r.ended_at IS NULL THEN p.next_offset ELSE r.until_offset END AS position,
       r.accepted_at, r.ended_at, coalesce(r.ended_as, 'running') AS state
  FROM catalog.replay r JOIN catalog.source_partition p USING (source_partition_id)
 WHERE p.consumer_group = $1
 ORDER BY p.topic, p.topic_partition, r.replay_id DESC
