-- Called by: load::bulk, in the transactions that check foreign keys behind a load. Locks: the partition's advisory lock, if it is free.
-- Whether the lock ($1, $2) is ours now and the partition $3 still waits for what sealing gives.
SELECT pg_try_advisory_xact_lock($1::integer, $2::integer)
       AND EXISTS (SELECT FROM warehouse.table_partition WHERE name = $3 AND state = 'sealing')
