-- Called by: commit, before insert_parked_objects.sql. Locks: the rows of the parked connectors, shared, so that
-- `resume` either waits for this commit and sees its objects, or has ended and is seen.
SELECT connector FROM catalog.parked_connector
 WHERE consumer_group = $1 AND connector = ANY($2::text[]) ORDER BY connector FOR SHARE
