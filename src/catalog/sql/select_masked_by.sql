-- Called by: commit, before the claims of superseded micro-batches go. Locks: none.
-- Whose rows those claims hide: the masks die with them. And whose keys must be looked at again.
SELECT c.bucket, c.key, m.micro_batch_id AS masked_batch
  FROM catalog.object_claim c
  LEFT JOIN catalog.mask m
    ON m.by_cluster_id = c.cluster_id AND m.by_consumer_group = c.consumer_group
   AND m.by_bucket = c.bucket AND m.by_key = c.key AND m.by_version = c.version
 WHERE c.micro_batch_id = ANY ($1::uuid[])
