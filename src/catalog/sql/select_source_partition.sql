-- Called by: `sluice replay plan`. Locks: none.
SELECT source_partition_id FROM catalog.source_partition
 WHERE cluster_id = $1 AND consumer_group = $2 AND topic = $3 AND topic_partition = $4
