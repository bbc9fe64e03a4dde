-- Called by: the owner of a topic partition, to know which keys have passed. Locks: none.
WITH earlier AS (
    SELECT f.* FROM catalog.file f JOIN catalog.micro_batch b USING (micro_batch_id)
     WHERE b.source_partition_id = $1 AND b.state = 'live' AND upper(b.offsets) <= $3
       AND f.connector = $2 AND f.kind = 'data' AND f.state <> 'hidden')
SELECT file_id, kind, connector, table_partition, pending_key, published_key, state, is_rewritten, size_bytes, sha256
  FROM earlier
 WHERE event_time_max IS NULL
    OR event_time_max >= (SELECT max(event_time_max) FROM earlier) - $4::float8 * interval '1 millisecond'
 ORDER BY event_time_max DESC, file_id
