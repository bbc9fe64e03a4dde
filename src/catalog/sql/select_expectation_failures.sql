-- Called by: status. Locks: none. Of the live micro-batches of a group that were committed in the last $2 seconds.
SELECT r.connector, r.stage, r.name, r.outcome, count(*) AS batch_count, sum(r.rows_failed)::bigint AS rows_failed,
       max(b.committed_at) AS last_at, (array_agg(r.value ORDER BY b.committed_at DESC))[1] AS last_value
  FROM catalog.expectation_result r
  JOIN catalog.micro_batch b USING (micro_batch_id)
  JOIN catalog.source_partition p USING (source_partition_id)
 WHERE p.consumer_group = $1 AND b.state = 'live' AND r.outcome <> 'passed'
   AND b.committed_at > now() - make_interval(secs => $2)
 GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
