-- Called by: the transform role, before it builds a micro-batch. Locks: none. The last ones that an expectation was asked in,
-- of the live micro-batches that end at or before an offset: a replay finds those that the first run found.
SELECT r.rows_checked
  FROM catalog.micro_batch b
  JOIN catalog.expectation_result r USING (micro_batch_id)
 WHERE b.source_partition_id = $1 AND b.state = 'live' AND upper(b.offsets) <= $2 AND r.connector = $3 AND r.name = $4
 ORDER BY upper(b.offsets) DESC
 LIMIT $5
