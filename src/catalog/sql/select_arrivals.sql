-- Called by: `sluice doctor`. Locks: none.
-- $1: seconds back. Rows that live micro-batches have staged, by connector, and since when.
SELECT f.connector, sum(f.row_count)::bigint AS row_count,
       extract(epoch FROM clock_timestamp() - min(b.committed_at))::float8 AS seconds
  FROM catalog.micro_batch b
  JOIN catalog.file f USING (micro_batch_id)
 WHERE b.state = 'live' AND f.kind = 'data' AND b.committed_at >= now() - make_interval(secs => $1)
 GROUP BY f.connector ORDER BY f.connector
