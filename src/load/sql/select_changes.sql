-- Called by: load, before and after a merge, to count what it did. Locks: none.
-- `xmax = 0` in RETURNING would tell too, but a partitioned table has no system columns to return.
-- Counts of this transaction alone, partitions included; zero where track_counts is off.
SELECT coalesce(sum(pg_catalog.pg_stat_get_xact_tuples_inserted(t.oid)), 0)::bigint AS inserted,
       coalesce(sum(pg_catalog.pg_stat_get_xact_tuples_updated(t.oid)), 0)::bigint AS updated
  FROM (SELECT $1::text::regclass::oid AS oid
        UNION ALL
        SELECT inhrelid FROM pg_catalog.pg_inherits WHERE inhparent = $1::text::regclass) t
