-- Called by: commit, under the locks of lock_object_keys.sql. Locks: the claims.
-- $3 bucket, $4 key, $5 versions as the store lists them, the oldest first. Versions that it lists no longer were there
-- before the others: 0.
UPDATE catalog.object_claim
   SET store_order = coalesce(array_position($5::text[], version), 0)
 WHERE cluster_id = $1 AND consumer_group = $2 AND bucket = $3 AND key = $4
