-- Called by: catalog::claims, before an object is read. Locks: none: the commit decides.
SELECT version FROM catalog.object_claim
 WHERE cluster_id = $1 AND consumer_group = $2 AND bucket = $3 AND key = $4 AND version = ANY ($5)
