-- Called by: `sluice replay plan`, to look whether the raw objects are still there. Locks: none.
-- $1 source_partition_id, $2 where the replay begins.
SELECT c.bucket, c.key, c.version, c.etag
  FROM catalog.object_claim c JOIN catalog.micro_batch b USING (micro_batch_id)
 WHERE b.source_partition_id = $1 AND b.state = 'live' AND upper(b.offsets) > $2
