-- Called by: every owner at a take-over and every few seconds, `connectors list`, status. Locks: none.
-- Objects of micro-batches that were replaced no longer wait: the replay read them, or parked them anew.
SELECT c.connector, c.reason, c.parked_at, c.parked_by,
       (SELECT count(*) FROM catalog.parked_object o
          JOIN catalog.micro_batch b USING (micro_batch_id) JOIN catalog.source_partition p USING (source_partition_id)
         WHERE o.connector = c.connector AND p.consumer_group = c.consumer_group AND b.state = 'live') AS object_count
  FROM catalog.parked_connector c
 WHERE c.consumer_group = $1
 ORDER BY c.connector
