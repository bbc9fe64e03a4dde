-- Called by: catalog::claims, before an object is read. Locks: none: the commit decides.
SELECT version FROM catalog.object_claim
 WHERE cluster_id = $1 AND consumer_group = $2 AND bucket = $3 AND key = $4 AND version = ANY ($5)
   -- what a replay is about to replace does not hold it back
   AND ($6::uuid IS NULL OR micro_batch_id <> $6)
