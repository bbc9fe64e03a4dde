-- Called by: `sluice replay status`. Locks: none. The newest replay of each topic partition of a group.
SELECT DISTINCT ON (p.topic, p.topic_partition)
       p.topic, p.topic_partition, r.requested_offset, r.start_offset, r.until_offset,
       CASE WHEN r.ended_at IS NULL THEN p.next_offset ELSE r.until_offset END AS position,
       -- a commit that ended a replay has the same time as its end; skipped ranges that were filled had no rows to replace
       (SELECT count(*) FROM catalog.micro_batch d JOIN catalog.micro_batch b ON b.micro_batch_id = d.superseded_by
         WHERE d.source_partition_id = r.source_partition_id AND d.state = 'dead'
           AND b.committed_at >= r.accepted_at AND b.committed_at <= coalesce(r.ended_at, 'infinity')
           AND NOT EXISTS (SELECT FROM catalog.outcome_count c
                            WHERE c.micro_batch_id = d.micro_batch_id AND c.outcome = 'skipped')) AS replaced_count,
       r.accepted_at, r.ended_at, coalesce(r.ended_as, 'running') AS state
  FROM catalog.replay r JOIN catalog.source_partition p USING (source_partition_id)
 WHERE p.consumer_group = $1
 ORDER BY p.topic, p.topic_partition, r.replay_id DESC
