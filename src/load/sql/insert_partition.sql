-- Called by: load::days, in the transaction that makes the partition. Locks: the row written.
INSERT INTO warehouse.table_partition (name, fact, day, state, reason) VALUES ($1, $2, $3, 'hot', 'its day is not over')
ON CONFLICT (name) DO UPDATE SET state = 'hot', reason = excluded.reason, changed_at = clock_timestamp()
