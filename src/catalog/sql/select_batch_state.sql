-- Called by: the loader, under the warehouse's shard locks. Locks: none.
SELECT state FROM catalog.micro_batch WHERE micro_batch_id = $1
