-- Called by: load, after the source is locked. Locks: none.
-- Whether rows of these offsets may be here, from this micro-batch or another one.
SELECT EXISTS (SELECT FROM warehouse.load_state
                WHERE source_partition_id = $1 AND offsets && int8range($2::bigint, $3::bigint))
