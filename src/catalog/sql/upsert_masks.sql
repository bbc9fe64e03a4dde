-- Called by: commit, after the claims are inserted, under the locks of lock_object_keys.sql. Locks: the masks.
-- Of the emitted versions of each key all but one are masked, by that one. Order of versions: the store's listing, its
-- time, the time of the announcement (times of stores are whole seconds), the version's name.
-- $1 cluster, $2 group, $3 and $4 buckets and keys. Returns the micro-batches whose masks changed.
WITH ranked AS (
    SELECT c.*, row_number() OVER (PARTITION BY c.bucket, c.key, c.overwrite
               ORDER BY CASE c.overwrite WHEN 'replace' THEN c.store_order END DESC NULLS LAST,
                        CASE c.overwrite WHEN 'replace' THEN c.last_modified END DESC,
                        CASE c.overwrite WHEN 'replace' THEN c.announced_at END DESC,
                        CASE c.overwrite WHEN 'replace' THEN c.version END DESC,
                        c.store_order NULLS FIRST, c.last_modified, c.announced_at, c.version) AS rank
      FROM (SELECT DISTINCT bucket, key FROM unnest($3::text[], $4::text[]) AS k (bucket, key)) k
      JOIN catalog.object_claim c USING (bucket, key)
     WHERE c.cluster_id = $1 AND c.consumer_group = $2 AND c.outcome = 'emitted' AND c.overwrite <> 'append'
)
INSERT INTO catalog.mask AS m
    (micro_batch_id, message_offset, record, by_cluster_id, by_consumer_group, by_bucket, by_key, by_version)
SELECT r.micro_batch_id, r.message_offset, r.record, w.cluster_id, w.consumer_group, w.bucket, w.key, w.version
  FROM ranked r JOIN ranked w ON (w.bucket, w.key, w.overwrite) = (r.bucket, r.key, r.overwrite) AND w.rank = 1
 WHERE r.rank > 1
ON CONFLICT (micro_batch_id, message_offset, record) DO UPDATE SET by_version = excluded.by_version
 WHERE m.by_version <> excluded.by_version
RETURNING micro_batch_id
