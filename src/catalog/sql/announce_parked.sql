-- Called by: `connectors resume`, in the transaction that has deleted the connector's parked state.
-- Locks: the rows of the objects. They are announced on the topic that announced them first; what a replay has
-- replaced meanwhile is not.
WITH taken AS (
    DELETE FROM catalog.parked_object o
     USING catalog.micro_batch b, catalog.source_partition p
     WHERE o.connector = $2 AND b.micro_batch_id = o.micro_batch_id
       AND p.source_partition_id = b.source_partition_id AND p.consumer_group = $1
    RETURNING o.micro_batch_id, o.message_offset, o.record, o.bucket, o.key, o.announcement, b.state, p.topic
)
INSERT INTO catalog.outbox (micro_batch_id, topic, message_key, payload)
SELECT micro_batch_id, topic, bucket || '/' || key, announcement
  FROM taken WHERE state = 'live' ORDER BY message_offset, record
