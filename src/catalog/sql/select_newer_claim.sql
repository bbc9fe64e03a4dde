-- Called by: a replay that finds an object overwritten. Locks: none.
-- Whether a live micro-batch of the group holds a version of the object that is newer.
SELECT EXISTS (SELECT FROM catalog.object_claim
                WHERE cluster_id = $1 AND consumer_group = $2 AND bucket = $3 AND key = $4
                  AND last_modified > $5 AND outcome = 'emitted' AND overwrite = 'replace')
