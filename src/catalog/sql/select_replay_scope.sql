-- Called by: `sluice replay plan`. Locks: none.
-- $1 source_partition_id, $2 requested offset. What a replay from there would replace: it begins as
-- accept_replay.sql begins it.
WITH start AS (
    SELECT coalesce((SELECT lower(b.offsets) FROM catalog.micro_batch b
                      WHERE b.source_partition_id = $1 AND b.state = 'live' AND b.offsets @> $2::bigint),
                    $2::bigint) AS start_offset
), covered AS (
    SELECT b.micro_batch_id, b.state, b.row_in_count, b.row_out_count,
           upper(b.offsets) - greatest(lower(b.offsets), start.start_offset) AS offset_count
      FROM catalog.micro_batch b, start
     WHERE b.source_partition_id = $1 AND b.state IN ('live', 'skipped') AND upper(b.offsets) > start.start_offset
), claims AS (
    SELECT count(*) AS object_count, coalesce(sum(size_bytes), 0)::bigint AS size_bytes
      FROM catalog.object_claim JOIN covered USING (micro_batch_id)
), files AS (
    SELECT count(*) AS file_count, coalesce(sum(size_bytes), 0)::bigint AS size_bytes
      FROM catalog.file f JOIN covered USING (micro_batch_id) WHERE f.state <> 'hidden'
)
SELECT (SELECT start_offset FROM start) AS start_offset,
       count(*) FILTER (WHERE state = 'live') AS micro_batch_count,
       count(*) FILTER (WHERE state = 'skipped') AS skipped_range_count,
       coalesce(sum(offset_count) FILTER (WHERE state = 'skipped'), 0)::bigint AS skipped_offset_count,
       coalesce(sum(row_in_count), 0)::bigint AS row_in_count,
       coalesce(sum(row_out_count), 0)::bigint AS row_out_count,
       (SELECT object_count FROM claims) AS object_count,
       (SELECT size_bytes FROM claims) AS object_bytes,
       (SELECT file_count FROM files) AS file_count,
       (SELECT size_bytes FROM files) AS file_bytes
  FROM covered
