-- Called by: `sluice replay plan`. Locks: none.
-- $1 group, $2 how many micro-batches at most, $3 seconds: a longer pause between two commits is idleness.
WITH newest AS (
    SELECT b.committed_at, b.row_in_count
      FROM catalog.micro_batch b JOIN catalog.source_partition p USING (source_partition_id)
     WHERE p.consumer_group = $1 AND b.state = 'live' AND b.row_in_count > 0
     ORDER BY b.committed_at DESC LIMIT $2
), paced AS (
    SELECT committed_at, row_in_count,
           extract(epoch FROM committed_at - lag(committed_at) OVER (ORDER BY committed_at))::float8 AS pause
      FROM newest
)
SELECT count(*) AS micro_batch_count, coalesce(sum(row_in_count), 0)::bigint AS row_count,
       coalesce(sum(pause), 0)::float8 AS seconds, max(committed_at) AS newest_at
  FROM paced WHERE pause <= $3
