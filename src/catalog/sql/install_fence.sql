-- Called by: catalog::position::install_fence, at every assignment.
-- Locks: the source_partition row (for the length of the transaction).
-- The new fence shuts out every older owner before anything else is read (FENCE-1).
WITH partition AS (
    INSERT INTO catalog.source_partition (cluster_id, consumer_group, topic, topic_partition, fence)
    VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (cluster_id, consumer_group, topic, topic_partition)
    DO UPDATE SET fence = excluded.fence, halted_reason = NULL, halted_at = NULL
    RETURNING source_partition_id
), history AS (
    INSERT INTO catalog.fence (fence, source_partition_id, process)
    SELECT $5, source_partition_id, $6 FROM partition
)
SELECT source_partition_id FROM partition
