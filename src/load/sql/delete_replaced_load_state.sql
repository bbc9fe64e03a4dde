-- Called by: load, in a replay, in the transaction that retracts the rows. Locks: the rows deleted.
-- One that reaches beyond the range stays: it tells that more of its rows are to be retracted.
DELETE FROM warehouse.load_state
 WHERE source_partition_id = $1 AND offsets <@ int8range($2::bigint, $3::bigint) AND micro_batch_id <> $4
