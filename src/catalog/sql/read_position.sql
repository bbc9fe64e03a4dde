-- Called by: catalog::position::read, after the fence is installed.
-- Locks: none. $1 source_partition_id, $2 fence named by the committed offset's tag (or null).
SELECT p.next_offset,
       (SELECT max(upper(b.offsets)) FROM catalog.micro_batch b
         WHERE b.source_partition_id = p.source_partition_id AND b.state IN ('live', 'skipped')) AS end_offset,
       p.last_message_offset, p.last_message_timestamp_ms, p.last_message_sha256,
       EXISTS (SELECT FROM catalog.fence f
                WHERE f.fence = $2 AND f.source_partition_id = p.source_partition_id) AS fence_known,
       EXISTS (SELECT FROM catalog.source_partition o
                WHERE o.consumer_group = p.consumer_group AND o.topic = p.topic
                  AND o.topic_partition = p.topic_partition AND o.cluster_id <> p.cluster_id
                  -- a mistaken start elsewhere left a row, but read nothing
                  AND o.next_offset IS NOT NULL AND p.next_offset IS NULL) AS other_cluster,
       (SELECT catalog_id FROM catalog.schema_info) AS catalog_id
  FROM catalog.source_partition p
 WHERE p.source_partition_id = $1
