-- Called by: the loader. Locks: the leased rows, for this statement; rows locked by others are passed over.
-- loaded_at is a hint: load_state in the warehouse decides whether anything is done.
-- The oldest, and those after it as long as all are at most $2 in number, with at most $3 rows and $4 bytes of files. One that
-- replaces another comes alone.
WITH waiting AS MATERIALIZED (
    SELECT micro_batch_id, committed_at, row_out_count,
           EXISTS (SELECT FROM catalog.micro_batch d WHERE d.superseded_by = b.micro_batch_id) AS replaces
      FROM catalog.micro_batch b
     WHERE state = 'live' AND loaded_at IS NULL AND needs_load
       AND (load_lease_until IS NULL OR load_lease_until < now())
     ORDER BY committed_at LIMIT $2::bigint FOR UPDATE SKIP LOCKED
), summed AS (
    SELECT w.micro_batch_id, w.replaces,
           row_number() OVER upto AS place,
           sum(w.row_out_count) OVER upto AS row_count,
           sum(f.size_bytes) OVER upto AS size_bytes,
           bool_or(w.replaces) OVER upto AS any_replaces
      FROM waiting w
     CROSS JOIN LATERAL (SELECT coalesce(sum(size_bytes), 0) AS size_bytes FROM catalog.file f
                          WHERE f.micro_batch_id = w.micro_batch_id AND f.kind = 'data') f
    WINDOW upto AS (ORDER BY w.committed_at, w.micro_batch_id)
), chosen AS (
    SELECT micro_batch_id, place, replaces FROM summed
     WHERE place = 1 OR (row_count <= $3::bigint AND size_bytes <= $4::bigint AND NOT any_replaces)
), leased AS (
    UPDATE catalog.micro_batch b SET load_lease_until = now() + $1 * interval '1 second'
      FROM chosen c, catalog.source_partition p
     WHERE b.micro_batch_id = c.micro_batch_id AND p.source_partition_id = b.source_partition_id
    RETURNING c.place, b.micro_batch_id, b.source_partition_id, lower(b.offsets) AS first, upper(b.offsets) AS next,
              b.oldest_message_at, b.mask_rev, p.topic, p.topic_partition, c.replaces
)
SELECT * FROM leased ORDER BY place
