-- Called by: `sluice dead-letters list --summary`. Locks: none.
-- Samples by connector and reason, and whether a micro-batch may have more than it has samples ($5).
SELECT connector, reason, sum(sample_count)::bigint AS sample_count, bool_or(sample_count >= $5) AS is_least
  FROM (SELECT l.micro_batch_id, l.connector, l.reason, count(*) AS sample_count
          FROM catalog.dead_letter l
          JOIN catalog.micro_batch b USING (micro_batch_id)
          JOIN catalog.source_partition p USING (source_partition_id)
         WHERE b.state = 'live' AND p.consumer_group = $1
           AND ($2::text IS NULL OR l.connector = $2) AND ($3::text IS NULL OR l.reason = $3)
           AND ($4::timestamptz IS NULL OR b.committed_at >= $4)
         GROUP BY 1, 2, 3) batches
 GROUP BY 1, 2 ORDER BY 1, 2
