-- Called by: commit, under the locks of lock_object_keys.sql. Locks: none.
-- Keys of which several versions are claimed, and the store's order of some of them is not known. Where a bucket keeps
-- no versions (`etag@time`), each was the current one when it was read, and its time tells the order.
SELECT c.bucket, c.key
  FROM (SELECT DISTINCT bucket, key FROM unnest($3::text[], $4::text[]) AS k (bucket, key)) k
  JOIN catalog.object_claim c USING (bucket, key)
 WHERE c.cluster_id = $1 AND c.consumer_group = $2 AND c.outcome = 'emitted' AND c.overwrite <> 'append'
 GROUP BY c.bucket, c.key
HAVING count(*) > 1
   AND bool_or(c.store_order IS NULL AND left(c.version, length(c.etag) + 1) <> c.etag || '@')
