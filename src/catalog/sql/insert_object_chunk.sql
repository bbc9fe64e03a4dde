-- Called by: the owner of a topic partition, when a chunk of a large object is put. Locks: the source_partition row is
-- held by the caller. One that is there already is of an attempt whose outcome was unknown.
INSERT INTO catalog.object_chunk (source_partition_id, message_offset, number, micro_batch_id, bucket, key, version,
                                  connector, connector_revision, chunk_bytes, pending_keys, state)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
ON CONFLICT (source_partition_id, message_offset, number) DO NOTHING
