-- Called by: load::seal, under the advisory lock of the partition. Locks: the row written.
INSERT INTO warehouse.table_partition (name, fact, day, state, reason) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (name) DO UPDATE SET state = excluded.state, reason = excluded.reason, changed_at = clock_timestamp()
