-- Called by: status. Locks: none. Sums over the live and skipped micro-batches of a group.
SELECT c.ledger, c.connector, c.outcome, sum(c.item_count)::bigint AS item_count
  FROM catalog.outcome_count c
  JOIN catalog.micro_batch b USING (micro_batch_id)
  JOIN catalog.source_partition p USING (source_partition_id)
 WHERE p.consumer_group = $1 AND b.state <> 'dead'
 GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
