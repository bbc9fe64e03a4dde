-- Called by: commit, after upsert_masks.sql. Locks: the masks that go.
-- The version that outranks the others of its key is masked no more.
DELETE FROM catalog.mask m USING catalog.object_claim c
 WHERE c.cluster_id = $1 AND c.consumer_group = $2
   AND (c.bucket, c.key) IN (SELECT bucket, key FROM unnest($3::text[], $4::text[]) AS k (bucket, key))
   AND (m.micro_batch_id, m.message_offset, m.record) = (c.micro_batch_id, c.message_offset, c.record)
   AND EXISTS (SELECT FROM catalog.mask o
                WHERE o.by_cluster_id = c.cluster_id AND o.by_consumer_group = c.consumer_group
                  AND o.by_bucket = c.bucket AND o.by_key = c.key AND o.by_version = c.version)
RETURNING m.micro_batch_id
